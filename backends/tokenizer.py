"""The tokenizer of a local model, in its llama.cpp process, over HTTP.

Endpoints and their fields: llama.cpp, tools/server/README.md (`/tokenize`, `/apply-template`, `/v1/models`). The
content of `/tokenize` may mix texts and token ids, so that many texts are counted in one request, with an id between
them.
"""

import http.client
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from backends.base import CountedText, TemplateTokens
from backends.prompt_tokens import tokens_of_texts

THINK = "<think>"
"""What begins visible thinking in the text of most models."""
_CACHED_CHARACTERS = 4_000_000
"""Characters of the texts whose token counts are kept."""
_ENTRY_CHARACTERS = 100
"""What an entry of the cache takes besides its text, in characters."""
_AT_ONCE = 100_000
"""Characters of texts in one request, a longer text alone: less than 0.1 s of work."""
_BREAK = "\u2060"
"""Word joiner: no width, and no part of any control word."""
_SIGNS = "<["
"""A control word has one of these characters; a text without them needs no search."""
_MARK = "MARK"
"""A text that is looked for in what a template makes of it."""
_SEPARATORS = 8
"""Token ids that are tried as a separator before the words are asked for one by one."""


class Tokenizer:
    """Counts tokens and makes control words inert. Thread-safe; blocks, so call it in a thread.

    Counts are cached, since a conversation is read again each turn. Every method raises OSError if the process has
    gone or does not answer.
    """

    def __init__(self, address: str, key: str, timeout_s: float = 30.0) -> None:
        where = urlsplit(address)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout_s)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._cache: OrderedDict[str, CountedText] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()
        self._control = self._control_words()

    def count_tokens(self, texts: Sequence[str]) -> list[CountedText]:
        """Each text with the model's control words broken, and its tokens."""
        with self._lock:
            fresh = [text for text in dict.fromkeys(texts) if text not in self._cache]
            made = dict(zip(fresh, self._readings(fresh), strict=True))
            readings = [made.get(text) or self._cache[text] for text in texts]
            for text, reading in zip(texts, readings, strict=True):
                self._keep(text, reading)
        return readings

    def template(self) -> TemplateTokens:
        """What the chat template adds, found by trying: with turns that alternate, as some templates demand.

        A user's and an assistant's share are told apart by halves, which is exact for whole turns. Raises OSError for
        a template that cannot be used.
        """
        with self._lock:
            letter = len(self._ids("a", obeyed=False))
            bare = self._whole(["user"])
            with_system = self._whole(["system", "user"])
            turn = self._whole(["system", "user", "assistant", "user"]) - with_system - 2 * letter
            system = self._own_system()
        user = turn // 2
        return TemplateTokens(with_system - 2 * (user + letter), bare - (user + letter), user, turn - user, system)

    def count_prompt_tokens(self, messages: Sequence[tuple[str, str]], template: TemplateTokens) -> list[int]:
        """The tokens of the whole prompt, as it is read: of each message, and last of what is in none.

        Where the template shows texts differently, each message has the tokens that it has alone.
        """
        roles, texts = [role for role, _ in messages], [text for _, text in messages]
        marks = [f"{_MARK}{n}." for n in range(len(messages))]
        with self._lock:
            prompt, marked = self._prompt(roles, texts), self._prompt(roles, marks)
            body = {"content": prompt, "add_special": False, "parse_special": True, "with_pieces": True}
            pieces = [token["piece"] for token in self._post("/tokenize", body)["tokens"]]
        if template.system and "system" not in roles:
            roles, texts, marks = ["system", *roles], [template.system, *texts], [template.system, *marks]
        counts = tokens_of_texts(prompt, marked, marks, texts, pieces)
        if counts is None:
            alone = zip(self.count_tokens(texts), roles, strict=True)
            counts = [reading.tokens + template.per_message(role) for reading, role in alone]
            return [*counts, len(pieces) - sum(counts)]
        rest = template.per_prompt(with_system="system" in roles)
        counts[0] += len(pieces) - sum(counts) - rest  # the end of the last message, for that of the one before it
        return [*counts, rest]

    @staticmethod
    def batches(texts: Sequence[str]) -> Iterator[list[str]]:
        """The texts in order, with at most `_AT_ONCE` characters together, or one longer text."""
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

    def opens_thinking(self) -> bool:
        """Whether the chat template begins each reply with an open <think> tag."""
        with self._lock:
            asked = self._post("/apply-template", {"messages": [{"role": "user", "content": "a"}]})
        return bool(asked["prompt"].rstrip().endswith(THINK))

    def _keep(self, text: str, reading: CountedText) -> None:
        if text in self._cache:
            self._cache.move_to_end(text)
            return
        self._cache[text] = reading
        self._cached += len(text) + _ENTRY_CHARACTERS
        while self._cached > _CACHED_CHARACTERS:
            dropped, _ = self._cache.popitem(last=False)
            self._cached -= len(dropped) + _ENTRY_CHARACTERS

    def _readings(self, texts: Sequence[str]) -> Iterator[CountedText]:
        inert = [self._inert(text) for text in texts]
        counts = self._counts(inert)
        return (CountedText(text, count) for text, count in zip(inert, counts, strict=True))

    def _counts(self, texts: Sequence[str]) -> list[int]:
        if len(texts) == 1 or not self._control:
            return [len(self._ids(text, obeyed=False)) for text in texts]
        # an inert text never gives the token of a control word
        separator = next(iter(self._control.values()))
        return [len(row) for row in self._rows(texts, separator, obeyed=False)]

    def _inert(self, text: str) -> str:
        if not any(sign in text for sign in _SIGNS):
            return text
        for _ in range(8):  # breaking one word can, in theory, make another
            found = [word for word in self._control if word in text]
            if not found:
                return text
            for word in found:
                text = text.replace(word, word[0] + _BREAK + word[1:])
        return text

    def _control_words(self) -> dict[str, int]:
        """The vocabulary's control words and their ids, the longest first.

        A control word is one token where control words are obeyed, and other tokens where they are not.
        """
        size = int(self._get("/v1/models")["data"][0]["meta"]["n_vocab"])
        body = {"content": list(range(size)), "add_special": False, "with_pieces": True}
        pieces = {token["id"]: token["piece"] for token in self._post("/tokenize", body)["tokens"]}
        ids = {text: i for i, text in pieces.items() if isinstance(text, str) and len(text) > 1}
        words = [word for word in ids if any(sign in word for sign in _SIGNS)]
        plain = sorted((i for word, i in ids.items() if word.isalpha()), key=lambda i: -len(str(pieces[i])))
        obeyed, unobeyed = (self._tokens_of(words, plain, obeyed=how) for how in (True, False))
        control = [
            word for word in words if len(obeyed[word]) == 1 and obeyed[word] != unobeyed[word] and word[0] != _BREAK
        ]
        return {word: obeyed[word][0] for word in sorted(control, key=len, reverse=True)}

    def _tokens_of(self, words: Sequence[str], separators: Sequence[int], *, obeyed: bool) -> dict[str, list[int]]:
        """The tokens of each word, in one request, with one of these ids between them that none of the words gives."""
        for separator in islice(separators, _SEPARATORS):
            rows = self._rows(words, separator, obeyed=obeyed)
            if len(rows) == len(words):
                return dict(zip(words, rows, strict=True))
        return {word: self._ids(word, obeyed=obeyed) for word in words}

    def _rows(self, texts: Sequence[str], separator: int, *, obeyed: bool) -> list[list[int]]:
        """The tokens of each text; fewer or more rows where a text gives the separator itself."""
        content: list[str | int] = [part for text in texts for part in (text, separator)]
        rows: list[list[int]] = [[]]
        for token in self._ids(content, obeyed=obeyed):
            if token == separator:
                rows.append([])
            else:
                rows[-1].append(token)
        return rows[:-1]

    def _ids(self, content: str | list[str | int], *, obeyed: bool) -> list[int]:
        """The content's tokens; `obeyed` lets control words be what they are."""
        body = {"content": content, "add_special": False, "parse_special": obeyed}
        return list(self._post("/tokenize", body)["tokens"])

    def _own_system(self) -> str:
        """The system prompt that the template adds where none is given: what stands there in the place of one."""
        bare, both = self._prompt(["user"], ["a"]), ["system", "user"]
        before, _, after = self._prompt(both, [_MARK, "a"]).partition(_MARK)
        own = bare[len(before) : len(bare) - len(after)]
        return own if own and self._prompt(both, [own, "a"]) == bare else ""

    def _prompt(self, roles: Sequence[str], texts: Sequence[str]) -> str:
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        return str(self._post("/apply-template", {"messages": messages})["prompt"])

    def _whole(self, roles: list[str]) -> int:
        """Tokens of a prompt of one-letter messages."""
        return len(self._ids(self._prompt(roles, ["a"] * len(roles)), obeyed=True))

    def _get(self, path: str) -> Any:
        return self._request("GET", path, None)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._request("POST", path, json.dumps(body))

    def _request(self, method: str, path: str, data: str | None) -> Any:
        try:
            status, text = self._answer(method, path, data)
        except (http.client.HTTPException, ConnectionError):
            self._connection.close()  # a kept connection may have been closed: once more on a new one
            try:
                status, text = self._answer(method, path, data)
            except http.client.HTTPException as e:
                raise OSError(f"the model's process broke off its answer to {path}") from e
        except OSError:
            self._connection.close()  # a late answer would be taken for the next one's
            raise
        if status != 200:
            raise OSError(f"the model's process answered HTTP {status} to {path}")
        return json.loads(text)

    def _answer(self, method: str, path: str, data: str | None) -> tuple[int, bytes]:
        self._connection.request(method, path, data, self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()
