"""A server that speaks OpenAI's protocol and measures how much of each request repeats the request before it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from typing import Any, Self

_SUMMARY = "the notes of a conversation"
"""Words of the requests for summaries."""
REPLY = "Nothing new today: the keeper says that the same ships pass as yesterday, {number} of them."


class Requests:
    """The requests of one conversation: each is compared with the one before."""

    def __init__(self) -> None:
        self._before, self._reply, self._number = "", "", 0
        self.shares: list[float] = []
        """The share of each input that is read again: neither the prefix of the request before, nor new."""

    def add(self, messages: list[dict[str, Any]]) -> str:
        """Adds a request; returns the reply to it."""
        text = "".join(map(_text, messages))
        new = len(_text(messages[-1]))
        if len(messages) > 1 and messages[-2].get("content") == self._reply:
            new += len(_text(messages[-2]))
        known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._before, text, strict=False)))
        self.shares.append(max(0, len(text) - known - new) / len(text))
        self._number += 1
        self._before, self._reply = text, REPLY.format(number=self._number)
        return self._reply


def _text(message: dict[str, Any]) -> str:
    return f"<|{message['role']}|>{message.get('content') or ''}\n"


class PrefixServer:
    """A server on 127.0.0.1; as a context manager it runs until the block is left. Requests for summaries are not
    counted.
    """

    def __init__(self) -> None:
        self.requests = Requests()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send("application/json", json.dumps({"object": "list", "data": [{"id": "m"}]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = owner.reply(body["messages"])
                head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
                deltas = ({"role": "assistant", "content": reply}, None), ({}, "stop")
                choices = [{"index": 0, "delta": delta, "finish_reason": reason} for delta, reason in deltas]
                chunks = [json.dumps({**head, "choices": [choice]}) for choice in choices]
                self._send("text/event-stream", "".join(f"data: {chunk}\n\n" for chunk in (*chunks, "[DONE]")))

            def _send(self, kind: str, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, messages: list[dict[str, Any]]) -> str:
        """Returns the reply to a request."""
        if _SUMMARY in str(messages[0].get("content")):
            return "They spoke of the keeper, of ships and of the weather."
        return self.requests.add(messages)
