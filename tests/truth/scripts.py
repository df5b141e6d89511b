"""Scripts of what a provider, the tools and a visitor do in one run: some by name, any number by chance."""

from dataclasses import dataclass
from typing import Literal, get_args

from hypothesis import strategies as st

Usage = Literal["final", "last", "every", "details", "null", "zero", "never"]
"""Where a reply's usage is reported: in a final chunk without choices, in the last chunk with one, cumulative in every
chunk, in a final chunk with cached and reasoning tokens, as null in every chunk, as zeros, not at all.
"""
TELLS: set[Usage] = {"final", "last", "every", "details"}


@dataclass(frozen=True)
class Tool:
    """A call of a tool that takes so many seconds; `ask` waits for an approval first."""

    seconds: float = 0.1
    name: Literal["nap", "ask"] = "nap"
    tokens: int = 10
    """Of its arguments."""


@dataclass(frozen=True)
class Call:
    """One call of the model: it reads, then writes hidden thinking, visible thinking, text and the arguments of tools.

    Everything is written in pieces of `size` tokens, with `pause` seconds before each but the first. A piece is one
    token or large: of a short one nobody can tell whether it is two, and an estimate of them need not be right.
    """

    text: int = 3
    """Pieces of the reply."""
    thinking: int = 0
    """Pieces of visible thinking."""
    hidden: int = 0
    """Pieces of thinking that are counted, and not sent; where usage is reported it says how many tokens they have."""
    tools: tuple[Tool, ...] = ()
    size: int = 1
    pause: float = 0.05
    reading: float = 0.05
    """Seconds in which nothing comes, or comments alone."""
    comments: bool = False
    """Whether the answer's head and a comment are sent before the reading."""
    usage: Usage = "final"
    refusals: tuple[int, ...] = ()
    """HTTP statuses that it is refused with before it is answered."""


@dataclass(frozen=True)
class Script:
    calls: tuple[Call, ...]
    fallback: bool = False
    """Whether the backend that is asked fails, and its fallback answers."""
    approval: float = 0.1
    """Seconds after which the visitor approves a tool call."""
    stop: float | None = None
    """Seconds after which the visitor stops the run."""


_FIRST = Call(2, tools=(Tool(),))
NAMED = {
    "a short reply": Script((Call(3, size=5),)),
    "a long reply": Script((Call(25, pause=0.04),)),
    "a long reply in large pieces": Script((Call(20, size=6),)),
    "many tokens in three pieces": Script((Call(3, size=30),)),
    "hidden thinking": Script((Call(3, hidden=12, pause=0.03),)),
    "visible thinking": Script((Call(3, thinking=8, usage="details"),)),
    "comments while it reads": Script((Call(6, reading=0.4, comments=True),)),
    "a slow tool": Script((Call(4, tools=(Tool(0.6),)), Call(4))),
    "long arguments": Script((Call(2, tools=(Tool(0.05, tokens=40),)), Call(3))),
    "arguments alone": Script((Call(0, tools=(Tool(0.05, tokens=20),)), Call(3))),
    "parallel tools": Script((Call(1, tools=(Tool(0.3), Tool(0.1), Tool(0.2))), Call(4))),
    "an approval": Script((Call(2, tools=(Tool(0.1, "ask"),)), Call(4)), approval=0.4),
    "three calls": Script((_FIRST, Call(2, tools=(Tool(0.02),), usage="last"), Call(4, usage="every"))),
    "no usage": Script((Call(5, size=20, usage="never"),)),
    "zero usage": Script((Call(5, size=20, usage="zero"),)),
    "null usage": Script((Call(5, size=20, usage="null"),)),
    "usage of one call of two": Script((Call(2, size=10, tools=(Tool(),), usage="never"), Call(4, size=5))),
    "stopped in the second call": Script((_FIRST, Call(40, size=5)), stop=1.0),
    "stopped in a tool": Script((Call(2, tools=(Tool(2.0),)), Call(3)), stop=0.9),
    "stopped before a word": Script((Call(3, reading=2.0),), stop=0.2),
    "refused twice": Script((Call(4, refusals=(429, 500)),)),
    "a fallback": Script((Call(5, size=5),), fallback=True),
    "a fallback with tools": Script((_FIRST, Call(3)), fallback=True),
    "an error in the second call": Script((Call(6, tools=(Tool(),)), Call(0, refusals=(400,)))),
}

_TOOL = st.builds(Tool, st.sampled_from([0.02, 0.1, 0.2]), st.sampled_from(["nap", "nap", "ask"]), st.integers(9, 16))
_CALL = {
    "text": st.integers(1, 6),
    "thinking": st.sampled_from([0, 0, 1, 4]),
    "hidden": st.sampled_from([0, 0, 0, 10]),
    "size": st.sampled_from([1, 5, 6]),
    "pause": st.sampled_from([0.02, 0.03, 0.04]),
    "reading": st.sampled_from([0.0, 0.02, 0.1]),
    "comments": st.booleans(),
    "usage": st.sampled_from(get_args(Usage)),
    "refusals": st.sampled_from([(), (), (), (429,), (500,)]),
}
_FIRST_CALLS = st.builds(Call, tools=st.lists(_TOOL, min_size=1, max_size=2).map(tuple), **_CALL)
SCRIPTS = st.builds(
    lambda first, last, **more: Script((*first, last), **more),
    st.lists(_FIRST_CALLS, max_size=2),
    st.builds(Call, **_CALL),
    fallback=st.sampled_from([False, False, False, True]),
    approval=st.sampled_from([0.02, 0.1]),
    stop=st.one_of(st.none(), st.none(), st.floats(0.05, 0.9)),
)
