"""Model providers on 127.0.0.1 for tests: they speak the real HTTP streaming protocols and answer as a test says.

Sources: OpenAI's API reference ("Chat Completions", "Streaming", "Error codes"), vLLM's "OpenAI-Compatible Server"
(`continuous_usage_stats`, `max_model_len`), DeepSeek's "Reasoning Model" (`reasoning_content`), OpenRouter's "Reasoning
Tokens" (`reasoning`), Google's Gemini API reference ("Generating content", "Models", "Troubleshooting"), RFC 9112.
"""

import asyncio
import base64
import json
import struct
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs

from tests.server import Request, Server, Wire


@dataclass(frozen=True)
class Fail:
    """An HTTP error in the provider's shape: what OpenAI and what Gemini say, of {key}, {model} and {context}."""

    status: int
    code: str | None = None
    openai: str = "The request was refused."
    gemini: str = "Request contains an invalid argument."
    retry_after: float | None = None


_QUOTA = "You exceeded your current quota, please check your plan and billing details."
BAD_KEY = Fail(401, "invalid_api_key", "Incorrect API key provided: {key}.", "Invalid credentials: {key}.")
BAD_GEMINI_KEY = Fail(400, "API_KEY_INVALID", gemini="API key not valid. Please pass a valid API key.")
FORBIDDEN = Fail(403, "unsupported_country", "Country not supported", "The caller does not have permission")
NO_MODEL = Fail(404, "model_not_found", "The model `{model}` does not exist.", "models/{model} is not found.")
NO_QUOTA = Fail(429, "insufficient_quota", _QUOTA, _QUOTA)
TOO_LONG = Fail(
    400,
    "context_length_exceeded",
    "This model's maximum context length is {context} tokens. However, your messages resulted in more.",
    "The input token count exceeds the maximum number of tokens allowed ({context}).",
)
NO_IMAGES = Fail(400, None, "image_url is only supported by certain models.", "Image input modality is not enabled")
BROKEN = Fail(500, None, "The server had an error while processing your request.", "An internal error has occurred.")
OVERLOADED = Fail(503, None, "The engine is currently overloaded.", "The model is overloaded. Please try again later.")


def rate_limit(seconds: float) -> Fail:
    """Gemini words it as it words an empty account."""
    return Fail(429, "rate_limit_exceeded", "Rate limit reached for {model}.", _QUOTA, seconds)


@dataclass(frozen=True)
class Tool:
    """A call of a tool, its JSON arguments in the pieces they arrive in."""

    name: str
    arguments: Sequence[str] = ("{}",)
    id: str | None = "call_1"
    """None: some servers give none."""


@dataclass(frozen=True)
class Reply:
    """A reply in pieces: first the thinking, then the text, then the tools; every piece counts as one token.

    With `breaks` only the first `after` pieces arrive (all, if None), and instead of the reply's end there comes:
    `cut` the connection's end amid a chunked body, `reset` a TCP reset, `eof` a polite end (the body has no known
    length, so it seems whole), `hang` nothing at all, `garbage` an event that is no JSON, a `Fail` its error event.
    """

    text: Sequence[str] = ("Hello", " there", "!")
    """It may have `<think>` and `</think>` in it."""
    thinking: Sequence[str] = ()
    tools: Sequence[Tool] = ()
    wait: float = 0
    """Seconds before the answer begins."""
    pause: float = 0
    """Seconds before each piece."""
    drip: int = 0
    """If set, only so many bytes are written at once, with `pause` before each: amid characters and lines."""
    breaks: Literal["cut", "reset", "eof", "hang", "garbage"] | Fail | None = None
    after: int | None = None
    finish: Literal["stop", "length", "content_filter", "error"] = "stop"
    usage: Literal["end", "every", "never"] = "end"
    """OpenAI only: at the end if the request asks for it, in every chunk as from vLLM, or never. Gemini: in every."""
    thinking_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    """OpenAI only: where the thinking is."""
    text_field: Literal["content", "refusal"] = "content"
    """OpenAI only: where the text is."""
    prompt_tokens: int = 7


