"""The tool `wikipedia`, with langchain-community and the package `wikipedia`, both imported on first use.

That package has no timeout, checks no HTTP status and caches every search for ever; this module corrects all three.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import AsyncGenerator, Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from agent.tools.streaming import streaming_tool
from runs.threads import Threads

logger = logging.getLogger(__name__)

ADDRESS = "https://en.wikipedia.org/w/api.php"
_AGENT = "Glassbox/0.1 (a chat page; looks up what its visitors ask for)"
_SECONDS = 8.0
"""Timeout of the whole lookup, in seconds."""
_CONNECT_S, _READ_S = 3.0, 5.0
_PAGES = 3
_CHARACTERS = 1500
"""Longest summary of a page, in characters."""
_THREADS = Threads("Wikipedia", 16)


@streaming_tool
async def wikipedia(query: str) -> AsyncGenerator[str, None]:
    """Looks something up in the English Wikipedia: title and summary of up to three pages."""
    if not query.strip():
        raise ValueError("Say what to look up.")
    pages, until, found = _look_up(query), time.monotonic() + _SECONDS, 0
    while page := await _next(pages, until):
        found += 1
        title, summary = page
        yield f"{title}\n{summary[:_CHARACTERS]}{'…' if len(summary) > _CHARACTERS else ''}\n\n"
    if not found:
        yield "Wikipedia has no page about this."


async def _next(pages: Iterator[tuple[str, str]], until: float) -> tuple[str, str] | None:
    """Returns the next page, None after the last. Raises OSError or ValueError with a sentence, without an address."""
    try:
        return await asyncio.wait_for(_THREADS.run(next, pages, None), until - time.monotonic())
    except OSError as e:  # timeouts, and everything that requests raises
        answer = getattr(e, "response", None)
        if answer is None:
            raise OSError("Wikipedia cannot be reached from here.") from None
        raise OSError(f"Wikipedia has answered HTTP {answer.status_code}. Try again later.") from None
    except Exception as e:  # the package does not check the form of the response
        logger.warning("what Wikipedia has answered: %r", e)
        raise ValueError("Wikipedia's answer cannot be understood. Try other words.") from None


def _look_up(query: str) -> Iterator[tuple[str, str]]:
    """Yields titles and summaries as they are found. Blocks."""
    for page in _wrapper(ADDRESS).lazy_load(query):
        yield page.metadata["title"], page.metadata["summary"].strip()


@lru_cache(1)  # it sets the package's globals
def _wrapper(address: str) -> Any:
    import requests
    import wikipedia.wikipedia as package  # type: ignore[import-untyped]  # it has no types
    from bs4 import GuessedAtParserWarning
    from langchain_community.utilities import WikipediaAPIWrapper

    def get(url: str, **more: Any) -> Any:
        answer = requests.get(url, timeout=(_CONNECT_S, _READ_S), **more)
        answer.raise_for_status()
        return answer

    warnings.filterwarnings("ignore", category=GuessedAtParserWarning)  # from disambiguation pages
    wrapper = WikipediaAPIWrapper(wiki_client=None, top_k_results=_PAGES)
    package.requests = SimpleNamespace(get=get)
    package.API_URL, package.USER_AGENT = address, _AGENT  # the wrapper has set another address
    wrapper.wiki_client = SimpleNamespace(
        search=package.search.fn, page=package.page, exceptions=wrapper.wiki_client.exceptions
    )
    return wrapper
