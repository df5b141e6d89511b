"""The benchmark of attacks: one of them, once; and what is found good."""

import pytest

from bench import attacks
from bench.attackers import ATTACKS
from bench.attacks import measure_attacks
from bench.report import print_attacks


def test_another_visitor_is_answered_during_an_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "_QUIET_S", 1.0)
    [row] = measure_attacks(1, ["threads"])
    assert row["wrong"] == [] and row["memory"][0] > 0
    assert all(waits and min(waits) > 0 for waits in (*row["quiet_s"].values(), *row["meanwhile_s"].values()))


@pytest.mark.parametrize(
    ("more", "good"),
    [
        ({}, True),
        ({"meanwhile_s": {"Bench": [0.03, 0.35, 0.35]}}, False),
        ({"meanwhile_s": {"Bench": [0.03, 0.12, 0.13]}}, True),
        ({"meanwhile_s": {"Bench": []}}, False),
        ({"memory": [90, 100, 200, 210, 220, 221]}, False),
        ({"wrong": ["Bench: 500"]}, False),
    ],
    ids=["quiet", "late", "noise", "never", "memory", "error"],
)
def test_late_tokens_memory_and_errors_are_found(
    more: dict[str, object], good: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "attack": "records",
        "quiet_s": {"Bench": [0.03]},
        "meanwhile_s": {"Bench": [0.04]},
        "memory": [90, 100, 200, 210],
    }
    assert print_attacks([row | {"wrong": []} | more]) is good
    assert "| records | Bench | 30 |" in capsys.readouterr().out


def test_attacks_have_names_of_their_own() -> None:
    assert len({attack.__name__ for attack in ATTACKS}) == len(ATTACKS)
