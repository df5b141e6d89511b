"""What one turn gives the model: selected by the memory mode, as the backend reads it, in a shape any model takes."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool

from agent.context_event import MANY, tool_descriptions
from agent.token_counts import count_history
from agent.tool_history import Results, calls_id, given_results, results_of, select_results
from backends import Backend, Key
from memory.history_cache import History
from memory.messages import Message, Summary, TurnOptions
from memory.modes import Candidates, LeftOut, Mode, ModeLimits, Selection, recent_start
from runs import events
from runs.threads import Threads, in_thread
from settings import MemorySettings, Settings

LoadHistory = Callable[[], Awaitable[History]]
"""Reads what comes before the message that is to be answered."""
LoadSummary = Callable[[Sequence[Message]], Awaitable[tuple[Summary | None, str | None]]]
"""The summary of a history, as far as there is one, and why there is no newer one."""

SUMMARY = "\n\nWhat was said earlier in this conversation, in short: "
_THREADS = Threads("recall", 2)
_SEAM = 4
"""Tokens that a text may have more where it stands behind another one."""
_SEARCHED = 4
"""Matches that are looked for, for each turn that may be recalled: some fall into the same turn, or do not fit."""


@dataclass(frozen=True, slots=True)
class TurnInput:
    """What is to be answered, however often that takes."""

    mode: Mode
    asked: Message
    options: TurnOptions
    visitor: str | None
    history: LoadHistory
    summary: LoadSummary


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What one turn gives the model: `messages` (the system prompt first), and what its memory mode left out.

    `input_budget` is the most tokens that may be given in all. `parts` and `why` are by the messages' ids.
    """

    messages: Sequence[BaseMessage]
    left_out: list[events.JSON]
    input_budget: int
    memory: str
    parts: Mapping[str, str] = field(default_factory=dict)
    """What each message is there as: see `Context`."""
    why: Mapping[str, str] = field(default_factory=dict)
    summary_tokens: int = 0
    """Of the summary, which stands in the system prompt."""
    note: str | None = None
    tools: Sequence[events.JSON] = ()
    """What the model is told of the tools that it may choose, as {name, content, tokens}."""
    key: Key | None = None
    """Lets the provider be asked how it counts what comes later."""


async def build_model_input(
    settings: Settings,
    backend: Backend,
    turn: TurnInput,
    reply_tokens: int,
    tools: Sequence[BaseTool] = (),
    key: Key | None = None,
) -> ModelInput:
    """Selects the context: what the mode keeps of the history, as this backend reads it. `tools` may be chosen.

    With a `key` its provider may be asked to count.
    """
    asked, mode, prompt = turn.asked, turn.mode, turn.options.system_prompt
    if prompt is None:
        prompt = settings.system_prompt
    loaded = await turn.history()
    many = sum(1 + len(one.parts) for one in loaded.messages) > MANY
    history, unanswered = await in_thread(many, _answered, loaded.messages)
    template = backend.template
    message, system = await backend.count_tokens([asked.text, prompt], key)
    prompted = bool(system.text.strip())
    told = await tool_descriptions(backend, tools)
    spent = template.per_prompt(with_system=prompted) + message.tokens + template.per_message("user")
    spent += sum(tool["tokens"] for tool in told)
    if prompted:
        spent += system.tokens + template.per_message("system")
    input_budget = backend.context - reply_tokens
    limits = mode_limits(settings.memory, turn.options, input_budget, spent)
    past = Candidates(history)
    if mode.summarizes:
        made, failed = await turn.summary(history)
        past = replace(past, summary=made and await _read(backend, made, key, prompted=prompted), failed=failed)
    if mode.searches:
        older, most = history[: recent_start(history, limits)], _SEARCHED * limits.recall_turns
        past = replace(past, matches=await _THREADS.run(loaded.index.search, older, asked.text, most))
    known = loaded.counted_messages.setdefault(f"{backend.name}\n{backend.model or ''}", {})
    past = await count_history(backend, mode, past, limits, known, key)
    view = await in_thread(many, mode.select, past, limits)
    results = await select_results(backend, view, mode.budget(limits), known, key, many=many)

    def assembled() -> ModelInput:
        earlier, parts, why = _earlier(view, results, {tool["name"] for tool in told})
        messages = [
            *_system(system.text, view.summary),
            *_alternating([*earlier, HumanMessage(message.text, id=asked.id)]),
        ]
        parts |= {asked.id: "message", "system": "summary" if view.summary else "system"}
        left = (*unanswered, *view.left_out, *results.left_out)
        left_out = [_left_out(item, exact=not message.estimated) for item in left]
        summary_tokens = view.summary.tokens if view.summary else 0
        return ModelInput(messages, left_out, input_budget, mode.name, parts, why, summary_tokens, view.note, told, key)

    return await in_thread(many, assembled)


