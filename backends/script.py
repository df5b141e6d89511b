"""The texts and steps of the scripted replies: the tour, the demonstrations and the faults."""

import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from langchain_core.tools import tool

from backends.errors import connection_lost, rate_limited
from runs import events
from runs.errors import ChatError

TOUR_THOUGHTS = "The visitor wants to see the page at work. First a heading, then a list, then some code. "

_TOUR_BEGINS = """\
## What you are looking at

This is the **scripted tour**: no model wrote it. It shows what the page does while a model writes:

- the reply grows *as it comes*, and lists and code are drawn while they grow
- the panel tells the phase, the time to the first token and the tokens per second
- tools run at once, and their results are shown while they run
- **Stop** ends the work itself, not only its display

"""

_TOUR_ENDS = """\
```python
async for chunk in model.astream(messages):
    if chunk.content:
        print(chunk.content, end="", flush=True)
```

| you can | by |
|---|---|
| swap the model | the *Model* menu |
| change what it remembers | the *Memory* menu |
| run a tool yourself | typing `/` |

Type `approval` to see a tool that waits for your approval, or `faults` to see what can go wrong.
"""

TOUR = _TOUR_BEGINS + _TOUR_ENDS

SHOWS: dict[str, str] = {
    "tools": "three tools at once, one of them slow: see their results arrive on the timeline",
    "approval": "a tool that waits until you allow it",
}
"""The demonstrations besides the tour: what to type, and what it shows."""

FAULTS: dict[str, str] = {
    "slow": "the first token takes eight seconds",
    "stall": "the reply stops in the middle for twelve seconds, then continues",
    "hang": "no token ever comes: after 20 seconds that is a time-out",
    "busy": "the provider answers 429 once, and accepts the second attempt",
    "rate limit": "the provider answers 429, and asks to wait for too long",
    "wrong key": "the provider answers 401",
    "unreachable": "the provider cannot be reached, three times",
    "garbage": "the provider sends an unreadable reply",
    "cut": "the connection breaks in the middle of the reply",
    "tool failure": "a tool is called, and fails",
    "endless": "the reply does not end by itself: press Stop, or wait until it has the max reply length",
}
"""The fault menu: what to type, and what happens."""

_SHORT_REPLY = "I am a script, not a model: I cannot answer that. Type `tour` or `faults`, or switch the model above."
_BUSY_S = 2.0
_NAME = "The scripted provider"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a script: a text, an error or a tool call, after a pause."""

    text: str = ""
    wait_s: float = 0.02
    """The pause before it, in seconds."""
    thinking: bool = False
    """True if the text is thinking."""
    error: Exception | None = None
    tool: str | None = None
    input: events.JSON = field(default_factory=dict)
    """The arguments of the tool call."""


@tool
def broken_tool(question: str) -> str:
    """Always fails."""
    raise RuntimeError("the tool's own server answered HTTP 500")


@tool
def careful_tool(text: str) -> str:
    """Says a text, once it is allowed to."""
    return f"It said: {text}"


_CALLS: dict[str | None, tuple[str, list[Step], str]] = {
    "tour": (
        _TOUR_BEGINS,
        [
            Step(tool="calculator", input={"expression": "17*23"}),
            Step(tool="count", input={"upto": 6, "pause_s": 0.3}),
        ],
        _TOUR_ENDS,
    ),
    "tool failure": (
        "I ask a tool. ",
        [Step(tool=broken_tool.name, input={"question": "Are you there?"})],
        "The tool failed, so I continue without it: that is an observation, not the end.",
    ),
    "tools": (
        "I ask three tools at once. ",
        [
            Step(tool="calculator", input={"expression": "17*23"}),
            Step(tool="clock"),
            Step(tool="count", input={"upto": 8, "pause_s": 0.5}),
        ],
        "All three have answered: click their bars on the timeline to see what.",
    ),
    "approval": (
        "I would like to use a tool. ",
        [Step(tool=careful_tool.name, input={"text": "Hello"})],
        "You have decided, and I continue with your answer.",
    ),
}
"""The scripts with tools: the text before the calls, the calls, and the text after their results."""


def selected(message: str) -> str | None:
    """Returns the name of the demonstration or fault that a message selects."""
    text = message.strip().lower()
    return next((name for name in (*SHOWS, *FAULTS) if text == name or text.startswith(name + " ")), None)


def script(
    message: str, *, retry: bool = False, has_result: bool = False, tools: frozenset[str] = frozenset()
) -> Iterable[Step]:
    """Returns the steps of the reply to a message, possibly without end.

    `retry` is True for a second attempt, `has_result` for the call after a tool result. Only `tools` are called.
    """
    text = message.strip().lower()
    name = "tour" if text.startswith("tour") else selected(message)
    if name in _CALLS:
        before, calls, after = _CALLS[name]
        beginning = [*_words(TOUR_THOUGHTS if name == "tour" else "", thinking=True), *_words(before)]
        calls = [step for step in calls if step.tool in tools]
        return _words(after) if has_result else [*beginning, *(calls or _words(after))]
    match name:
        case "slow":
            return [Step("Here ", wait_s=8.0), *_words("is the first token, eight seconds later.")]
        case "stall":
            return [*_words("This reply stops here, "), Step("and ", wait_s=12.0), *_words("continues.")]
        case "hang":
            return [Step("never", wait_s=1e9)]
        case "busy" if not retry:
            return [Step(error=rate_limited(_NAME, _BUSY_S))]
        case "busy":
            return _words("The first attempt was rejected; this is the second. The panel has shown it meanwhile.")
        case "rate limit":
            return [Step(error=rate_limited(_NAME, 60))]
        case "wrong key":
            return [Step(error=ChatError("authentication", f"{_NAME} rejected the key: switch the model."))]
        case "unreachable":
            return [Step(error=ConnectionRefusedError())]
        case "garbage":
            return [Step(error=json.JSONDecodeError("no JSON", "<html>", 0))]
        case "cut":
            return [*_words("This reply breaks off in the middle of a "), Step(error=connection_lost(_NAME))]
        case "endless":
            return (Step(f"{number} ") for number in itertools.count(1))
    if text.startswith("fault"):
        lines = "\n".join(f"- `{name}`: {effect}" for name, effect in FAULTS.items())
        return _words(f"Type one of these:\n\n{lines}\n")
    return _words(_SHORT_REPLY)


def _words(text: str, *, thinking: bool = False) -> list[Step]:
    return [Step(word, thinking=thinking) for word in re.findall(r"\s*\S+\s*?(?=\s|$)|\s+$", text)]
