"""Thinking as signed blocks beside the text of a reply: they go back with the reply's tool calls as they came.

OpenRouter sends `reasoning_details` and LiteLLM `thinking_blocks`, in fragments; the model's provider refuses blocks
that are missing, in pieces or changed ("Invalid `signature` in `thinking` block"). Source:
https://openrouter.ai/docs/use-cases/reasoning-tokens, "Preserving reasoning blocks";
https://docs.litellm.ai/docs/reasoning_content.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from runs.text import valid_text

THINKING_BLOCKS = "thinking_blocks"
"""In `additional_kwargs` of a reply: for each of the fields, its fragments as JSON; LangChain appends later ones."""
FIELDS = ("reasoning_details", "thinking_blocks")
_GROWING = ("text", "thinking", "summary", "data")
"""Fields of a block that a later fragment adds to; it replaces the others."""


def fragments_of(delta: Mapping[str, Any]) -> dict[str, list[str]]:
    """The fragments of blocks in a piece of a reply, by the name of their field."""
    found = {name: delta[name] for name in FIELDS if isinstance(delta.get(name), list)}
    return {name: [json.dumps(one) for one in some if isinstance(one, dict)] for name, some in found.items() if some}


def blocks_of(fragments: Iterable[str]) -> list[dict[str, Any]]:
    """The blocks that the fragments make, in the order in which they began."""
    blocks: list[dict[str, Any]] = []
    for fragment in map(json.loads, fragments):
        if begun := next((block for block in reversed(blocks) if _continues(fragment, block)), None):
            added = {name: begun[name] + fragment[name] for name in _GROWING if _grows(name, begun, fragment)}
            begun.update({name: value for name, value in fragment.items() if value is not None} | added)
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
    """Whether a fragment belongs to a block: by its index or id, else to an unsigned block of the same type."""
    if any(fragment.get(name) is not None and block.get(name) not in (None, fragment[name]) for name in ("type", "id")):
        return False
    if fragment.get("index") is not None or block.get("index") is not None:
        return fragment.get("index") == block.get("index")
    encrypted = block.get("data") is not None or fragment.get("data") is not None
    return not encrypted and not block.get("signature")
