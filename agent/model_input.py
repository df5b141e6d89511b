"""The input of a model: the messages that the memory mode selects, in a shape that every model accepts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool

from agent.given_images import GivenImages, select_images
from agent.image_blocks import image_block, image_blocks, user_message
from agent.passage_text import PassageText, fit_passages
from agent.thinking_tags import CLOSE
from agent.token_counts import MANY, count_history, describe_tools
from agent.tool_history import Results, calls_id, result_messages, results_of, select_results
from agent.turn import Turn
from backends import Backend, ModelOptions
from documents.index import Passage
from memory.messages import Message, Summary
from memory.modes import Candidates, LeftOut, ModeLimits, Selection, least_start, token_offsets
from memory.options import PARAMETERS, TurnOptions
from memory.turn_states import turn_states
from runs import events
from runs.images import image_tokens
from runs.threads import Threads, in_thread
from settings import MemorySettings, Settings

SUMMARY = "\n\nWhat was said earlier in this conversation, in short: "
PASSAGES = "passages"
"""The id of the message with passages of documents, which is joined with the user's message."""
REPLY_START = "reply start"
"""The id of the message that is the beginning of the reply."""
_THREADS = Threads("recall", 2)
_SEAM = 4
"""Tokens that a text may gain where it follows another text."""
_SEARCHED = 4
"""Matches that are searched for each turn that may be recalled: several may be in one turn, and some may not fit."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The messages that a model is given, the system prompt first, and those that the memory mode left out."""

    messages: Sequence[BaseMessage]
    left_out: list[events.JSON]
    input_budget: int
    """Most tokens that the model may be given."""
    memory: str
    """Name of the memory mode."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """The part of the context that each message belongs to, by message id; see `Context`."""
    why: Mapping[str, str] = field(default_factory=dict)
    """The reason why an older message is included, by message id."""
    summary_tokens: int = 0
    """Tokens of the summary, which is in the system prompt."""
    note: str | None = None
    """A sentence about the selection, for people."""
    tools: Sequence[events.JSON] = ()
    """Descriptions of the offered tools, as {name, content, tokens}."""
    memory_limit: int | None = None
    """The memory mode's own limit of the input, where it is below the budget."""
    turns: Sequence[events.JSON] = ()
    """The earlier turns; see `Context`."""
    closing_tag: bool = False
    """Whether a message contains the tag that ends thinking."""
    thinking: bool | None = None
    """The switch of the model's thinking, if it is used."""
    passages: PassageText = field(default_factory=PassageText)
    """Passages of the visitor's documents, which are in the message."""
    images: Mapping[str, str] = field(default_factory=dict)
    """The images in the messages as base64, by id; the messages themselves have no data."""


