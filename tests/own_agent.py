"""Agents as developers write them, for the kind `agent`: graphs, chains and factories, with models without costs."""

import itertools
import operator
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt


class Model(GenericFakeChatModel):
    """A chat model that streams the given messages word by word, and their tool calls."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        message: Any = next(self.messages)
        for word in re.findall(r"\s*\S+", message.text):
            yield ChatGenerationChunk(message=AIMessageChunk(word))
        if message.tool_calls:
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_calls=message.tool_calls))

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self


def says(*messages: str | AIMessage) -> Model:
    return Model(messages=itertools.cycle([m if isinstance(m, AIMessage) else AIMessage(m) for m in messages]))


@tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"It rains in {city}."


@tool
def population(city: str) -> int:
    """Counts the people of a city."""
    if city == "Atlantis":
        raise ValueError("it sank")
    return 1_000_000


class State(MessagesState):
    plan: str
    notes: Annotated[list[str], operator.add]


def travel_graph(city: str = "Paris", *, asks: bool = False, checkpointer: Any = None) -> Any:
    """Plans, researches in a sub-graph with tools, and writes."""
    calls = [{"name": "weather", "args": {"city": city}, "id": "call-1", "type": "tool_call"}]
    calls += [{"name": "population", "args": {"city": city}, "id": "call-2", "type": "tool_call"}]

    async def plan(state: State) -> dict[str, Any]:
        await adispatch_custom_event("planning", {"city": city})
        reply = await says(f"First I plan for {city}.").ainvoke(state["messages"])
        return {"plan": reply.text}

    async def look_up(state: State) -> dict[str, Any]:
        get_stream_writer()({"type": "progress", "done": 0.5})
        return {"messages": [await says(AIMessage("", tool_calls=calls)).ainvoke(state["messages"])]}

    async def ask(state: State) -> dict[str, Any]:
        answer = interrupt({"question": f"Shall I write about {city}?", "tone": "sober"}) if asks else True
        return {"notes": [f"answered {answer!r}"]}

    async def write(state: State) -> dict[str, Any]:
        note = state["notes"][-1]
        text = f"{city} is rainy and large. ({note})"
        return {"messages": [await says(text).ainvoke([HumanMessage(state["plan"])])]}

    research = StateGraph(State)
    research.add_node("look_up", look_up)
    research.add_node("tools", ToolNode([weather, population]))
    research.add_edge(START, "look_up")
    research.add_edge("look_up", "tools")
    graph = StateGraph(State)
    for name, node in {"plan": plan, "research": research.compile(), "ask": ask, "write": write}.items():
        graph.add_node(name, node)
    for first, second in ((START, "plan"), ("plan", "research"), ("research", "ask"), ("ask", "write"), ("write", END)):
        graph.add_edge(first, second)
    return graph.compile(checkpointer=checkpointer)


async def awaited_graph(**options: Any) -> Any:
    return travel_graph(**options)


def uncompiled() -> StateGraph[Any]:
    graph = StateGraph(MessagesState)
    graph.add_node("say", lambda state: {"messages": [AIMessage(f"You said: {state['messages'][-1].text}")]})
    graph.add_edge(START, "say")
    return graph


def counting() -> Any:
    """Has a memory of its own: it counts the messages of its thread."""
    graph = StateGraph(MessagesState)
    graph.add_node("say", lambda state: {"messages": [AIMessage(f"Message {len(state['messages'])}.")]})
    graph.add_edge(START, "say")
    return graph.compile(checkpointer=InMemorySaver())


class Shelf(BaseRetriever):
    """A retriever with one document."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [Document(f"All about {query}.", metadata={"source": "shelf.txt"})]


def retrieval_chain() -> Any:
    prompt = ChatPromptTemplate.from_template("Answer by {context}: {question}")
    context = Shelf() | RunnableLambda(lambda found: found[0].page_content).with_config(run_name="join")
    given = {"context": context, "question": RunnablePassthrough()}
    return given | prompt | says("Whales are large.") | StrOutputParser()


def rewriting_chain() -> Any:
    """Writes a query by one model, and answers by another."""
    rewrite = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{question}")])
    query = rewrite | says("a rewritten query") | StrOutputParser()
    return query | ChatPromptTemplate.from_template("{q}") | says("The answer.") | StrOutputParser()


async def _count(words: AsyncIterator[str]) -> AsyncIterator[str]:
    async for word in words:
        for one in word.split():
            yield f"{one}! "


def generator_chain() -> Any:
    from langchain_core.runnables import RunnableGenerator

    return RunnableGenerator(_count)


class Fields(TypedDict):
    topic: str
    answer: str
    messages: Annotated[list[BaseMessage], add_messages]


def text_graph() -> Any:
    class Topic(TypedDict):
        topic: str
        answer: str

    graph = StateGraph(Topic)
    graph.add_node("think", lambda state: {"answer": f"About {state['topic']}: nothing."})
    graph.add_edge(START, "think")
    return graph.compile()


def broken(stage: str = "call") -> Any:
    if stage == "call":
        raise RuntimeError("a secret text")
    graph = StateGraph(MessagesState)

    def fail(state: MessagesState) -> dict[str, Any]:
        if stage == "event":
            get_stream_writer()({"type": "begun"})
        raise RuntimeError("a secret text")

    def loop(state: MessagesState) -> Command[str]:
        return Command(goto="node")

    graph.add_node("node", loop if stage == "loop" else fail)
    graph.add_edge(START, "node")
    return graph.compile()


@tool
def shout() -> str:
    """Gives back far too much."""
    return "x" * 200_000


def flood() -> Any:
    def write(state: MessagesState) -> dict[str, Any]:
        writer = get_stream_writer()
        for number in range(5000):
            writer({"type": "tick", "number": number, "text": "é" * 9000 if number == 0 else ""})
        return {"messages": [AIMessage("", tool_calls=[{"name": "shout", "args": {}, "id": "1", "type": "tool_call"}])]}

    graph = StateGraph(MessagesState)
    graph.add_sequence([("write", write), ("tools", ToolNode([shout]))])
    graph.add_node("end", lambda state: {"messages": [AIMessage("Done \ud800")]})
    graph.add_edge(START, "write")
    graph.add_edge("tools", "end")
    return graph.compile()


def keyed() -> Any:
    def tell(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        key = config["configurable"].get("api_key")
        return {"messages": [AIMessage(f"A key of {len(key.get_secret_value()) if key else 0} characters.")]}

    graph = StateGraph(MessagesState)
    graph.add_node("tell", tell)
    graph.add_edge(START, "tell")
    return graph.compile(checkpointer=KEPT)


def careful() -> Any:
    """Asks before each call of a tool, as LangChain's middleware does."""
    call = {"name": "weather", "args": {"city": "Rome"}, "id": "1", "type": "tool_call"}
    model = says(AIMessage("", tool_calls=[call]), "It is done.")
    asks = HumanInTheLoopMiddleware(interrupt_on={"weather": True})
    return create_agent(model, [weather], middleware=[asks])


def counting_pages() -> Any:
    """Answers with a text that is also a part of what another node wrote."""

    async def plan(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await says("<think>Hm.</think>Of 24 pages:").ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_sequence([("plan", plan), ("end", lambda state: {"messages": [AIMessage("4")]})])
    graph.add_edge(START, "plan")
    return graph.compile()


def thoughtful() -> Any:
    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await says("<think>Hm.</think>Four.").ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    return graph.compile()


KEPT = InMemorySaver()
no_agent = 5
graph = travel_graph()