@dataclass(frozen=True)
class Raw:
    """Any answer at all, such as the page of a proxy."""

    body: str = "<!DOCTYPE html>\n<html><body><h1>Welcome to the Wi-Fi</h1></body></html>"
    status: int = 200
    type: str = "text/html"
    location: str = ""
    """Where a redirect leads."""


@dataclass(frozen=True)
class Stream:
    """A streamed answer, byte for byte: an object is sent as an event, a text and bytes as they are, a number is a
    pause in seconds.

    Then the line ends: `end` as HTTP has it, `eof` without a length, `cut` amid a chunked body, `reset` by TCP; with
    `hang` it stays open.
    """

    pieces: Sequence[Any]
    ends: Literal["end", "eof", "cut", "reset", "hang"] = "end"
    type: str = "text/event-stream"

    async def send(self, wire: Wire) -> None:
        await wire.head(200, {"Content-Type": self.type}, keep=self.ends != "eof")
        for piece in self.pieces:
            if isinstance(piece, int | float):
                await asyncio.sleep(piece)
            elif piece:
                data = piece if isinstance(piece, str | bytes) else f"data: {json.dumps(piece)}\n\n"
                await wire.send(data.encode() if isinstance(data, str) else data)
        match self.ends:
            case "hang":
                await asyncio.Event().wait()
            case "end":
                await wire.end()
            case how:
                wire.cut(reset=how == "reset")


@dataclass(frozen=True)
class Hang:
    """Takes the request and never answers."""


@dataclass(frozen=True)
class Drop:
    """Takes the request and ends the connection without an answer."""


Answer = Reply | Fail | Raw | Stream | Hang | Drop
Answers = Sequence[Answer | Callable[[Request], Answer]]


class ProviderServer(Server):
    """What is the same for all providers: the answers, and how a reply is sent or breaks off."""

    def __init__(self, *answers: Answer | Callable[[Request], Answer], model: str = "test-model") -> None:
        super().__init__()
        self.answers = answers or (Reply(),)
        self.model, self.context = model, 8192
        self.listing: Answer | None = None
        """What is answered to questions about the models; None: the truth."""
        self.models: Sequence[Any] = ()
        """The entries of the list of models; without any there is the one model. Replies are given in any name."""

    @property
    def answers(self) -> Answers:
        """Used one after another, the last one for ever; a function chooses by the request. Set them at any time."""
        return self._answers

    @answers.setter
    def answers(self, answers: Answers) -> None:
        self._answers = list(answers)

    async def respond(self, request: Request, wire: Wire) -> None:
        path = request.path.partition("?")[0]
        answer: Any = NO_MODEL
        if request.method == "GET":
            answer = self.listing or self.model_entry(path) or NO_MODEL
        elif self.streams(request) is not None:
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        match answer(request) if callable(answer) else answer:
            case Reply() as reply:
                await self._reply(reply, request, wire)
            case Fail() as fail:
                headers = {} if fail.retry_after is None else {"Retry-After": f"{fail.retry_after:g}"}
                await wire.json(self.error(fail, request), fail.status, headers)
            case Raw(body, status, kind, location):
                await wire.whole(body, status, kind, {"Location": location} if location else {})
            case Stream() as stream:
                await stream.send(wire)
            case Hang():
                await asyncio.Event().wait()
            case Drop():
                wire.cut()
            case received:
                await wire.json(received)

    async def _reply(self, reply: Reply, request: Request, wire: Wire) -> None:
        kind, pieces, end = "application/json", list[str](), ""
        if self.streams(request):
            kind = "text/event-stream"
            *pieces, end = self.events(reply, request)
        else:
            end = json.dumps(self.whole(reply))
        await asyncio.sleep(reply.wait)
        await wire.head(200, {"Content-Type": kind}, keep=reply.breaks != "eof")
        for piece in pieces[: reply.after]:
            await wire.send(piece.encode(), reply.pause, reply.drip)
        match reply.breaks:
            case "hang":
                await asyncio.Event().wait()
            case "cut" | "reset" | "eof":
                return wire.cut(reset=reply.breaks == "reset")
            case "garbage":
                await wire.send(b'data: {"choices": [{"del\n\n')
            case Fail() as fail:
                await wire.send(_event(self.error(fail, request)).encode())
            case None:
                await wire.send(end.encode(), reply.pause, reply.drip)
        await wire.end()

    @abstractmethod
    def model_entry(self, path: str) -> Any:
        """What is known about the model, or about all models; None if there is no such."""

    @abstractmethod
    def streams(self, request: Request) -> bool | None:
        """Whether the request wants a stream; None if it wants no reply."""

    @abstractmethod
    def events(self, reply: Reply, request: Request) -> Iterator[str]:
        """What is sent for each piece, and last what is sent for the end."""

    @abstractmethod
    def whole(self, reply: Reply) -> Any:
        """The answer to a request that wants no stream."""

    @abstractmethod
    def error(self, fail: Fail, request: Request) -> Any: ...


