"""The growing reply as messages of the Chatbot: its texts, and an empty block where thinking or tool calls stand.

`web/parts.js` draws the parts into the empty blocks, from the panel's value. The HTML of a block never changes, so
Gradio does not draw it again, and what the reader has opened stays open.
"""

from collections.abc import Sequence

from components.markdown import Sources
from components.messages import Wire, wire
from components.parts import Passages, parts_html, sources_before
from components.reply import NO_SOURCES, GrowingReply, reply_html
from runs.reply import split_text

_BLOCK = parts_html(())


class LiveReply:
    """Renders a reply that grows at its end. Texts before the last block are rendered once."""

    def __init__(self) -> None:
        self.sent = 0
        """The number of characters of the last text that Gradio sends."""
        self._growing = GrowingReply()
        self._ended: list[tuple[str, Sources]] = []
        """The texts that have ended, with the sources that they may cite."""
        self._html: list[str] = []
        """The HTML of `_ended`."""

    def messages(self, text: str, offsets: Sequence[int], passages: Passages = ()) -> list[Wire]:
        """Renders the text so far; its parts began at the offsets, which ascend. It may cite the passages before it."""
        *texts, last = split_text(text, offsets)
        sources = [NO_SOURCES, *(sources_before(passages, offset) for offset in offsets)]
        ended = list(zip(texts, sources, strict=False))
        if ended != self._ended:
            same = next((i for i, (a, b) in enumerate(zip(ended, self._ended, strict=False)) if a != b), None)
            known = min(len(ended), len(self._ended)) if same is None else same
            self._html = [*self._html[:known], *(reply_html(*one) for one in ended[known:])]
            self._ended, self._growing = ended, GrowingReply(sources[-1])
        elif self._growing.sources != sources[-1]:
            self._growing = GrowingReply(sources[-1])
        found: list[Wire] = []
        for piece, html in zip(texts, self._html, strict=True):
            found += [wire("assistant", html)] if piece else []
            found.append(wire("assistant", _BLOCK))
        self.sent = 0
        if last:
            found.append(wire("assistant", self._growing.html(last)))
            self.sent = self._growing.sent
        return found
