"""Talking to the process of a local model: its tokenizer, and its chat as a LangChain model.

The server speaks OpenAI's protocol; what it adds to it (progress of reading the prompt, thinking) is kept here.
"""

import http.client
import json
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import urlsplit

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, adispatch_custom_event
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import SecretStr

from backends.base import PROGRESS, Reading, Template
from backends.compatible import CompatibleChat, own_clients, readable
from backends.llama_stream import stream_chunks
from backends.reply_reader import read_reply

_CACHED = 20_000
THINK = "<think>"
"""What begins visible thinking in the text of most models."""
_BREAK = "\u2060"
"""Word joiner: no width, and no part of any control word."""


class Tokenizer:
    """The model's own, over HTTP; answers are cached, since a conversation is read again each turn. Thread-safe."""

    def __init__(self, address: str, key: str) -> None:
        where = urlsplit(address)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._cache: OrderedDict[str, Reading] = OrderedDict()
        self._control: dict[str, bool] = {}
        self._lock = threading.Lock()

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Each text with the model's control words broken, and its tokens. Raises OSError if the process has gone."""
        with self._lock:
            return [self._read(text) for text in texts]

    def template(self) -> Template:
        """What the chat template adds, found by trying: with turns that alternate, as some templates demand.

        A user's and an assistant's share are told apart by halves, which is exact for whole turns. Raises OSError for
        a template that cannot be used.
        """
        with self._lock:
            letter = len(self._ids("a", obeyed=False))
            bare = self._whole(["user"])
            prompted = self._whole(["system", "user"])
            turn = self._whole(["system", "user", "assistant", "user"]) - prompted - 2 * letter
        user = turn // 2
        return Template(prompted - 2 * (user + letter), bare - (user + letter), user, turn - user)

    def opens_thinking(self) -> bool:
        """Whether the chat template begins each reply with an open <think> tag. Raises OSError."""
        with self._lock:
            asked = self._post("/apply-template", {"messages": [{"role": "user", "content": "a"}]})
        return bool(asked["prompt"].rstrip().endswith(THINK))

    def _read(self, text: str) -> Reading:
        if text in self._cache:
            self._cache.move_to_end(text)
            return self._cache[text]
        inert = self._inert(text) if "<" in text or "[" in text else text
        reading = Reading(inert, len(self._ids(inert, obeyed=False)))
        self._cache[text] = reading
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return reading

    def _inert(self, text: str) -> str:
        for _ in range(8):  # breaking one word can, in theory, make another
            found = {piece for piece in self._pieces(text) if isinstance(piece, str) and self._is_control(piece)}
            if not found:
                return text
            for word in sorted(found, key=len, reverse=True):
                text = text.replace(word, word[0] + _BREAK + word[1:])
        return text

    def _is_control(self, piece: str) -> bool:
        """Whether a piece is one token only when control words are obeyed."""
        if len(piece) < 2:
            return False
        if piece not in self._control:
            if len(self._control) > _CACHED:
                self._control.clear()
            obeyed = self._ids(piece, obeyed=True)
            self._control[piece] = len(obeyed) == 1 and obeyed != self._ids(piece, obeyed=False)
        return self._control[piece]

    def _ids(self, text: str, *, obeyed: bool) -> list[int]:
        """The text's tokens; `obeyed` lets control words be what they are."""
        body = {"content": text, "add_special": False, "parse_special": obeyed}
        return list(self._post("/tokenize", body)["tokens"])

    def _pieces(self, text: str) -> list[Any]:
        """The texts of its tokens with control words obeyed; a list of bytes where a token is no whole text."""
        body = {"content": text, "add_special": False, "parse_special": True, "with_pieces": True}
        return [token["piece"] for token in self._post("/tokenize", body)["tokens"]]

    def _whole(self, roles: list[str]) -> int:
        """Tokens of a prompt of one-letter messages."""
        listed = [{"role": role, "content": "a"} for role in roles]
        prompt = self._post("/apply-template", {"messages": listed})["prompt"]
        return len(self._ids(prompt, obeyed=True))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body)
        try:
            self._connection.request("POST", path, data, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (http.client.HTTPException, ConnectionError):
            self._connection.close()  # a kept connection may have timed out: once more on a new one
            self._connection.request("POST", path, data, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise OSError(f"the model's process answered HTTP {answer.status} to {path}")
        return json.loads(text)


class LocalChat(CompatibleChat):
    """llama.cpp's chat, with its progress as a custom event."""

    thinks: bool = False
    """Whether the template opens each reply's thinking: what llama.cpp leaves of the tag depends on the template."""

    @property
    def _llm_type(self) -> str:
        return "llama.cpp"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params: LangSmithParams = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "llama.cpp"
        return params

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        if made is None:
            return None
        if progress := chunk.get("prompt_progress"):
            made.generation_info = {**(made.generation_info or {}), PROGRESS: progress}
        return made

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        chunks = super()._stream(*args, **kwargs)
        return (chunk for chunk in chunks if chunk.text or not (chunk.generation_info or {}).get(PROGRESS))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if "response_format" in kwargs:  # the SDK knows how to ask for a class
            source = super()._astream(messages, stop, run_manager, **kwargs)
        else:
            source = self._pieces(messages, stop, **kwargs)
        async with aclosing(source) as pieces, aclosing(readable(pieces)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                progress = (chunk.generation_info or {}).get(PROGRESS)
                if progress:
                    read = {"read": progress["processed"], "total": progress["total"]}
                    with suppress(RuntimeError):  # raised where no agent's run is there to tell it to
                        await adispatch_custom_event(PROGRESS, read)
                if not progress or chunk.text:  # a tag that the template opens may come with it
                    yield chunk

    async def _pieces(
        self, messages: list[BaseMessage], stop: list[str] | None, **kwargs: Any
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        asked = kwargs | {"stream": True, "stream_options": {"include_usage": True}}
        payload = self._get_request_payload(messages, stop=stop, **asked)
        extra, opened = payload.pop("extra_body", {}), not self.thinks
        body = {**payload, **extra}
        async with aclosing(read_reply(stream_chunks(str(self.openai_api_base), self._key(), body))) as chunks:
            async for chunk in chunks:
                made = self._convert_chunk_to_generation_chunk(chunk, AIMessageChunk, {})
                if made is None:
                    continue
                if not opened and made.text:
                    opened = True
                    if not made.text.lstrip().startswith(THINK):
                        made = ChatGenerationChunk(
                            message=AIMessageChunk(content=THINK + made.text, id=made.message.id)
                        )
                yield made

    def _key(self) -> str:
        key = self.openai_api_key
        return key.get_secret_value() if isinstance(key, SecretStr) else str(key() if callable(key) else "")


def local_chat(address: str, key: str, *, thinks: bool = False) -> LocalChat:
    """The chat model of a process; `max_tokens` and `temperature` are set on copies of it."""
    # only where the template opens it: then the tags stay in the text, in every form, and are read with the others'
    thinking = {"reasoning_format": "none"} if thinks else {}
    return LocalChat(
        thinks=thinks,
        model="local",
        base_url=f"{address}/v1",
        api_key=lambda: key,
        stream_usage=True,
        max_retries=0,
        # langchain-openai's own guard loses cancels on Python 3.11: the model would run on
        stream_chunk_timeout=None,
        extra_body={"return_progress": True, **thinking},
        **own_clients(),
    )
