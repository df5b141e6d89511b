"""The servers that ours is compared with, on the same model, as their own guides show them.

The benchmark starts them as `python -m bench.peers vanilla` (`gr.ChatInterface`) or `minimal` (sse-starlette).
"""

import argparse
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bench.model import ScriptedModel, earlier_messages


def serve_vanilla(model: ScriptedModel, port: int, history: int) -> None:
    """Serves a chat whose page begins with `history` earlier messages."""
    import gradio as gr

    def text_of(content: Any) -> str:
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    async def reply(message: str, earlier: list[dict[str, Any]]) -> AsyncIterator[str]:
        text = ""
        conversation = [(m["role"], text_of(m["content"])) for m in earlier]
        async for chunk in model.astream([*conversation, ("user", message)]):
            text += chunk.text
            yield text

    initial: list[Any] = [*earlier_messages(history)]
    chatbot = gr.Chatbot(value=initial, height=600)
    page = gr.ChatInterface(reply, chatbot=chatbot, concurrency_limit=None)
    page.launch(server_name="127.0.0.1", server_port=port, quiet=True)


def serve_minimal(model: ScriptedModel, port: int, history: int) -> None:
    """Serves `POST /stream`."""
    import uvicorn
    from fastapi import FastAPI
    from sse_starlette import EventSourceResponse

    app = FastAPI()

    @app.get("/")
    async def page() -> dict[str, str]:
        return {}

    @app.post("/stream")
    async def stream(body: dict[str, str]) -> EventSourceResponse:
        async def events() -> AsyncIterator[dict[str, Any]]:
            async for chunk in model.astream([("user", body["message"])]):
                if chunk.text:
                    yield {"data": json.dumps({"content": chunk.text})}

        return EventSourceResponse(events())

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


def main() -> None:
    """Serves one of them until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("peer", choices=("vanilla", "minimal"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True, help="the log of the model")
    parser.add_argument("--history", type=int, default=0, help="earlier messages on the page")
    arguments = parser.parse_args()
    os.chdir(arguments.log.parent)  # for what Gradio writes
    serve = serve_vanilla if arguments.peer == "vanilla" else serve_minimal
    serve(ScriptedModel(log=arguments.log), arguments.port, arguments.history)


if __name__ == "__main__":
    main()
