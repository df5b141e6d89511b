"""The growing reply as messages of the Chatbot: its texts, and an empty block where thinking or tool calls stand.

`web/parts.js` draws the parts into the empty blocks, from the panel's value. The HTML of a block never changes, so
Gradio does not draw it again, and what the reader has opened stays open.
"""

from collections.abc import Sequence

from components.messages import Wire, wire
from components.parts import parts_html
from components.reply import GrowingReply, reply_html
from runs.reply import split_text

_BLOCK = parts_html(())


class LiveReply:
    """Renders a reply that grows at its end. Texts before the last block are rendered once."""

    def __init__(self) -> None:
        self.sent = 0
        """The number of characters of the last text that Gradio sends."""
        self._growing = GrowingReply()
        self._texts: list[str] = []
        self._html: list[str] = []
        """The HTML of `_texts`, which have ended."""

    def messages(self, text: str, offsets: Sequence[int]) -> list[Wire]:
        """Renders the text so far; its parts began at the offsets, which ascend."""
        *ended, last = split_text(text, offsets)
        if ended != self._texts:
            same = next((i for i, (a, b) in enumerate(zip(ended, self._texts, strict=False)) if a != b), None)
            known = min(len(ended), len(self._texts)) if same is None else same
            self._html = [*self._html[:known], *map(reply_html, ended[known:])]
            self._texts, self._growing = ended, GrowingReply()
        found: list[Wire] = []
        for piece, html in zip(ended, self._html, strict=True):
            found += [wire("assistant", html)] if piece else []
            found.append(wire("assistant", _BLOCK))
        self.sent = 0
        if last:
            found.append(wire("assistant", self._growing.html(last)))
            self.sent = self._growing.sent
        return found
