"""Gradio's Blocks, adapted: fewer connections, less memory, and a queue that costs less while nothing happens."""

from typing import Any

import gradio as gr
from gradio.data_classes import BlocksConfigDict
from gradio.state_holder import SessionState

_POLL_S, _PROGRESS_S = 0.01, 0.25
"""How often Gradio's queue looks for events, and for progress bars, which this page does not have. Gradio's default, a
thousand times a second, takes a tenth of a processor all the time.
"""


class PageBlocks(gr.Blocks):
    """Gradio's Blocks with three differences.

    `/chat` accepts fewer than all inputs over plain HTTP (Gradio's own clients add the missing ones), an idle page
    holds no connection, and sessions do not keep the values of components.
    """

    def get_config_file(self) -> BlocksConfigDict:
        """Returns the configuration for browsers, without Gradio's heartbeat.

        With a `gr.State`, Gradio makes each page hold a request open for ever. A browser opens at most six connections
        to an HTTP/1.1 host for all its tabs, so a seventh tab would get no answer. `hosting/sessions.py` notices
        closed pages without the heartbeat.
        """
        return {**super().get_config_file(), "connect_heartbeat": False}

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """Validates inputs; missing ones of `/chat` are empty."""
        if block_fn.api_name == "chat":
            inputs.extend("" for _ in block_fn.inputs[len(inputs) :])
        super().validate_inputs(block_fn, inputs)

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: SessionState | None, explicit_call: bool = False
    ) -> list[Any]:
        """Preprocesses inputs without keeping them in the session."""
        processed: list[Any] = await super().preprocess_data(block_fn, inputs, _without_values(state), explicit_call)
        return processed

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: SessionState | None) -> Any:
        """Postprocesses outputs without keeping them in the session."""
        return await super().postprocess_data(block_fn, predictions, _without_values(state))

    def start_queue(self) -> None:
        """Configures the queue. It is closed to API calls except for `/chat`."""
        self.queue(default_concurrency_limit=None, api_open=False, max_size=200)
        queue: Any = self._queue
        queue.sleep_when_free, queue.progress_update_sleep_when_free = _POLL_S, _PROGRESS_S


def _without_values(state: SessionState | None) -> SessionState | None:
    """Stops a session from keeping the latest values of components. Gradio uses them only for deep links."""
    if state is not None and "_update_value_in_config" not in vars(state):
        held: Any = state
        held._update_value_in_config = lambda key, value: None
        state.config_values.clear()
    return state
