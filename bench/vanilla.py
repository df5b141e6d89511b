"""The peer: `gr.ChatInterface` on the same model, as Gradio's own guide shows it.

Started by the benchmark as `python -m bench.vanilla --port PORT --log FILE --history MESSAGES`.
"""

import argparse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from bench.model import ScriptedModel, earlier_messages


def _text(content: Any) -> str:
    """A message's text; Gradio gives it as a list of parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def build(log: Path, history: int) -> gr.ChatInterface:
    """A chat whose page begins with `history` earlier messages."""
    model = ScriptedModel(log=log)

    async def reply(message: str, earlier: list[dict[str, Any]]) -> AsyncIterator[str]:
        text = ""
        conversation = [(m["role"], _text(m["content"])) for m in earlier]
        async for chunk in model.astream([*conversation, ("user", message)]):
            text += chunk.text
            yield text

    shown: list[Any] = [*earlier_messages(history)]
    chatbot = gr.Chatbot(value=shown, height=600)
    return gr.ChatInterface(reply, chatbot=chatbot, concurrency_limit=None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.vanilla", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True, help="where the model logs its replies")
    parser.add_argument("--history", type=int, default=0, help="earlier messages on the page")
    given = parser.parse_args()
    build(given.log, given.history).launch(server_name="127.0.0.1", server_port=given.port, quiet=True)


if __name__ == "__main__":
    main()
