"""What an answer says about the fields above the conversation."""

import gradio as gr

from components.fields import split

_PLACES = {0: 1, 1: 2, 2: 4}
"""The places of three fields among five outputs."""


def test_answer_sets_no_field_itself() -> None:
    updates = ("page", "tokens", gr.update(value=0.5, label="Temperature"), "about", gr.update(interactive=False))
    answer, *kept = split(updates, _PLACES, ["window", None, "Be brief."])
    assert kept == [
        "page", gr.skip(), gr.update(label="Temperature"), "about", gr.update(interactive=False)
    ]  # fmt: skip
    assert answer["before"] == ["window", None, "Be brief."]
    assert answer["set"] == {"0": "tokens", "1": 0.5}


def test_none_is_set_and_a_skipped_field_is_not() -> None:
    answer, *_ = split(("page", gr.skip(), gr.update(value=None), "about", gr.skip()), _PLACES, [])
    assert answer["set"] == {"1": None}


def test_equal_answers_have_different_ids() -> None:
    updates = ("page", *(gr.skip(),) * 4)
    assert split(updates, _PLACES, [])[0] != split(updates, _PLACES, [])[0]
