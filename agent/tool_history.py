"""The tool calls of earlier turns: which of their results a turn gets, and as which messages.

A reply is stored with its tool calls. A memory mode selects the texts first; then the results of the selected replies
are added, the newest first, within the mode's budget. A model that is offered the tool gets the call and its result as
such, others get a text.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from agent.token_counts import count_messages
from agent.tool_results import NO_OUTPUT, shortened
from backends import Backend
from documents.quotes import DOCUMENTS, SEARCH, without_numbers
from memory.messages import Message
from memory.modes import LeftOut, Selection
from runs.events import JSON
from runs.reply import ReplyPart
from runs.text import valid_text
from runs.threads import in_thread
from runs.tokens import estimate_tokens

_LONGEST_RESULT = 4000
"""Longest result, in characters."""
_MOST_INPUT = 2000
"""Longest input, in characters."""
_PER_TOKEN = 3
"""Characters of a token, at least, in most texts."""
_SEARCHED_AGAIN = "the documents are searched again for each message"
_NO_SPACE = "there is no room for the result of this tool call"


@dataclass(frozen=True, slots=True)
class Results:
    """The results that are kept, by the id of their reply, and those that are left out."""

    kept: Mapping[str, Sequence[Message]]
    left_out: Sequence[LeftOut]

    def tokens(self, call: int) -> int:
        """Returns the tokens of those that are kept; `call` is those of a message that only holds a call."""
        return sum(one.tokens + call for results in self.kept.values() for one in results)


def results_of(reply: Message, most: int = _LONGEST_RESULT) -> list[Message]:
    """Returns a message for each tool call of a reply: its call on one line, then the result in `most` characters."""
    found: list[Message] = []
    for number, part in enumerate(part for part in reply.parts if part.kind == "tool"):
        if part.text.strip() and part.text.strip() == reply.text.strip():
            continue  # the result was the reply
        result = valid_text(shortened(_result(part), most))
        arguments = valid_text(json.dumps(_input(part), ensure_ascii=False))
        text = f"[Result of the tool {_name(part)}, called with {arguments}]\n{result}"
        made = Message(
            f"{reply.id}-{number}", "tool", text, tokens=estimate_tokens(text), estimated=True, parts=(part,)
        )
        found.append(made)
    return found


async def select_results(
    backend: Backend, view: Selection, budget: float, known: dict[str, Message], *, many: bool
) -> Results:
    """Selects the results of a view's replies that fit into the mode's budget together with the kept messages.

    With `many` messages everything except the counting is done in a thread.
    """
    most = (
        _LONGEST_RESULT
        if backend.max_result_tokens is None
        else min(_LONGEST_RESULT, _PER_TOKEN * backend.max_result_tokens)
    )
    replies, left = await in_thread(many, _made, view, most)
    results = [result for made in replies.values() for result in made]
    await count_messages(backend, results, range(len(results)), known)
    return await in_thread(many, _fitting, view, budget, backend.template.assistant, replies, results, left)


def _made(view: Selection, most: int) -> tuple[dict[str, list[Message]], list[LeftOut]]:
    """Returns the results of the kept replies, by the replies' ids, and those of the others."""
    left = [LeftOut(result, item.reason) for item in view.left_out for result in results_of(item.message)]
    kept = {message.id: results_of(message, most) for message in view.kept}
    left += [LeftOut(result, _SEARCHED_AGAIN) for made in kept.values() for result in made if _is_passages(result)]
    return {reply: [one for one in made if not _is_passages(one)] for reply, made in kept.items()}, left


def _is_passages(result: Message) -> bool:
    """True for the passages that were found before the reply."""
    return result.parts[0].name == DOCUMENTS


def _fitting(
    view: Selection,
    budget: float,
    call: int,
    replies: Mapping[str, Sequence[Message]],
    results: Sequence[Message],
    left: Sequence[LeftOut],
) -> Results:
    """Selects the newest results that fit; `call` is the number of tokens of a message that only holds a call."""
    left_tokens = budget - sum(message.tokens for message in view.kept) - (view.summary.tokens if view.summary else 0)
    taken: dict[str, Message] = {}
    crowded: list[LeftOut] = []
    for result in reversed(results):
        size = result.tokens + call  # the call may be a message of its own
        if size <= left_tokens:
            taken[result.id], left_tokens = result, left_tokens - size
        else:
            crowded.append(LeftOut(result, _NO_SPACE))
    kept = {reply: [taken[one.id] for one in made if one.id in taken] for reply, made in replies.items()}
    return Results(kept, [*left, *crowded])


def result_messages(
    reply: Message, results: Sequence[Message], offered: Collection[str], *, answers: bool
) -> list[BaseMessage]:
    """Returns the messages for the results of a reply, which come before its text.

    `offered` names the tools that the model is offered; `answers` says whether the message before is a user's.
    """
    # some servers want the thinking back with the calls, in a field that is not stored
    native = answers and not any(part.kind == "thinking" for part in reply.parts)
    own = [result for result in results if native and result.parts[0].name in offered]
    ids = {one.id for one in own}
    messages: list[BaseMessage] = [HumanMessage(one.text, id=one.id) for one in results if one.id not in ids]
    if own:
        calls = [{"name": one.parts[0].name, "args": _input(one.parts[0]), "id": _call_id(one)} for one in own]
        messages.append(
            AIMessage("", id=calls_id(own[0]), tool_calls=[{**call, "type": "tool_call"} for call in calls])
        )
        messages += [ToolMessage(one.text.partition("\n")[2], id=one.id, tool_call_id=_call_id(one)) for one in own]
    return messages


def calls_id(first: Message) -> str:
    """Returns the id of the message with the calls whose first result this is."""
    return f"{first.id}-call"


def _input(part: ReplyPart) -> JSON:
    arguments = part.input if isinstance(part.input, dict) else {} if part.input is None else {"input": part.input}
    text = json.dumps(arguments, ensure_ascii=False)
    return arguments if len(text) <= _MOST_INPUT else {"input": f"{text[:_MOST_INPUT]} [cut]"}


def _result(part: ReplyPart) -> str:
    """Returns the tool's output, with the error if it failed."""
    error = part.error if part.error and part.error not in part.text else ""
    text = without_numbers(part.text) if part.name == SEARCH else part.text
    return "\n".join(filter(None, (text, error))) or NO_OUTPUT


def _name(part: ReplyPart) -> str:
    return " ".join(part.name.split())[:64] or "unnamed"


def _call_id(result: Message) -> str:
    """Returns nine letters and digits, as Mistral's API requires; other APIs accept any id."""
    return hashlib.blake2b(result.id.encode(), digest_size=8).hexdigest()[:9]