Embed = Callable[[str], Any]
"""Makes the vector of a text, or a `Fail` for a text that is refused."""


class OpenAIServer(ProviderServer):
    """`/v1/models`, `/v1/chat/completions` and `/v1/embeddings`: OpenAI and the many servers that are compatible."""

    props: Any = None
    """What `/props` tells, as llama-server's does."""
    embed: "Embed | Answer" = NO_MODEL
    """What is answered to texts on `/v1/embeddings`."""
    packs = True
    """Whether vectors are packed as base64, as OpenAI does on request; other servers do not know that."""

    async def respond(self, request: Request, wire: Wire) -> None:
        if request.path != "/v1/embeddings":
            return await super().respond(request, wire)
        match self.embed:
            case Hang():
                await asyncio.Event().wait()
            case Fail() as fail:
                await wire.json(self.error(fail, request), fail.status)
            case Raw() as raw:
                await wire.whole(raw.body, raw.status, raw.type, {"Location": raw.location} if raw.location else {})
            case embed if callable(embed):
                packs = self.packs and request.body.get("encoding_format") == "base64"
                vectors = [embed(text) for text in request.body["input"]]
                if fail := next((one for one in vectors if isinstance(one, Fail)), None):
                    await wire.json(self.error(fail, request), fail.status)
                    return
                data = [
                    {"object": "embedding", "index": i, "embedding": _packed(vector) if packs else vector}
                    for i, vector in enumerate(vectors)
                ]
                usage = {"prompt_tokens": 1, "total_tokens": 1}
                await wire.json({"object": "list", "model": request.body["model"], "data": data, "usage": usage})

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def model_entry(self, path: str) -> Any:
        one = {"id": self.model, "object": "model", "created": 1, "owned_by": "tests", "max_model_len": self.context}
        listed = {"object": "list", "data": list(self.models) or [one]}
        return {"/v1/models": listed, f"/v1/models/{self.model}": one, "/props": self.props}.get(path)

    def streams(self, request: Request) -> bool | None:
        return bool(request.body.get("stream")) if request.path == "/v1/chat/completions" else None

    def events(self, reply: Reply, request: Request) -> Iterator[str]:
        asked = reply.usage != "never" and (request.body.get("stream_options") or {}).get("include_usage")

        def event(delta: Any, tokens: int, finish: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            received = self._reply_object("chat.completion.chunk", [choice])
            if reply.usage == "every" or asked:
                received["usage"] = self._usage(reply, tokens) if reply.usage == "every" else None
            return _event(received)

        deltas = self._deltas(reply)
        for at, delta in enumerate(deltas, 1):
            yield (event({"role": "assistant", "content": ""}, 0) if at == 1 else "") + event(delta, at)
        end = event({}, len(deltas), "tool_calls" if reply.tools else reply.finish)
        if asked:
            end += _event(self._reply_object("chat.completion.chunk", []) | {"usage": self._usage(reply, len(deltas))})
        yield end + "data: [DONE]\n\n"

    def whole(self, reply: Reply) -> Any:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(reply.text) or None, "refusal": None}
        if reply.thinking:
            message[reply.thinking_field] = "".join(reply.thinking)
        if reply.tools:
            message["tool_calls"] = [_call(tool, "".join(tool.arguments)) for tool in reply.tools]
        finish = "tool_calls" if reply.tools else reply.finish
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return self._reply_object("chat.completion", [choice]) | {"usage": self._usage(reply, len(self._deltas(reply)))}

    def error(self, fail: Fail, request: Request) -> Any:
        key, model = request.headers.get("authorization", "").removeprefix("Bearer "), (request.body or {}).get("model")
        message = fail.openai.format(key=key, model=model, context=self.context)
        kinds = {403: "request_forbidden", 429: "requests", 500: "server_error", 503: "server_error"}
        kind = fail.code if fail is NO_QUOTA else kinds.get(fail.status, "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": fail.code}}

    def _reply_object(self, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": self.model, "choices": choices}

    def _usage(self, reply: Reply, tokens: int) -> Any:
        total = reply.prompt_tokens + tokens
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": tokens, "total_tokens": total}
        thought = {"reasoning_tokens": min(tokens, len(reply.thinking))}
        return usage | ({"completion_tokens_details": thought} if reply.thinking else {})

    def _deltas(self, reply: Reply) -> list[Any]:
        deltas: list[Any] = [{reply.thinking_field: piece} for piece in reply.thinking]
        deltas += [{reply.text_field: piece} for piece in reply.text]
        for index, tool in enumerate(reply.tools):
            deltas.append({"tool_calls": [{"index": index, **_call(tool, "")}]})
            deltas += [{"tool_calls": [{"index": index, "function": {"arguments": a}}]} for a in tool.arguments]
        return deltas


class GeminiServer(ProviderServer):
    """`/v1beta/models` with `:generateContent`, `:streamGenerateContent?alt=sse`, `:countTokens` and embeddings."""

    embed: Embed | Raw | None = None
    counts: Answer | None = None
    """What is answered to a question about tokens; None: as many as there are words."""
    page = 1000
    """Models on a page of the list, at most; a request can ask for fewer."""
    signed = False
    """As Gemini 3 does: the first tool call of an answer has a signature, which must come back with it; only three
    levels of thinking are known ("Thought signatures" and "Gemini thinking" of Google's documentation).
    """

    async def respond(self, request: Request, wire: Wire) -> None:
        path, _, query = request.path.partition("?")
        if path == "/v1beta/models" and request.method == "GET" and self.listing is None:
            await wire.json(self._page(parse_qs(query)))
            return
        if self.signed and (refused := self._refused(request)):
            await wire.json(self.error(Fail(400, gemini=refused), request), 400)
            return
        if self.embed and path.endswith((":batchEmbedContents", ":embedContent")):
            if isinstance(self.embed, Raw):
                await wire.whole(self.embed.body, self.embed.status, self.embed.type, {"Location": self.embed.location})
            else:
                await wire.json(self._embeddings(request.body, self.embed))
            return
        if not request.path.endswith(":countTokens"):
            await super().respond(request, wire)
            return
        match self.counts:
            case None:
                parts = [part["text"] for content in request.body["contents"] for part in content["parts"]]
                await wire.json({"totalTokens": sum(len(part.split()) for part in parts)})
            case Hang():
                await asyncio.Event().wait()
            case Fail() as fail:
                await wire.json(self.error(fail, request), fail.status)
            case odd:
                await wire.json({"odd": str(odd)})

    def _embeddings(self, body: Any, embed: Embed) -> Any:
        contents = [one["content"] for one in body.get("requests", [body])]
        values = [{"values": embed("".join(part["text"] for part in content["parts"]))} for content in contents]
        return {"embeddings": values} if "requests" in body else {"embedding": values[0]}

    def _page(self, query: Mapping[str, Sequence[str]]) -> Any:
        """A page of the list of models; its token is the place of the next."""
        size = min(self.page, int(query.get("pageSize", ["50"])[0]))
        begin = int(query.get("pageToken", ["0"])[0])
        models = list(self.models) or [self.model_entry(f"/v1beta/models/{self.model}")]
        rest = {"nextPageToken": str(begin + size)} if begin + size < len(models) else {}
        return {"models": models[begin : begin + size], **rest}

    def _refused(self, request: Request) -> str | None:
        """What a Gemini 3 says of a request that it does not take."""
        if not isinstance(request.body, dict) or request.path.endswith(":countTokens"):
            return None
        thinking = request.body.get("generationConfig", {}).get("thinkingConfig", {})
        level = thinking.get("thinkingLevel") or thinking.get("thinking_level") or "low"
        if level.lower() not in ("low", "medium", "high"):
            return f"Thinking level {level} is not supported for this model."
        contents = request.body["contents"]
        asked = max(i for i, one in enumerate(contents) if one["role"] == "user" and "text" in one["parts"][0])
        for content in contents[asked + 1 :]:
            calls = [part for part in content["parts"] if "functionCall" in part]
            if calls and _decoded(calls[0].get("thoughtSignature", "")) not in (SIGNATURE, _SKIP):
                name = calls[0]["functionCall"]["name"]
                return f"Function call is missing a thought_signature in functionCall parts: `{name}`."
        return None

    def model_entry(self, path: str) -> Any:
        limits = {"inputTokenLimit": self.context, "outputTokenLimit": self.context}
        one = {"name": f"models/{self.model}", "supportedGenerationMethods": ["generateContent"], **limits}
        return {"/v1beta/models": {"models": [one]}, f"/v1beta/models/{self.model}": one}.get(path)

    def streams(self, request: Request) -> bool | None:
        model, _, method = request.path.removeprefix("/v1beta/models/").partition(":")
        return None if "/" in model else {"streamGenerateContent?alt=sse": True, "generateContent": False}.get(method)

    def events(self, reply: Reply, request: Request) -> Iterator[str]:
        parts = self._parts(reply)
        for at, part in enumerate(parts, 1):
            yield _event(self._reply_object(reply, [part], at))
        yield _event(self._reply_object(reply, [{"text": ""}], len(parts), ends=True))

    def whole(self, reply: Reply) -> Any:
        parts = self._parts(reply)
        return self._reply_object(reply, parts, len(parts), ends=True)

    def error(self, fail: Fail, request: Request) -> Any:
        key, model = request.headers.get("x-goog-api-key"), request.path.rpartition("/")[2].partition(":")[0]
        details: list[Any] = []
        if fail is BAD_GEMINI_KEY:
            details.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": fail.code})
        if fail.retry_after is not None:
            delay = f"{fail.retry_after:g}s"
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
        received = {
            "code": fail.status,
            "message": fail.gemini.format(key=key, model=model, context=self.context),
            "status": _GEMINI_STATUS.get(fail.status, "INVALID_ARGUMENT"),
        }
        return {"error": received | ({"details": details} if details else {})}

    def _reply_object(self, reply: Reply, parts: list[Any], tokens: int, ends: bool = False) -> Any:
        thoughts = min(tokens, len(reply.thinking))
        counts = {"candidatesTokenCount": tokens - thoughts, "thoughtsTokenCount": thoughts}
        usage = {"promptTokenCount": reply.prompt_tokens, "totalTokenCount": reply.prompt_tokens + tokens}
        usage |= {name: count for name, count in counts.items() if count}
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        candidate |= {"finishReason": _GEMINI_FINISH[reply.finish]} if ends else {}
        received = {"candidates": [candidate], "usageMetadata": usage}
        return received | {"modelVersion": self.model, "responseId": "response-1"}

    def _parts(self, reply: Reply) -> list[Any]:
        calls: list[Any] = [{"functionCall": call} for call in self._calls(reply)]
        if self.signed and calls:
            calls[0]["thoughtSignature"] = base64.b64encode(SIGNATURE).decode()
        parts: list[Any] = [{"text": piece, "thought": True} for piece in reply.thinking]
        return parts + [{"text": piece} for piece in reply.text] + calls

    def _calls(self, reply: Reply) -> list[Any]:
        return [{"id": t.id, "name": t.name, "args": json.loads("".join(t.arguments))} for t in reply.tools]


SIGNATURE = b"\xfb\xef\xbe signed by the tests \xff\xff"
"""Its base64 has the two signs that the two alphabets of base64 write differently."""
_SKIP = base64.b64decode("skip_thought_signature_validator", altchars=b"-_")
"""What Google takes for a call of another model's."""


def _decoded(signature: str) -> bytes:
    return base64.b64decode(signature.replace("-", "+").replace("_", "/"))


_GEMINI_FINISH = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "error": "MALFORMED_FUNCTION_CALL",
}
_GEMINI_STATUS = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def _packed(vector: Sequence[float]) -> str:
    """A vector as base64 of 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _event(data: Any) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _call(tool: Tool, arguments: str) -> dict[str, Any]:
    return {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": arguments}}
