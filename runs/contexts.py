"""Contexts as a run's log holds them: an unchanged message is a reference to the run's previous context.

An agent calls its model once for each round of tools, each time with the same conversation and a little more. Without
references a run's record would grow with the conversation times the rounds.
"""

from collections.abc import Sequence
from dataclasses import replace

from runs.events import JSON, Context

SAME = "same_as"
"""The key of a message that equals the one at that index in the run's previous context."""


def abbreviate_context(context: Context, previous: Context | None) -> Context:
    """The context with `{same_as: index}` for each message that stands at the same index in the previous one.

    Both are complete: the previous one without `same_as`, too.
    """
    if previous is None:
        return context
    messages = _abbreviate(context.messages, previous.messages)
    return replace(context, messages=messages, left_out=_abbreviate(context.left_out, previous.left_out))


def complete_context(context: Context, previous: Context | None) -> Context:
    """The context with each `{same_as: index}` replaced by that message of the previous context.

    The previous one is complete. Raises ValueError for an index that it does not have.
    """
    messages = _complete(context.messages, previous.messages if previous else ())
    left_out = _complete(context.left_out, previous.left_out if previous else ())
    if messages is context.messages and left_out is context.left_out:
        return context
    return replace(context, messages=messages, left_out=left_out)


def _abbreviate(messages: Sequence[JSON], previous: Sequence[JSON]) -> list[JSON]:
    return [
        {SAME: i} if i < len(previous) and previous[i] == message else message for i, message in enumerate(messages)
    ]


def _complete(messages: list[JSON], previous: Sequence[JSON]) -> list[JSON]:
    if not any(SAME in message for message in messages):
        return messages
    try:
        return [previous[message[SAME]] if SAME in message else message for message in messages]
    except (IndexError, TypeError) as e:
        raise ValueError("a context refers to a message that the previous context does not have") from e
