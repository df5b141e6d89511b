"""Models of embeddings that the settings name, as LangChain's `Embeddings`."""

from typing import Any
from urllib.parse import urlsplit

import httpx
from langchain_core.embeddings import Embeddings
from pydantic import SecretStr

from backends.gemini import GOOGLE
from backends.openai import OPENAI
from hosting.proxies import on_this_machine
from settings.documents import DocumentSettings

_TIMEOUT_S = 30.0
"""Timeout of one request, in seconds."""


def build_embeddings(settings: DocumentSettings, key: SecretStr | None) -> Embeddings:
    """Builds the model. The import of its package takes seconds: call it in a thread."""
    address = settings.base_url or (GOOGLE if settings.kind == "gemini" else OPENAI)
    is_local = on_this_machine(urlsplit(address).hostname)
    build = _gemini if settings.kind == "gemini" else _openai
    return build(str(settings.embeddings), address, key, is_local)


def _openai(model: str, address: str, key: SecretStr | None, is_local: bool) -> Embeddings:
    from langchain_openai import OpenAIEmbeddings

    from backends.openai_chat import local_clients

    arguments: dict[str, Any] = local_clients() if is_local else {}
    made = OpenAIEmbeddings(
        model=model,
        base_url=address,
        # always given: otherwise langchain-openai would send OPENAI_API_KEY to this address
        api_key=key or SecretStr("none"),
        max_retries=0,
        timeout=_TIMEOUT_S,
        check_embedding_ctx_length=False,  # texts are sent as texts, which every server accepts
        **arguments,
    )
    for client in (made.client._client, made.async_client._client):
        # OPENAI_ORG_ID and similar variables belong to another account
        client.organization, client.project, client._custom_headers = None, None, {}
        client._client.follow_redirects = False  # a redirect would receive the key and the texts
    return made


def _gemini(model: str, address: str, key: SecretStr | None, is_local: bool) -> Embeddings:
    from google.genai import Client
    from google.genai.types import HttpOptions
    from langchain_google_genai import GoogleGenerativeAIEmbeddings

    assert key is not None  # the settings need one
    arguments: dict[str, Any] = {"model": model, "api_key": key, "base_url": address, "vertexai": False}
    made = GoogleGenerativeAIEmbeddings(**arguments)
    # the SDK's clients would follow redirects with the key and the texts
    clients: dict[str, Any] = {"follow_redirects": False, "timeout": _TIMEOUT_S, "trust_env": not is_local}
    options = HttpOptions(
        base_url=address,
        httpx_client=httpx.Client(**clients),
        httpx_async_client=httpx.AsyncClient(**clients),
    )
    # given again: GOOGLE_GENAI_USE_VERTEXAI would select another service
    made.client = Client(vertexai=False, api_key=key.get_secret_value(), http_options=options)
    return made
