"""A chat model that adapts its requests to its server: a refused one is changed and sent again."""

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
from backends.openai_rejections import accepted_shape
from backends.openai_request import RequestShape
from backends.provider_errors import ProviderError, provider_error
from backends.request_shape import LearnedShape
from runs.threads import Threads

logger = logging.getLogger(__name__)

_MOST_CHANGES = 6
"""Changes of one request."""
_THREADS = Threads("refusals", 1)


class AdaptiveChat(CompatibleChat):
    """`adaptation` is shared by all copies of a backend's models; `notices` are what one turn's copy has to say."""

    _adaptation: LearnedShape = PrivateAttr()
    _notices: list[str] = PrivateAttr(default_factory=list)

    def adapting(self, adaptation: LearnedShape) -> "AdaptiveChat":
        """A copy for one turn, with notices of its own."""
        made = self.model_copy()
        made._adaptation, made._notices = adaptation, []
        return made

    @property
    def notices(self) -> list[str]:
        """Sentences about changed requests, for the visitor."""
        return self._notices

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        trial, said = self._with(self._adaptation.shape), list[str]()
        while True:
            begun = False
            try:
                source = CompatibleChat._astream(trial, messages, stop, run_manager, **kwargs)
                async with aclosing(source) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        if not begun and said:
                            await self._keep(trial._shape, said)
                        begun = True
                        yield chunk
                return
            except Exception as e:
                if begun or len(said) >= _MOST_CHANGES or (error := _refusal(e)) is None:
                    raise
                body = trial._get_request_payload(messages, stop=stop, **{"stream_options": {}, **kwargs})
                found = await _THREADS.run(accepted_shape, trial._shape, error, body, self._adaptation.name)
                if found is None or found[0] == trial._shape:
                    raise
                trial, sentence = self._with(found[0]), found[1]
                said.append(sentence)

    def _with(self, shape: RequestShape) -> "AdaptiveChat":
        made = self.model_copy()
        made._shape = shape
        return made

    async def _keep(self, shape: RequestShape, said: list[str]) -> None:
        self._adaptation.keep(shape)
        self._notices.extend(said)
        for sentence in said:
            logger.warning("%s The settings `fields` and `system_role` of its entry can say so at once.", sentence)
            await dispatch(NOTICE, {"content": sentence})


def _refusal(exception: BaseException) -> ProviderError | None:
    """The provider's error, from the exception or what caused it; one with a text before one without."""
    found: list[ProviderError] = []
    at: BaseException | None = exception
    while at is not None and len(found) < 8:
        found.append(provider_error(at) or ProviderError())
        at = at.__cause__ or at.__context__
    return next((error for error in found if error.text), None)