def _earlier(
    view: Selection, results: Results, offered: Collection[str]
) -> tuple[list[BaseMessage], dict[str, str], dict[str, str]]:
    """What a view gives of the history, with tool results; by the messages' ids their parts, and why they are there."""
    given, parts, why = list[BaseMessage](), dict[str, str](), dict[str, str]()
    for before, one in zip([None, *view.kept], view.kept, strict=False):
        beside = results.kept.get(one.id) or ()
        given += given_results(one, beside, offered, answers=before is not None and before.role == "user")
        given.append(_for_model(one))
        ids = [one.id, *(result.id for result in beside), *(calls_id(result) for result in beside)]
        parts |= dict.fromkeys(ids, "recalled" if one.id in view.why else "recent")
        why |= dict.fromkeys(ids, view.why[one.id]) if one.id in view.why else {}
    return given, parts, why


def mode_limits(memory: MemorySettings, options: TurnOptions, input_budget: int, spent: int) -> ModeLimits:
    """The parameters that a conversation has set, else those of the settings."""
    return ModeLimits(
        input_budget,
        spent,
        options.window_turns or memory.window_turns,
        options.token_limit or memory.token_limit,
        options.summary_tokens or memory.summary_tokens,
        options.recall_turns or memory.recall_turns,
    )


async def _read(backend: Backend, summary: Summary, key: Key | None, *, prompted: bool) -> Summary:
    """The summary as the backend reads it, with all that it adds to the context."""
    text, template = (await backend.count_tokens([f"{SUMMARY}{summary.text}"], key))[0], backend.template
    tokens = text.tokens + _SEAM
    if not prompted:
        tokens += (
            template.per_prompt(with_system=True)
            - template.per_prompt(with_system=False)
            + template.per_message("system")
        )
    return replace(summary, text=text.text, tokens=tokens)


def _answered(stored: Sequence[Message]) -> tuple[list[Message], list[LeftOut]]:
    """Without replies that failed before a word, and without what they should have answered: turns must alternate."""
    kept: list[Message] = []
    unanswered: list[LeftOut] = []
    for message, following in zip_longest(stored, stored[1:]):
        if message.text.strip():
            kept.append(message)
            continue
        unanswered += [LeftOut(result, "its reply has no text") for result in results_of(message)]
        if kept and kept[-1].role == "user" and (following is None or following.role == "user"):
            unanswered.append(LeftOut(kept.pop(), "it was never answered"))
    return kept, unanswered


def _for_model(message: Message) -> BaseMessage:
    """A stored message for any model: not all know tools, or a system's word in the middle of a conversation."""
    match message.role:
        case "user":
            return HumanMessage(message.text, id=message.id)
        case "assistant":
            return AIMessage(message.text, id=message.id)
        case "system":
            return HumanMessage(f"[Instruction] {message.text}", id=message.id)
        case "tool":
            return HumanMessage(f"[Result of a tool] {message.text}", id=message.id)


def _alternating(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Messages of one side in a row become one, since many models refuse anything but turns that alternate.

    For the same reason the user comes first: a reply that begins the conversation is given in the user's words.
    """
    rows: list[list[BaseMessage]] = []
    for message in messages:
        if not rows and isinstance(message, AIMessage):
            message = HumanMessage(f"[The assistant began] {message.text}", id=message.id)
        if rows and rows[-1][0].type == message.type and not isinstance(message, ToolMessage):
            rows[-1].append(message)
        else:
            rows.append([message])
    return [_joined(row) for row in rows]


def _joined(row: Sequence[BaseMessage]) -> BaseMessage:
    """Messages of one side as one, under the last one's id."""
    last = row[-1]
    return last if len(row) == 1 else type(last)("\n\n".join(message.text for message in row), id=last.id)


def _left_out(item: LeftOut, *, exact: bool) -> events.JSON:
    message = item.message
    told = {"role": message.role, "content": message.text, "tokens": message.tokens, "reason": item.reason}
    return told | {"estimated": True} if exact and message.estimated else told


def _system(prompt: str, summary: Summary | None) -> list[BaseMessage]:
    """The system prompt as the first message, with the summary behind it; none if there is nothing to say.

    A second system message, or a turn that nobody has written, is refused by the templates of many models.
    """
    text = (prompt if prompt.strip() else "") + (summary.text if summary else "")
    return [SystemMessage(text.strip() if summary else text, id="system")] if text.strip() else []
