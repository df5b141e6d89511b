"""How an answer of the server carries new values of the fields."""

from typing import Any

import gradio as gr

from components.fields import FIELDS, split


def test_answer_sets_no_field_itself() -> None:
    updates = {"chat": [], "memory": "tokens", "temperature": gr.update(value=0.5, label="Temperature")}
    before = ["window", None, "Be brief."]
    kept = split(updates | {"tools": gr.update(interactive=False)}, before)
    answer: Any = kept.pop("answer")
    assert kept == {"chat": [], "temperature": gr.update(label="Temperature"), "tools": gr.update(interactive=False)}
    assert answer["before"] == before
    assert answer["set"] == {str(FIELDS.index("memory")): "tokens", str(FIELDS.index("temperature")): 0.5}


def test_none_is_set_and_a_skipped_field_is_not() -> None:
    answer = split({"memory": gr.skip(), "model": gr.update(value=None)}, [])["answer"]
    assert answer["set"] == {str(len(FIELDS) - 1): None}


def test_equal_answers_have_different_ids() -> None:
    assert split({"chat": []}, []) != split({"chat": []}, [])
