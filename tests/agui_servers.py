"""AG-UI servers that were not written for Glassbox: an agent of pydantic-ai, and a graph behind ag-ui-langgraph.

Their models cost nothing. Each is served by uvicorn in a thread.
"""

import operator
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import uvicorn
from ag_ui.core import EventType, StateDeltaEvent, StateSnapshotEvent
from ag_ui_langgraph import LangGraphAgent, add_langgraph_fastapi_endpoint
from fastapi import FastAPI
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests, RunContext, ToolReturn
from pydantic_ai.messages import ModelMessage, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.ui import StateDeps
from pydantic_ai.ui.ag_ui import AGUIAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.own_agent import says, weather


class Notes(BaseModel):
    """The state of pydantic-ai's agent."""

    cities: list[str] = []


async def _function(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
    """Thinks, calls the tool `forecast`, and `book`, which needs an approval, and answers by their results."""
    results = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    asked = [part.content for message in messages for part in message.parts if isinstance(part, UserPromptPart)]
    if not results:
        for word in ("I need ", "the weather."):
            yield {0: DeltaThinkingPart(content=word)}
        for delta in ('{"city":', ' "Paris"}'):
            yield {1: DeltaToolCall(name="forecast" if delta[0] == "{" else None, json_args=delta, tool_call_id="f1")}
    elif "book" in str(asked[-1]) and not any(part.tool_name == "book" for part in results):
        yield {0: DeltaToolCall(name="book", json_args='{"city": "Paris"}', tool_call_id="b1")}
    else:
        for word in ("It ", "is: ", *(f"{part.content} " for part in results), f"({len(asked)} asked)"):
            yield word


def pydantic_app() -> Any:
    """An agent of pydantic-ai with thinking, a state, a tool, and a tool that needs an approval."""
    agent = Agent(
        FunctionModel(stream_function=_function), deps_type=StateDeps[Notes], output_type=[str, DeferredToolRequests]
    )

    @agent.tool
    async def forecast(ctx: RunContext[StateDeps[Notes]], city: str) -> ToolReturn:
        """Tells the weather."""
        ctx.deps.state.cities.append(city)
        snapshot = StateSnapshotEvent(type=EventType.STATE_SNAPSHOT, snapshot=ctx.deps.state.model_dump())
        patch = [{"op": "add", "path": "/cities/-", "value": "Rome"}]
        delta = StateDeltaEvent(type=EventType.STATE_DELTA, delta=patch)
        return ToolReturn(return_value=f"rain in {city}", metadata=[snapshot, delta])

    @agent.tool_plain(requires_approval=True)
    async def book(city: str) -> str:
        """Books a journey."""
        return f"booked {city}"

    async def run(request: Request) -> Response:
        if request.headers.get("authorization") not in (None, "Bearer right"):
            return Response(status_code=401)
        return await AGUIAdapter.dispatch_request(request, agent=agent, deps=StateDeps(Notes()))

    return Starlette(routes=[Route("/agent/", run, methods=["POST"])])


class Plan(MessagesState):
    plan: str
    notes: Annotated[list[str], operator.add]


def langgraph_app() -> FastAPI:
    """A graph with a state, a custom event, a tool and an interrupt behind the endpoint of ag-ui-langgraph."""
    call = {"name": "weather", "args": {"city": "Oslo"}, "id": "call-1", "type": "tool_call"}

    async def plan(state: Plan) -> dict[str, Any]:
        await adispatch_custom_event("planning", {"city": "Oslo"})
        return {"plan": "Oslo first", "notes": ["planned"]}

    async def look_up(state: Plan) -> dict[str, Any]:
        return {"messages": [await says(AIMessage("", tool_calls=[call])).ainvoke(state["messages"])]}

    async def ask(state: Plan) -> dict[str, Any]:
        answer = interrupt({"question": "Shall I write about Oslo?", "tone": "sober"})
        return {"notes": [f"answered {answer!r}"]}

    async def write(state: Plan) -> dict[str, Any]:
        asked = sum(isinstance(message, HumanMessage) for message in state["messages"])
        text = f"{state['plan']}: it rains. ({state['notes'][-1]}, {asked} asked)"
        return {"messages": [await says(text).ainvoke(state["messages"])]}

    graph = StateGraph(Plan)
    graph.add_sequence([plan, look_up, ("tools", ToolNode([weather])), ask, write]).add_edge(START, "plan")
    app = FastAPI()
    compiled = graph.compile(checkpointer=InMemorySaver())
    agent = LangGraphAgent(name="plan", graph=compiled)
    add_langgraph_fastapi_endpoint(app, agent, "/agent")
    newer = LangGraphAgent(name="plan", graph=compiled, emit_interrupt_outcome=True)
    add_langgraph_fastapi_endpoint(app, newer, "/newer")
    return app


@dataclass
class Served:
    """A server that runs."""

    url: str
    server: uvicorn.Server


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serves an ASGI app in a thread; gives its address."""
    config = uvicorn.Config(app, port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "it did not start"
        threading.Event().wait(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
