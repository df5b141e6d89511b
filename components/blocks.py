"""Gradio's Blocks, adapted: fewer connections, less memory, and events and a queue that cost less."""

import sys
from copy import copy
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio import state_holder
from gradio.data_classes import BlocksConfigDict
from gradio.state_holder import SessionState

_POLL_S, _PROGRESS_S = 0.01, 0.25
"""How often Gradio's queue looks for events, and for progress bars, which this page does not have. Gradio's default, a
thousand times a second, takes a tenth of a processor all the time.
"""


class PageBlocks(gr.Blocks):
    """Gradio's Blocks with four differences.

    `/chat` accepts fewer than all inputs over plain HTTP (Gradio's own clients add the missing ones), an idle page
    holds no connection, sessions do not keep the values of components, and skipped outputs cost nothing.
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

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: SessionState | None) -> Any:
        """Postprocesses outputs. Those that `gr.skip()` leaves as they are cost nothing.

        Gradio would build each of their components again, which takes milliseconds of the event loop.
        """
        if not isinstance(predictions, tuple) or len(predictions) != len(block_fn.outputs):
            return await super().postprocess_data(block_fn, predictions, state)
        changed = [n for n, prediction in enumerate(predictions) if prediction != gr.skip()]
        outputs: list[Any] = [gr.skip() for _ in predictions]
        if changed:
            part = copy(block_fn)
            part.outputs = [block_fn.outputs[n] for n in changed]
            values: Any = tuple(predictions[n] for n in changed)
            processed = await super().postprocess_data(part, values if len(values) > 1 else values[0], state)
            for n, value in zip(changed, processed, strict=True):
                outputs[n] = value
        return outputs

    def start_queue(self) -> None:
        """Configures the queue. It is closed to API calls except for `/chat`."""
        self.queue(default_concurrency_limit=None, api_open=False, max_size=200)
        queue: Any = self._queue
        queue.sleep_when_free, queue.progress_update_sleep_when_free = _POLL_S, _PROGRESS_S
        # Gradio would compute statistics of the last 10,000 events after each one, for a page that is closed here
        queue.ANALYTICS_MAX_EVENTS, queue.ANAYLTICS_CACHE_FREQUENCY = 1, sys.maxsize


class _Session(SessionState):
    """A page's session without the configuration and the values of its components.

    Gradio uses these for deep links only, which are closed. To compute them takes milliseconds for each component and
    each change.
    """

    def __init__(self, blocks: Any) -> None:
        without_components: Any = SimpleNamespace(default_config=blocks.default_config, blocks={})
        super().__init__(without_components)
        config: Any = self.blocks_config
        config.config_for_block = lambda *_: {}


state_holder.SessionState = _Session  # type: ignore[misc]
if find_spec("matplotlib") is None:
    sys.modules["matplotlib"] = None  # type: ignore[assignment] # else Gradio searches the whole path at each event
