"""A chat model that adapts its requests to its server: a rejected request is changed and sent again."""

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import PrivateAttr

from backends.model_events import NOTICE, dispatch
from backends.openai_chat import CompatibleChat
from backends.openai_rejections import corrected_shape
from backends.provider_errors import ProviderError, provider_error
from backends.request_shape import LearnedShape, RequestShape
from runs.threads import Threads

logger = logging.getLogger(__name__)

_MOST_CHANGES = 6
"""How often one request is changed."""
_THREADS = Threads("rejections", 1)


class AdaptiveChat(CompatibleChat):
    """A chat model that retries a rejected request in the shape that the rejection asks for."""

    _learned: LearnedShape = PrivateAttr()
    """What all turns with this model share."""
    _notices: list[str] = PrivateAttr(default_factory=list)

    def for_turn(self, learned: LearnedShape) -> "AdaptiveChat":
        """Returns a copy for one turn, with its own notices."""
        made = self.model_copy()
        made._learned, made._notices = learned, []
        return made

    @property
    def notices(self) -> list[str]:
        """Sentences for the visitor about changed requests."""
        return self._notices

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        trial, notices = self._with(self._learned.shape), list[str]()
        while True:
            started = False
            try:
                source = CompatibleChat._astream(trial, messages, stop, run_manager, **kwargs)
                async with aclosing(source) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        if not started and notices:
                            await self._keep(trial._shape, notices)
                        started = True
                        yield chunk
                return
            except Exception as e:
                if started or len(notices) >= _MOST_CHANGES or (error := _rejection(e)) is None:
                    raise
                body = trial._get_request_payload(messages, stop=stop, **{"stream_options": {}, **kwargs})
                found = await _THREADS.run(corrected_shape, trial._shape, error, body, self._learned.name)
                if found is None or found[0] == trial._shape:
                    raise
                trial, notice = self._with(found[0]), found[1]
                notices.append(notice)

    def _with(self, shape: RequestShape) -> "AdaptiveChat":
        made = self.model_copy()
        made._shape = shape
        return made

    async def _keep(self, shape: RequestShape, notices: list[str]) -> None:
        self._learned.keep(shape)
        self._notices.extend(notices)
        for notice in notices:
            logger.warning("%s To avoid this request, set `fields` or `system_role` in its entry.", notice)
            await dispatch(NOTICE, {"content": notice})


def _rejection(exception: BaseException) -> ProviderError | None:
    """The provider's error, from the exception or its causes; the first one with a text."""
    found: list[ProviderError] = []
    at: BaseException | None = exception
    while at is not None and len(found) < 8:
        found.append(provider_error(at) or ProviderError())
        at = at.__cause__ or at.__context__
    return next((error for error in found if error.text), None)
