"""The fields above the conversation (backend, memory mode and its parameters, options) and the answers that set them.

A visitor may change a field while such an answer is on its way: then the field keeps what they chose. Only the browser
knows that. So the answer itself sets no field: it goes to `web/fields.js` with the values that the fields had when the
server was asked, and sets those that are still the same.
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from components.assets import QUIET, script_component
from components.header_handlers import HeaderHandlers
from components.load import ConversationLoader
from components.page_state import PageState
from runs.live import new_id

Updates = tuple[Any, ...]


class Fields:
    """The fields of one page. `answer` carries the values that an answer has for them."""

    def __init__(self, fields: Sequence[Any]) -> None:
        self.fields = list(fields)
        self.answer = script_component("fields.js", "fields", "")
        self._initial = [field.value for field in fields]

    def on_load(self, loader: ConversationLoader, outputs: Sequence[Any]) -> Any:
        """The handler of a page's load. -> answer, outputs"""
        places = self._places(outputs)

        async def load(request: gr.Request) -> Updates:
            return split(await loader.on_load(request), places, self._initial)

        return load

    def on_open(self, loader: ConversationLoader, outputs: Sequence[Any]) -> Any:
        """The handler of a conversation's choice; the fields are its last inputs. -> answer, outputs"""
        places = self._places(outputs)

        async def open_(page: PageState, request: gr.Request, data: gr.EventData, *before: Any) -> Updates:
            return split(await loader.on_open(page, request, data), places, before)

        return open_

    def on_use(self, header_handlers: HeaderHandlers, outputs: Sequence[Any]) -> Any:
        """The handler of a compared mode's choice; the fields are its inputs. -> answer, outputs"""
        places = self._places(outputs)

        async def use(data: gr.EventData, *before: Any) -> Updates:
            return split(await header_handlers.on_use(data), places, before)

        return use

    def wire(self) -> None:
        """Sets the fields when an answer has come, in the browser and at once."""
        script = "(...given) => window.glassboxFields(...given)"
        self.answer.came(None, [self.answer, *self.fields], self.fields, js=script, trigger_mode="multiple", **QUIET)

    def _places(self, outputs: Sequence[Any]) -> dict[int, int]:
        """The place of each field that is among the outputs."""
        at = {output._id: place for place, output in enumerate(outputs)}
        return {i: at[field._id] for i, field in enumerate(self.fields) if field._id in at}


def split(updates: Sequence[Any], places: dict[int, int], before: Sequence[Any]) -> Updates:
    """The value of `Fields.answer`, and the updates without values for the fields. The answer has the fields' values
    `before` the server was asked and those to be set, by the number of the field.
    """
    kept: list[Any] = list(updates)
    values: dict[str, Any] = {}
    for number, place in places.items():
        update = updates[place]
        if isinstance(update, dict) and update.get("__type__") == "update":
            kept[place] = {name: value for name, value in update.items() if name != "value"}
            if "value" in update:
                values[str(number)] = update["value"]
        else:
            kept[place], values[str(number)] = gr.skip(), update
    answer = {"before": list(before), "set": values, "id": new_id()}  # the id: equal answers are two events
    return answer, *kept
