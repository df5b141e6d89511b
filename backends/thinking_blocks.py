"""Signed thinking blocks, which must be sent back unchanged with the reply's tool calls.

OpenRouter sends `reasoning_details` and LiteLLM `thinking_blocks`, in fragments. The model's provider rejects missing,
fragmented or changed blocks ("Invalid `signature` in `thinking` block"). Source:
https://openrouter.ai/docs/use-cases/reasoning-tokens, "Preserving reasoning blocks";
https://docs.litellm.ai/docs/reasoning_content.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from runs.text import valid_text

THINKING_BLOCKS = "thinking_blocks"
"""The key in a reply's `additional_kwargs` for the fragments of each field, as JSON; LangChain appends later ones."""
FIELDS = ("reasoning_details", "thinking_blocks")
_GROWING = ("text", "thinking", "summary", "data")
"""The fields of a block that later fragments extend; other fields are replaced."""


def fragments_of(delta: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the fragments of blocks in a delta, by the name of their field."""
    found = {name: delta[name] for name in FIELDS if isinstance(delta.get(name), list)}
    return {name: [json.dumps(one) for one in some if isinstance(one, dict)] for name, some in found.items() if some}


def blocks_of(fragments: Iterable[str]) -> list[dict[str, Any]]:
    """Merges fragments into blocks, in the order of their first fragments."""
    blocks: list[dict[str, Any]] = []
    for fragment in map(json.loads, fragments):
        if block := next((block for block in reversed(blocks) if _continues(fragment, block)), None):
            joined = {name: block[name] + fragment[name] for name in _GROWING if _grows(name, block, fragment)}
            block.update({name: value for name, value in fragment.items() if value is not None} | joined)
        else:
            blocks.append(fragment)
    return [
        {
            name: valid_text(value) if name in _GROWING and isinstance(value, str) else value
            for name, value in block.items()
        }
        for block in blocks
    ]


def _grows(name: str, block: Mapping[str, Any], fragment: Mapping[str, Any]) -> bool:
    return isinstance(block.get(name), str) and isinstance(fragment.get(name), str)


def _continues(fragment: Mapping[str, Any], block: Mapping[str, Any]) -> bool:
    """True if a fragment belongs to a block: by its index or id, or to an unsigned block of the same type."""
    if any(fragment.get(name) is not None and block.get(name) not in (None, fragment[name]) for name in ("type", "id")):
        return False
    if fragment.get("index") is not None or block.get("index") is not None:
        return fragment.get("index") == block.get("index")
    encrypted = block.get("data") is not None or fragment.get("data") is not None
    return not encrypted and not block.get("signature")
