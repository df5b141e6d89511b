"""The chat template of a local model: the tokens that it adds to the messages of a prompt."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise

from backends.base import PromptToken, TemplateTokens
from backends.llama_client import LlamaClient
from backends.tokenizer import Tokenizer

THINK, THINK_END = "<think>", "</think>"
"""The tags of visible thinking in the text of most models."""
_MARK = "MARK"
"""A text whose position in a formatted prompt is searched for."""


class ChatTemplate:
    """A model's chat template, measured through its process. Its methods block, and raise OSError as LlamaClient."""

    def __init__(self, client: LlamaClient, tokenizer: Tokenizer) -> None:
        """Measures the template. Raises OSError if it is unusable."""
        self._client, self._tokenizer = client, tokenizer
        prompts = {thinking: client.format_prompt(["user"], ["a"], thinking) for thinking in (None, True, False)}
        self.switches_thinking = prompts[True] != prompts[False]
        """True if it knows `enable_thinking`."""
        self._opening = frozenset(key for key, prompt in prompts.items() if prompt.rstrip().endswith(THINK))
        self.tokens = self._measure()

    def opens_thinking(self, thinking: bool | None) -> bool:
        """Returns whether it starts each reply with an open <think> tag; `thinking` None is its default."""
        return thinking in self._opening

    def count_tokens(self, messages: Sequence[tuple[str, str]], thinking: bool | None = None) -> list[int]:
        """Counts a formatted prompt: the tokens of each (role, text), and last those outside of any message.

        If the template changes texts, each message has the tokens of its text alone.
        """
        roles, texts = [role for role, _ in messages], [text for _, text in messages]
        marks = [f"{_MARK}{n}." for n in range(len(messages))]
        prompt, marked = (self._client.format_prompt(roles, shown, thinking) for shown in (texts, marks))
        pieces = self._client.pieces(prompt, special=True)
        if self.tokens.system and "system" not in roles:
            roles, texts, marks = ["system", *roles], [self.tokens.system, *texts], [self.tokens.system, *marks]
        counts = tokens_of_texts(prompt, marked, marks, texts, pieces)
        if counts is None:
            alone = zip(self._tokenizer.count_tokens(texts), roles, strict=True)
            counts = [one.tokens + self.tokens.per_message(role) for one, role in alone]
            return [*counts, len(pieces) - sum(counts)]
        rest = self.tokens.per_prompt(with_system="system" in roles, thinking=thinking)
        counts[0] += len(pieces) - sum(counts) - rest  # each message has the end of the one before it
        return [*counts, rest]

    def prompt_tokens(self, messages: Sequence[tuple[str, str]], thinking: bool | None = None) -> list[PromptToken]:
        """Returns the tokens of a formatted prompt."""
        roles, texts = [role for role, _ in messages], [text for _, text in messages]
        prompt = self._client.format_prompt(roles, texts, thinking)
        control = self._tokenizer.control_ids
        return [
            PromptToken(token, piece, control=token in control)
            if isinstance(piece, str)
            else PromptToken(token, None, piece)
            for token, piece in self._client.tokens(prompt, special=True)
        ]

    def _measure(self) -> TemplateTokens:
        """The tokens that the template adds, measured on alternating turns, which some templates require.

        The tokens of a turn are split equally between user and assistant, which is exact for complete turns.
        """
        letter = len(self._client.tokenize("a", special=False))
        bare, with_system = self._size(["user"]), self._size(["system", "user"])
        turn = self._size(["system", "user", "assistant", "user"]) - with_system - 2 * letter
        user = turn // 2
        own = self._own_system()
        switched = {value: self._size(["user"], value) - bare for value in (True, False)}
        return TemplateTokens(
            with_system - 2 * (user + letter), bare - (user + letter), user, turn - user, own, switched
        )

    def _size(self, roles: Sequence[str], thinking: bool | None = None) -> int:
        """The tokens of a prompt of one-letter messages."""
        prompt = self._client.format_prompt(roles, ["a"] * len(roles), thinking)
        return len(self._client.tokenize(prompt, special=True))

    def _own_system(self) -> str:
        """The system prompt that the template adds if none is given."""
        bare, both = self._client.format_prompt(["user"], ["a"]), ["system", "user"]
        before, _, after = self._client.format_prompt(both, [_MARK, "a"]).partition(_MARK)
        own = bare[len(before) : len(bare) - len(after)]
        return own if own and self._client.format_prompt(both, [own, "a"]) == bare else ""


def tokens_of_texts(
    prompt: str, marked: str, marks: Sequence[str], texts: Sequence[str], pieces: Sequence[str | list[int]]
) -> list[int] | None:
    """Counts the tokens of each text, with what precedes it in the prompt.

    `marked` is the prompt with the `marks` instead of the texts; `pieces` are the prompt's tokens as texts or bytes. A
    token belongs to the text in which it starts. Returns None if the chat template does more to a text than strip it.
    """
    sizes = [len(piece.encode() if isinstance(piece, str) else piece) for piece in pieces]
    ends = _ends(prompt, marked, marks, texts)
    if ends is None or sum(sizes) != len(prompt.encode()):
        return None
    starts = [0, *accumulate(sizes)][:-1]
    places = [0, *(bisect_left(starts, end) for end in ends)]
    return [end - start for start, end in pairwise(places)]


def _ends(prompt: str, marked: str, marks: Sequence[str], texts: Sequence[str]) -> list[int] | None:
    """The end of each text in the prompt, in bytes."""
    between, rest = list[str](), marked
    for mark in marks:
        before, found, rest = rest.partition(mark)
        if not found:
            return None
        between.append(before)
    for shown in (texts, [text.strip() for text in texts]):
        parts = [part for both in zip(between, shown, strict=True) for part in both]
        if "".join([*parts, rest]) == prompt:
            return list(accumulate(len(part.encode()) for part in parts))[1::2]
    return None
