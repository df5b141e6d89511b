"""Memory modes that the settings name: what they choose is made to fit, and their errors harm one choice."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.own_modes import add_own_modes
from memory.messages import Message
from memory.modes import MODES, Candidates, Mode, ModeLimits
from memory.own_modes import add_mode, own_mode
from settings import MemorySettings, SettingsError
from settings.memory import OwnMode
from tests.app_process import RunningApp
from tests.browser.conftest import SCRIPTED
from tests.live_app import events_of
from tests.test_memory_modes import HISTORIES, LIMITS

ROOT = Path(__file__).parent.parent
DOCUMENTED = re.findall(r"```(?:python|toml)\n(.*?)```", (ROOT / "docs" / "memory.md").read_text(), re.S)


@pytest.fixture(autouse=True)
def no_mode_stays() -> Iterator[None]:
    known = dict(MODES)
    yield
    MODES.clear()
    MODES.update(known)


def mode_of(chosen: set[int]) -> Mode:
    return own_mode("mine", "Mine: some", lambda past, _: [m for i, m in enumerate(past.messages) if i in chosen])


@given(HISTORIES, LIMITS, st.sets(st.integers(0, 39)))
def test_what_is_chosen_is_given_as_far_as_it_fits(
    history: list[Message], limits: ModeLimits, chosen: set[int]
) -> None:
    view = mode_of(chosen).select(Candidates(history), limits)
    left = [one.message for one in view.left_out]
    assert sorted([*view.kept, *left], key=history.index) == history
    assert list(view.kept) == sorted(view.kept, key=history.index)
    assert sum(message.tokens for message in view.kept) <= limits.history
    assert not view.kept or view.kept[0].role == "user"
    wanted = [message for i, message in enumerate(history) if i in chosen]
    assert set(view.kept) <= set(wanted)
    if wanted and wanted[0].role == "user" and sum(message.tokens for message in wanted) <= limits.history:
        assert list(view.kept) == wanted


def test_a_function_that_fails_gives_the_latest_messages(caplog: pytest.LogCaptureFixture) -> None:
    def fail(past: Candidates, _: ModeLimits) -> list[Message]:
        raise IndexError(past.messages[0].text)

    mode = own_mode("mine", "Mine: none", fail)
    past = Candidates([Message("a", "user", "a visitor's words", tokens=5), Message("b", "assistant", "two", tokens=5)])
    limits = ModeLimits(input_budget=1000, spent=0)
    view = mode.select(past, limits)
    assert view.kept == MODES["tokens"].select(past, limits).kept
    assert view.note == "The memory mode mine failed. The latest messages that fit are given instead."
    assert "IndexError at " in caplog.text and Path(__file__).name in caplog.text
    assert "a visitor's words" not in caplog.text


def made(first: int = 1) -> Mode:
    return mode_of({first})


def fails() -> Mode:
    raise RuntimeError("a secret")


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("no_such_module:made", {}, "no_such_module cannot be imported: is it installed?"),
        (f"{__name__}:absent", {}, f"there is no 'absent' in {__name__}"),
        (f"{__name__}:made", {"second": 1}, "unexpected keyword argument 'second'"),
        (f"{__name__}:mode_of", {}, "missing 1 required positional argument"),
        (f"{__name__}:ROOT", {}, "not callable"),
        (f"{__name__}:dict_of", {}, "there is no"),
        (f"{__name__}:fails", {}, "fails (RuntimeError)"),
        ("builtins:dict", {}, "found no memory mode: make one with own_mode of memory/own_modes.py"),
    ],
)
def test_an_entry_without_a_mode_stops_the_start(path: str, options: dict[str, object], expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        add_own_modes(MemorySettings(modes=[OwnMode(path=path, options=options)]))
    assert str(error.value).startswith(f"memory, modes: entry 1, {path}: ") and expected in str(error.value)
    assert "secret" not in str(error.value)


def test_names_are_unique_and_the_default_is_one_of_them() -> None:
    twice = [OwnMode(path=f"{__name__}:made"), OwnMode(path=f"{__name__}:made", options={"first": 2})]
    with pytest.raises(SettingsError, match=r"entry 2, .*: name: found 'mine', which is the name of another mode"):
        add_own_modes(MemorySettings(modes=twice))
    with pytest.raises(SettingsError, match=r"memory, default: found 'other', allowed: 'none', .*'mine'"):
        add_own_modes(MemorySettings(modes=[], default="tokens").model_copy(update={"default": "other"}))
    with pytest.raises(ValueError, match="name: found 'tokens'"):
        add_mode(own_mode("tokens", "Mine: some", lambda past, _: past.messages))
    for name in ("", "x" * 41, " mine", "mi\nne"):
        with pytest.raises(ValueError, match="name: found"):
            own_mode(name, "Mine: some", lambda past, _: past.messages)
    with pytest.raises(ValueError, match="parameters: found 'turns', allowed: window_turns, "):
        own_mode("mine", "Mine: some", lambda past, _: past.messages, ["turns"])


async def test_the_documented_mode_is_offered_and_used(tmp_path: Path) -> None:
    code = next(block for block in DOCUMENTED if "own_mode" in block)
    config = next(block for block in DOCUMENTED if "memory.modes" in block)
    (tmp_path / "my_modes.py").write_text(code)
    with RunningApp(tmp_path, f"{config}{SCRIPTED}") as app:
        async with httpx.AsyncClient(base_url=app.url, trust_env=False, timeout=30) as client:
            listed = {one["name"]: one for one in (await client.get("/memory-modes")).json()}
            assert listed["first and last"]["about"] == "First and last turns: what you began with stays"
            assert [(one["title"], one["default"]) for one in listed["first and last"]["options"]] == [
                ("First turns kept", 1),
                ("Long replies", True),
            ]
            history = [
                {"role": role, "content": f"{role} {turn}"} for turn in range(8) for role in ("user", "assistant")
            ]
            imported = await client.post("/conversations", json={"messages": history})
            sent = {"message": "Hi", "conversation_id": imported.json()["conversation_id"], "window_turns": 3}
            sent["mode_options"] = {"first": 2}
            events = await events_of(client, "POST", "/stream", json=sent)
    context = next(event for event in events if event["type"] == "context")
    given = [one["content"] for one in context["messages"] if one["role"] != "system"]
    wanted = [f"{role} {turn}" for turn in (0, 1, 5, 6, 7) for role in ("user", "assistant")]
    assert given == [*wanted, "Hi"], json.dumps(context)[:3000]
    assert {one["reason"] for one in context["left_out"]} == {"not chosen by the mode first and last"}
