"""The peer over HTTP: the least that sse-starlette needs to stream the same model, as its own guide shows it.

Started by the benchmark as `python -m bench.minimal --port PORT --log FILE`.
"""

import argparse
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse

from bench.model import ScriptedModel


def build(log: Path) -> FastAPI:
    app, model = FastAPI(), ScriptedModel(log=log)

    @app.get("/")
    async def page() -> dict[str, str]:
        return {}

    @app.post("/stream")
    async def stream(request: Request) -> EventSourceResponse:
        message = (await request.json())["message"]

        async def told() -> AsyncIterator[dict[str, Any]]:
            async for chunk in model.astream([("user", message)]):
                if chunk.text:
                    yield {"data": json.dumps({"content": chunk.text})}

        return EventSourceResponse(told())

    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.minimal", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True, help="where the model logs its replies")
    given = parser.parse_args()
    uvicorn.run(build(given.log), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
