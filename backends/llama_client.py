"""The client of a local model's process for short requests: tokens and prompts.

The endpoints are documented in llama.cpp, tools/server/README.md.
"""

import http.client
import json
import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from backends.openai_request import with_thinking


class LlamaClient:
    """A client on one kept connection. It is thread-safe, and blocks.

    Every method raises OSError if the process has ended or does not respond.
    """

    def __init__(self, address: str, key: str, timeout_s: float = 30.0) -> None:
        where = urlsplit(address)
        self.address, self.headers = address, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout_s)
        self._lock = threading.Lock()

    def vocabulary_size(self) -> int:
        """Returns the number of token ids."""
        return int(self._request("GET", "/v1/models")["data"][0]["meta"]["n_vocab"])

    def tokenize(self, content: str | list[str | int], *, special: bool) -> list[int]:
        """Returns the tokens of a text, or of texts and token ids; `special` parses control words as such."""
        body = {"content": content, "add_special": False, "parse_special": special}
        return list(self._request("POST", "/tokenize", body)["tokens"])

    def pieces(self, content: str | list[int], *, special: bool) -> list[str | list[int]]:
        """Returns the texts of the content's tokens, or their bytes."""
        return [piece for _, piece in self.tokens(content, special=special)]

    def tokens(self, content: str | list[int], *, special: bool) -> list[tuple[int, str | list[int]]]:
        """Returns the ids of the content's tokens with their texts, or their bytes."""
        body = {"content": content, "add_special": False, "parse_special": special, "with_pieces": True}
        return [(token["id"], token["piece"]) for token in self._request("POST", "/tokenize", body)["tokens"]]

    def format_prompt(self, roles: Sequence[str], texts: Sequence[str], thinking: bool | None = None) -> str:
        """Returns the messages as formatted by the model's chat template; `thinking` None is the template's default."""
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        body = with_thinking({"messages": messages}, thinking)
        return str(self._request("POST", "/apply-template", body)["prompt"])

    def erase_slot(self, number: int) -> None:
        """Removes what a slot has read, when it is free."""
        self._request("POST", f"/slots/{number}?action=erase", {})

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body)
        with self._lock:
            try:
                status, text = self._send(method, path, data)
            except (http.client.HTTPException, ConnectionError):
                self._connection.close()  # the server may have closed it: retry on a new connection
                try:
                    status, text = self._send(method, path, data)
                except http.client.HTTPException as e:
                    raise OSError(f"the model's process closed the connection during {path}") from e
            except OSError:
                self._connection.close()  # a late response would be mistaken for the next one
                raise
        if status != 200:
            raise OSError(f"the model's process answered HTTP {status} to {path}")
        return json.loads(text)

    def _send(self, method: str, path: str, data: str | None) -> tuple[int, bytes]:
        self._connection.request(method, path, data, self.headers)
        response = self._connection.getresponse()
        return response.status, response.read()
