"""The tokenizer of a local model: it counts tokens and makes control words inert.

One request counts many texts: the content of llama.cpp's `/tokenize` may mix texts and token ids, and an id separates
the texts.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice

from backends.base import CountedText
from backends.llama_client import LlamaClient

_CACHED_CHARACTERS = 4_000_000
"""The size of the cache of token counts, in characters of their texts."""
_ENTRY_CHARACTERS = 100
"""The overhead of an entry in the cache, in characters."""
_AT_ONCE = 100_000
"""The most characters of texts in one request, less than 0.1 s of work; a longer text has its own request."""
_BREAK = "\u2060"
"""A word joiner, which has no width and is in no control word."""
_SIGNS = "<["
"""The characters of which every control word has one."""
_SEPARATORS = 8
"""The number of token ids that are tried as a separator before each word gets its own request."""


class Tokenizer:
    """Counts tokens and makes control words inert. It is thread-safe, and blocks; it raises OSError as LlamaClient.

    Counts are cached, since each turn counts the conversation again.
    """

    def __init__(self, client: LlamaClient) -> None:
        self._client = client
        self._cache: OrderedDict[str, CountedText] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()
        self._control = self._control_words()

    @property
    def control_ids(self) -> frozenset[int]:
        """The ids of the vocabulary's control words."""
        return frozenset(self._control.values())

    def count_tokens(self, texts: Sequence[str]) -> list[CountedText]:
        """Makes each text inert and counts its tokens."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._cache]
            made = dict(zip(new, self._counted(new), strict=True))
            counted = [made.get(text) or self._cache[text] for text in texts]
            for text, one in zip(texts, counted, strict=True):
                self._keep(text, one)
        return counted

    @staticmethod
    def batches(texts: Sequence[str]) -> Iterator[list[str]]:
        """Yields the texts in order, in batches of at most `_AT_ONCE` characters, or one longer text."""
        batch: list[str] = []
        size = 0
        for text in texts:
            if batch and size + len(text) > _AT_ONCE:
                yield batch
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        if batch:
            yield batch

    def _keep(self, text: str, counted: CountedText) -> None:
        if text in self._cache:
            self._cache.move_to_end(text)
            return
        self._cache[text] = counted
        self._cached += len(text) + _ENTRY_CHARACTERS
        while self._cached > _CACHED_CHARACTERS:
            dropped, _ = self._cache.popitem(last=False)
            self._cached -= len(dropped) + _ENTRY_CHARACTERS

    def _counted(self, texts: Sequence[str]) -> Iterator[CountedText]:
        inert = [self._inert(text) for text in texts]
        counts = self._counts(inert)
        return (CountedText(text, count) for text, count in zip(inert, counts, strict=True))

    def _counts(self, texts: Sequence[str]) -> list[int]:
        if len(texts) == 1 or not self._control:
            return [len(self._client.tokenize(text, special=False)) for text in texts]
        # an inert text never contains the token of a control word
        separator = next(iter(self._control.values()))
        return [len(row) for row in self._rows(texts, separator, special=False)]

    def _inert(self, text: str) -> str:
        if not any(sign in text for sign in _SIGNS):
            return text
        for _ in range(8):  # breaking one word may create another
            found = [word for word in self._control if word in text]
            if not found:
                return text
            for word in found:
                text = text.replace(word, word[0] + _BREAK + word[1:])
        return text

    def _control_words(self) -> dict[str, int]:
        """The vocabulary's control words and their ids, the longest first.

        A control word is one token if special tokens are parsed, and other tokens if they are not.
        """
        pieces = self._client.pieces(list(range(self._client.vocabulary_size())), special=True)
        ids = {text: i for i, text in enumerate(pieces) if isinstance(text, str) and len(text) > 1}
        words = [word for word in ids if any(sign in word for sign in _SIGNS)]
        plain = sorted((i for word, i in ids.items() if word.isalpha()), key=lambda i: -len(str(pieces[i])))
        parsed, as_text = (self._tokens_of(words, plain, special=how) for how in (True, False))
        control = [
            word for word in words if len(parsed[word]) == 1 and parsed[word] != as_text[word] and word[0] != _BREAK
        ]
        return {word: parsed[word][0] for word in sorted(control, key=len, reverse=True)}

    def _tokens_of(self, words: Sequence[str], separators: Sequence[int], *, special: bool) -> dict[str, list[int]]:
        """The tokens of each word, in one request, separated by an id that is in none of the words."""
        for separator in islice(separators, _SEPARATORS):
            rows = self._rows(words, separator, special=special)
            if len(rows) == len(words):
                return dict(zip(words, rows, strict=True))
        return {word: self._client.tokenize(word, special=special) for word in words}

    def _rows(self, texts: Sequence[str], separator: int, *, special: bool) -> list[list[int]]:
        """The tokens of each text; the number of rows differs if a text contains the separator."""
        content: list[str | int] = [part for text in texts for part in (text, separator)]
        rows: list[list[int]] = [[]]
        for token in self._client.tokenize(content, special=special):
            if token == separator:
                rows.append([])
            else:
                rows[-1].append(token)
        return rows[:-1]
