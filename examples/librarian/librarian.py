"""A librarian: it searches a shelf, asks whether it may quote, and answers. It needs no model and no key."""

import re
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt

TEXTS = {
    "Whales": "Bowhead whales may live for more than two hundred years. Blue whales are the largest animals of all.",
    "Lighthouses": "The lamp of a lighthouse is seen as far as the horizon allows: twenty miles from a high tower.",
    "Tides": "The tides follow the moon: there are two high waters in a little more than twenty-four hours.",
}


class Shelf(BaseRetriever):
    """Finds the texts that share a word with the question."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        words = {word for word in re.findall(r"\w+", query.lower()) if len(word) > 3}
        return [
            Document(text, metadata={"source": title})
            for title, text in TEXTS.items()
            if words & set(re.findall(r"\w+", f"{title} {text}".lower()))
        ]


class State(MessagesState):
    """The state of the graph."""

    found: list[Document]
    quotes: bool


def search(state: State) -> dict[str, Any]:
    """Searches the shelf for the question."""
    get_stream_writer()({"type": "searching", "texts": len(TEXTS)})
    return {"found": Shelf().invoke(state["messages"][-1].text)}


def ask(state: State) -> dict[str, Any]:
    """Asks whether it may quote what it has found."""
    titles = ", ".join(document.metadata["source"] for document in state["found"])
    return {"quotes": bool(state["found"]) and bool(interrupt({"question": f"May I quote from: {titles}?"}))}


def answer(state: State) -> dict[str, Any]:
    """Quotes the texts, or says that there are none."""
    texts = [f"> {one.page_content}\n>\n> *{one.metadata['source']}*" for one in state["found"]]
    reply = "\n\n".join(texts) if state["quotes"] else f"I have {len(texts)} texts about that, and quote none."
    return {"messages": [AIMessage(reply)]}


builder = StateGraph(State)
builder.add_sequence([search, ask, answer])
builder.add_edge(START, "search")
builder.add_edge("answer", END)
graph = builder.compile()