async def build_model_input(
    settings: Settings,
    backend: Backend,
    turn: Turn,
    model_options: ModelOptions,
    tools: Sequence[BaseTool] = (),
    found: Sequence[Passage] = (),
) -> ModelInput:
    """Builds the input of a turn for a backend with these options, which is offered `tools`.

    Passages that were `found` for the message are given as far as they fit into half of what the memory mode may use.
    """
    mode, prompt = turn.mode, turn.options.system_prompt
    if backend.runs_agent:  # the page sends one with each message
        prompt = ""
    elif prompt is None:
        prompt = settings.system_prompt
    loaded = await turn.load_history()
    many = sum(1 + len(one.parts) for one in loaded.messages) > MANY
    history, unanswered = await in_thread(many, _answered, loaded.messages)
    template = backend.template
    texts = [turn.message.text, prompt, *([turn.reply_start] if turn.reply_start else [])]
    message, system, *begun = await backend.count_tokens(texts)
    prompted = bool(system.text.strip())
    offered = await describe_tools(backend, tools)
    message_tokens = message.tokens + template.per_message("user")
    if backend.images is not False:
        message_tokens += image_tokens(turn.message.images)
    spent = template.per_prompt(with_system=prompted, thinking=model_options.thinking) + message_tokens
    spent += sum(tool["tokens"] for tool in offered)
    spent += sum(one.tokens + template.per_message("assistant") for one in begun)
    if prompted:
        spent += system.tokens + template.per_message("system")
    input_budget = backend.context - model_options.max_tokens
    limits = mode_limits(settings.memory, turn.options, input_budget, spent, message_tokens)
    passages = PassageText()
    if found and mode.bounded:
        passages = await fit_passages(backend, found, turn.message.text, mode.budget(limits) // 2)
        spent, message_tokens = spent + passages.tokens, message_tokens + passages.tokens
        limits = mode_limits(settings.memory, turn.options, input_budget, spent, message_tokens)
    past = Candidates(history, token_offsets=token_offsets(history))
    if mode.summarizes:
        made, failed, cost = await turn.load_summary(history)
        past = replace(past, summary=made and await _read(backend, made, prompted=prompted), failed=failed, cost=cost)
    if mode.searches:
        older, most = history[: least_start(history, limits)], _SEARCHED * limits.recall_turns
        past = replace(past, matches=await _THREADS.run(loaded.index.search, older, turn.message.text, most))
    known = loaded.counted_messages.setdefault(f"{backend.name}\n{backend.model or ''}", {})
    past = await count_history(backend, mode, past, limits, known)
    view = await in_thread(many, mode.select, past, limits)
    results = await select_results(backend, view, mode.budget(limits), known, many=many)
    if found and not mode.bounded:
        rest = limits.history - sum(one.tokens for one in view.kept) - results.tokens(template.assistant)
        passages = await fit_passages(backend, found, turn.message.text, rest // 2)
    images = await select_images(backend, turn, view.kept)

    def assembled() -> ModelInput:
        earlier, parts, why = _earlier(view, results, {tool["name"] for tool in offered}, images)
        quoted = [HumanMessage(passages.text, id=PASSAGES)] if passages.text else []
        messages = [
            *_system(system.text, view.summary),
            *_alternating([*earlier, *quoted, _user_message(replace(turn.message, text=message.text), images)]),
        ]
        parts |= {turn.message.id: "message", "system": "summary" if view.summary else "system"}
        for one in begun:
            messages.append(AIMessage(one.text, id=REPLY_START))
            parts[REPLY_START], why[REPLY_START] = "message", "the beginning of the reply, which the model continues"
        left = (*unanswered, *view.left_out, *results.left_out)
        left_out = [*(_left_out(item, exact=not message.estimated) for item in left), *images.left_out]
        return ModelInput(
            messages,
            left_out,
            input_budget,
            mode.name,
            parts,
            why,
            view.summary.tokens if view.summary else 0,
            view.note,
            offered,
            mode.own_limit(limits),
            turn_states(loaded.messages, view),
            any(CLOSE in one.text for one in messages),
            model_options.thinking,
            passages,
            images.data,
        )

    return await in_thread(many, assembled)


def mode_limits(
    memory: MemorySettings, options: TurnOptions, input_budget: int, spent: int, message: int = 0
) -> ModeLimits:
    """Returns the limits of a memory mode: the conversation's own parameters, else those of the settings."""
    parameters = {name: getattr(options, name) or getattr(memory, name) for name in PARAMETERS}
    own = options.mode_options or {}
    return ModeLimits(input_budget=input_budget, spent=spent, message=message, options=own, **parameters)


def _earlier(
    view: Selection, results: Results, offered: Collection[str], images: GivenImages
) -> tuple[list[BaseMessage], dict[str, str], dict[str, str]]:
    """Returns the kept messages with their tool results, and by message id their parts and the reasons for them."""
    kept, parts, why = list[BaseMessage](), dict[str, str](), dict[str, str]()
    for before, one in zip([None, *view.kept], view.kept, strict=False):
        beside = results.kept.get(one.id) or ()
        kept += result_messages(one, beside, offered, answers=before is not None and before.role == "user")
        kept.append(_for_model(one, images))
        ids = [one.id, *(result.id for result in beside), *(calls_id(result) for result in beside)]
        parts |= dict.fromkeys(ids, "recalled" if one.id in view.why else "recent")
        why |= dict.fromkeys(ids, view.why[one.id]) if one.id in view.why else {}
    return kept, parts, why


async def _read(backend: Backend, summary: Summary, *, prompted: bool) -> Summary:
    """Returns the summary as the backend reads it, with the number of tokens that it adds to the context."""
    text, template = (await backend.count_tokens([f"{SUMMARY}{summary.text}"]))[0], backend.template
    tokens = text.tokens + _SEAM
    if not prompted:
        tokens += (
            template.per_prompt(with_system=True)
            - template.per_prompt(with_system=False)
            + template.per_message("system")
        )
    return replace(summary, text=text.text, tokens=tokens)


def _answered(stored: Sequence[Message]) -> tuple[list[Message], list[LeftOut]]:
    """Splits off replies without text and the user messages before them: models need turns that alternate."""
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


def _for_model(message: Message, images: GivenImages) -> BaseMessage:
    """Converts a stored message for any model: not all accept tools, or a system message within a conversation."""
    match message.role:
        case "user":
            return _user_message(message, images)
        case "assistant":
            return AIMessage(message.text, id=message.id)
        case "system":
            return HumanMessage(f"[Instruction] {message.text}", id=message.id)
        case "tool":
            return HumanMessage(f"[Result of a tool] {message.text}", id=message.id)


def _user_message(message: Message, images: GivenImages) -> HumanMessage:
    return user_message(message.text, message.id, [image_block(image) for image in images.of(message)])


def _alternating(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Joins neighbouring messages of one role, since many models accept only turns that alternate.

    The first message must be the user's: a reply that begins the conversation becomes a user message.
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
    """Returns the messages of one role as one, with the id of the last."""
    last, text = row[-1], "\n\n".join(message.text for message in row)
    if len(row) > 1 and isinstance(last, HumanMessage):
        return user_message(text, last.id, [block for message in row for block in image_blocks(message)])
    return last if len(row) == 1 else type(last)(text, id=last.id)


def _left_out(item: LeftOut, *, exact: bool) -> events.JSON:
    message = item.message
    found = {"role": message.role, "content": message.text, "tokens": message.tokens, "reason": item.reason}
    return found | {"estimated": True} if exact and message.estimated else found


def _system(prompt: str, summary: Summary | None) -> list[BaseMessage]:
    """Returns the system prompt and the summary as one message; an empty list if both are empty.

    The templates of many models refuse a second system message, and two messages of one role.
    """
    text = (prompt if prompt.strip() else "") + (summary.text if summary else "")
    return [SystemMessage(text.strip() if summary else text, id="system")] if text.strip() else []
