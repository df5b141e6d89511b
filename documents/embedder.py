"""The model of embeddings: it turns texts into vectors, or says in the log why it does not.

A vector is the bytes of 32-bit floats, and has the length 1: the product of two is their cosine similarity.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

from runs.threads import Threads

logger = logging.getLogger(__name__)

_PASSAGES_S, _QUERY_S = 30.0, 1.5
"""Timeouts of the vectors of passages, and of that of a search, in seconds."""
_QUERIES = 8
"""Searches whose vectors are made at once; further ones do without."""
_AGAIN_S = 30.0
"""Seconds after a failure in which searches do without vectors."""
MOST_DIMENSIONS = 4096
"""Numbers of a vector."""
_REJECTED = (400, 413, 422, 500)
"""HTTP statuses of requests that may fail again: some servers answer with 500 to a text that is too long."""
_THREADS = Threads("embeddings", 2)


class EmbeddingError(Exception):
    """The model gave no vectors. The reason is in the log; `rejected` if that may be due to the texts."""

    def __init__(self, *, rejected: bool = False) -> None:
        super().__init__()
        self.rejected = rejected


class Embedder:
    """A model of embeddings, which is built when it is first needed."""

    def __init__(self, source: str, build: Callable[[], Embeddings]) -> None:
        """`source` names the model with its server."""
        self.source, self._build = source, build
        self._model: asyncio.Future[Embeddings] | None = None
        self._queries = asyncio.Semaphore(_QUERIES)
        self._again = 0.0
        self._reason = ""
        """Why the latest attempt failed; empty if it did not."""

    async def load(self) -> Embeddings:
        """Builds the model, unless that was done before."""
        if self._model is None:
            self._model = asyncio.ensure_future(_THREADS.run(self._build))
        return await asyncio.shield(self._model)

    async def passages(self, texts: Sequence[str]) -> list[bytes]:
        """Returns the vectors of passages. Raises EmbeddingError."""
        return await self._vectors(lambda model: model.aembed_documents(list(texts)), len(texts), _PASSAGES_S)

    async def query(self, text: str) -> bytes | None:
        """Returns the vector of a search; None if there is none soon."""
        if time.monotonic() < self._again or self._queries.locked():
            return None

        async def ask(model: Embeddings) -> list[Any]:
            return [await model.aembed_query(text)]

        try:
            async with self._queries:
                return (await self._vectors(ask, 1, _QUERY_S))[0]
        except EmbeddingError:
            self._again = time.monotonic() + _AGAIN_S
            return None

    async def _vectors(
        self, ask: Callable[[Embeddings], Awaitable[list[Any]]], number: int, seconds: float
    ) -> list[bytes]:
        rejected = False
        try:
            async with asyncio.timeout(seconds):
                vectors = await _THREADS.run(_packed, await ask(await self.load()), number)
            self._reason = ""
            return vectors
        except TimeoutError:
            reason = f"it did not answer within {seconds:g} s"
        except Exception as e:  # its text may have a visitor's words or a key, so only its kind is logged
            status = next((found for one in (e, e.__cause__) if (found := _status(one))), None)
            rejected, reason = status in _REJECTED, f"{type(e).__name__}{f', HTTP {status}' if status else ''}"
        if reason != self._reason:
            logger.warning("the embeddings of %s failed: %s. Documents are searched by words.", self.source, reason)
        self._reason = reason
        raise EmbeddingError(rejected=rejected)


def _status(error: BaseException | None) -> int | None:
    """Returns the HTTP status that an exception of a provider's SDK has."""
    found = getattr(error, "status_code", None) or getattr(error, "code", None)
    return found if isinstance(found, int) else None


def _packed(vectors: Any, number: int) -> list[bytes]:
    """Checks vectors, and returns them with the length 1. Raises ValueError."""
    with np.errstate(over="ignore"):
        found = np.asarray(vectors, dtype=np.float32)
    if found.ndim != 2 or len(found) != number or not 1 <= found.shape[1] <= MOST_DIMENSIONS:
        raise ValueError("no vectors")
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError("no vectors with a direction")
    return [row.tobytes() for row in found / lengths]
