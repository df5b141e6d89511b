"""The connection to a loaded llama.cpp process: its tokenizer, its chat template, its slots and its chat model."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import httpx

from backends.llama_client import LlamaClient
from backends.llama_process import LlamaProcess
from backends.slot_cache import SlotCache
from runs.threads import Threads

if TYPE_CHECKING:
    from backends.chat_template import ChatTemplate
    from backends.local_chat import LocalChat
    from backends.tokenizer import Tokenizer

_ERASE_S = 300.0
"""Seconds to wait until a slot is erased: a stopped request ends between two batches of its prompt."""


@dataclass(frozen=True, slots=True)
class LlamaConnection:
    """The parts of a loaded process that a backend uses."""

    tokenizer: "Tokenizer"
    template: "ChatTemplate"
    cache: SlotCache
    chat: "LocalChat"


def connect(process: LlamaProcess, slots: int, erasing: Threads) -> LlamaConnection:
    """Reads the tokenizer and the chat template of a process; blocks. Slots are erased in the thread `erasing`.

    Raises OSError.
    """
    from backends.chat_template import ChatTemplate
    from backends.local_chat import local_chat
    from backends.tokenizer import Tokenizer

    client = LlamaClient(process.address, process.key)
    tokenizer = Tokenizer(client)
    cache = SlotCache(slots, partial(_erase_slot, LlamaClient(process.address, process.key, _ERASE_S), erasing))
    chat = local_chat(process.address, process.key, cache)
    return LlamaConnection(tokenizer, ChatTemplate(client, tokenizer), cache, chat)


async def _erase_slot(client: LlamaClient, erasing: Threads, number: int) -> None:
    """Erases a slot. Raises httpx.TransportError, as requests for replies do."""
    try:
        await erasing.run(client.erase_slot, number)
    except OSError as e:
        raise httpx.ReadError("the process does not answer") from e
