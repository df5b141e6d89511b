"""The fields of the header and the options, and the answers that set them.

A visitor may change a field while an answer of the server is on its way. The field then keeps the visitor's value, and
only the browser knows of it. So an answer sets no field itself: it goes to `web/fields.js`, with the values that the
fields had when the server was asked, and the script sets the fields that still have those values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from backends import OPTION_NAMES
from components.assets import QUIET, script_component
from components.header_handlers import HeaderHandlers
from components.load import ConversationLoader
from components.page_state import PageState, Updates
from memory.options import PARAMETERS
from runs.live import new_id

_LAST = "mode_options", "probabilities", "model"
FIELDS = ("backend", "memory", *OPTION_NAMES, "tools", *PARAMETERS, "documents", *_LAST)
"""The names of the fields, in the order of the listeners' inputs. `web/fields.js` relies on the first and the last."""


class Fields:
    """The fields of one page, by their names in `FIELDS`. `answer` carries new values for them to the browser."""

    def __init__(self, components: Mapping[str, Any]) -> None:
        self.components = [components[name] for name in FIELDS]
        self.answer = script_component("fields", "fields.js")
        self._initial = [component.value for component in self.components]

    def on_load(self, loader: ConversationLoader) -> Any:
        """Returns the handler of a page's load."""

        async def load(request: gr.Request) -> Updates:
            return split(await loader.on_load(request), self._initial)

        return load

    def on_open(self, loader: ConversationLoader) -> Any:
        """Returns the handler that opens a conversation. The fields are its last inputs."""

        async def open_(page: PageState, request: gr.Request, data: gr.EventData, *before: Any) -> Updates:
            return split(await loader.on_open(page, request, data), before)

        return open_

    def on_use(self, header: HeaderHandlers) -> Any:
        """Returns the handler that takes over a compared memory mode. The fields are its inputs."""

        async def use(data: gr.EventData, *before: Any) -> Updates:
            return split(await header.on_use(data), before)

        return use

    def wire(self) -> None:
        """Lets the browser set the fields as soon as an answer has arrived."""
        script = "(...given) => window.glassbox.setFields(...given)"
        inputs = [self.answer, *self.components]
        self.answer.arrived(None, inputs, self.components, js=script, trigger_mode="multiple", **QUIET)


def split(updates: Updates, before: Sequence[Any]) -> Updates:
    """Moves the values of fields from updates to the value of `Fields.answer`, which has the name `answer`.

    Its `set` has the new values by the index of the field, and `before` the values at the time of the request.
    """
    kept, values = dict(updates), dict[str, Any]()
    for index, name in enumerate(FIELDS):
        if name not in updates:
            continue
        update = kept.pop(name)
        if isinstance(update, dict) and update.get("__type__") == "update":
            kept[name] = {key: value for key, value in update.items() if key != "value"}
            if "value" in update:
                values[str(index)] = update["value"]
        else:
            values[str(index)] = update
    return kept | {"answer": {"before": list(before), "set": values, "id": new_id()}}  # equal answers are two events
