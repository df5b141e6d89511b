"""The vector store of the documents, where the settings name a model of embeddings."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from backends.embeddings import build_embeddings
from documents.database import Database
from settings import Settings

if TYPE_CHECKING:
    from documents.vectors import PassageVectors


def document_vectors(settings: Settings) -> "Callable[[Database], PassageVectors] | None":
    """Returns the function that makes the store in the library's database; None without a model."""
    wanted = settings.documents
    if wanted.embeddings is None:
        return None
    from documents.embedder import Embedder
    from documents.vectors import PassageVectors

    build = partial(build_embeddings, wanted, settings.keys.get(wanted.key_name or ""))
    return partial(PassageVectors, embedder=Embedder(wanted.source, build), least=wanted.similarity)
