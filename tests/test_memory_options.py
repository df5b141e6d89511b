"""Options of turns: one declaration of each parameter serves settings, requests, storage and page."""

import pytest

from memory.modes import MODES, ModeLimits
from memory.options import PARAMETERS, ModeParameters, TurnOptions, parameter_range
from memory.tables import conversations
from settings import MemorySettings
from transports.schemas import RequestFields


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_parameter_is_a_setting_a_request_field_a_column_and_a_limit(name: str) -> None:
    least, most = parameter_range(name)
    assert least <= getattr(MemorySettings(), name) <= most
    assert name in RequestFields.model_fields and name in ModeLimits.model_fields and name in conversations.c
    assert PARAMETERS[name] and ModeParameters.model_fields[name].description


def test_parameters_are_those_of_the_modes() -> None:
    assert {name for mode in MODES.values() for name in mode.parameters} == set(PARAMETERS)


def test_every_option_is_stored() -> None:
    assert set(TurnOptions.model_fields) <= {column.name for column in conversations.c}


def test_set_options_replace_stored_ones() -> None:
    stored = TurnOptions(system_prompt="Be brief.", temperature=0.5, tools=("clock",))
    assert TurnOptions(temperature=0.0, tools=()).over(stored) == TurnOptions(
        system_prompt="Be brief.", temperature=0.0, tools=()
    )
