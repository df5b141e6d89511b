"""Export files of ChatGPT and Claude for tests of imports, in the shapes that public issues describe."""

import io
import json
import zipfile
from typing import Any

JSON = dict[str, Any]


def node(name: str, parent: str | None, message: JSON | None = None, children: list[str] | None = None) -> JSON:
    return {"id": name, "parent": parent, "message": message} | ({} if children is None else {"children": children})


def text_message(role: str, *parts: Any, kind: str = "text", at: float = 1.7e9, **more: Any) -> JSON:
    """A message of ChatGPT with `parts`."""
    content = {"content_type": kind, "parts": list(parts)}
    return raw_message(role, content, at, **more)


def raw_message(role: str, content: JSON, at: float = 1.7e9, name: str | None = None, **more: Any) -> JSON:
    author = {"role": role, "name": name, "metadata": {}}
    return {
        "id": f"{role}-{at}",
        "author": author,
        "create_time": at,
        "content": content,
        "status": "finished_successfully",
        "metadata": {},
        "recipient": "all",
        **more,
    }


def chatgpt(title: str | None, nodes: list[JSON], current: str | None = None, at: float = 1.7e9) -> JSON:
    return {
        "title": title,
        "create_time": at,
        "update_time": at,
        "mapping": {one["id"]: one for one in nodes},
        "current_node": current,
        "conversation_id": f"c-{title}",
    }


def tour() -> JSON:
    """A conversation with all kinds of content of ChatGPT, and two answers to a question."""
    hidden = {"is_visually_hidden_from_conversation": True}
    profile = {"content_type": "user_editable_context", "user_profile": "SECRET", "user_instructions": "SECRET"}
    thoughts = {
        "content_type": "thoughts",
        "thoughts": [{"summary": "Planning", "content": "I add them.", "chunks": []}],
    }
    recap = {"content_type": "reasoning_recap", "content": "Thought for 5 seconds"}
    code = {"content_type": "code", "language": "python", "text": "print(17 * 23)"}
    output = {"content_type": "execution_output", "text": "391"}
    cited = "It is 391 \ue200cite\ue202turn0search1\ue201."
    references = {
        "content_references": [{"matched_text": "\ue200cite\ue202turn0search1\ue201", "alt": "([a](https://a.test))"}]
    }
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x", "width": 9, "height": 9}
    files = {"attachments": [{"id": "f", "name": "sums.csv"}]}
    nodes = [
        node("root", None, None, ["sys"]),
        node("sys", "root", text_message("system", "", metadata=hidden), ["profile"]),
        node("profile", "sys", raw_message("user", profile), ["q"]),
        node(
            "q",
            "profile",
            text_message("user", image, "What is 17 * 23?", kind="multimodal_text", metadata=files),
            ["t", "a2"],
        ),
        node("t", "q", raw_message("assistant", thoughts), ["c"]),
        node("c", "t", raw_message("assistant", code, recipient="python"), ["o"]),
        node("o", "c", raw_message("tool", output, name="python"), ["r"]),
        node("r", "o", raw_message("assistant", recap), ["a"]),
        node("a", "r", text_message("assistant", cited, metadata=references), ["q2"]),
        node("a2", "q", text_message("assistant", "Another answer", at=1.8e9), []),
        node("q2", "a", text_message("user", "Thanks"), ["a3"]),
        node("a3", "q2", text_message("assistant", "You are welcome"), []),
    ]
    return chatgpt("Sums", nodes, "a3")


def claude(name: str, *messages: JSON, at: str = "2026-01-02T03:04:05.678901Z") -> JSON:
    account = {"uuid": "account"}
    listed = [{"uuid": f"m{n}", "created_at": at} | message for n, message in enumerate(messages)]
    return {
        "uuid": f"c-{name}",
        "name": name,
        "created_at": at,
        "updated_at": at,
        "account": account,
        "chat_messages": listed,
    }


def letter() -> JSON:
    """A conversation with all kinds of content of Claude."""
    blocks = [
        {
            "type": "thinking",
            "thinking": "I look it up.",
            "start_timestamp": "2026-01-02T03:04:05Z",
            "stop_timestamp": "2026-01-02T03:04:07Z",
        },
        {"type": "text", "text": "Let me look.", "citations": []},
        {"type": "tool_use", "id": "t1", "name": "web_search", "input": {"query": "whales"}},
        {
            "type": "tool_result",
            "tool_use_id": "t1",
            "name": "web_search",
            "content": [{"type": "text", "text": "They sing."}],
            "is_error": False,
        },
        {"type": "text", "text": "They sing."},
    ]
    pasted = {"file_name": "", "file_size": 9, "file_type": "txt", "extracted_content": "a long pasted text"}
    file = {"file_name": "notes.md", "extracted_content": "# Notes"}
    unsupported = "Let me look.\n```\nThis block is not supported on your current device yet.\n```"
    return claude(
        "Whales",
        {
            "sender": "human",
            "text": "Do they sing?",
            "content": [{"type": "text", "text": "Do they sing?"}],
            "attachments": [pasted, file],
            "files": [{"file_name": "photo.png"}],
        },
        {"sender": "assistant", "text": unsupported, "content": blocks, "attachments": [], "files": []},
        {"sender": "human", "text": "", "content": [], "attachments": [], "files": []},
        {"sender": "human", "text": "Only in the old field"},
    )


def zipped(**files: Any) -> bytes:
    """A ZIP file; the names end in .json, and `__` is a dot before that or a folder."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            text = value if isinstance(value, bytes) else json.dumps(value)
            archive.writestr(f"{name.replace('__', '/').replace('_', '-')}.json", text)
    return data.getvalue()
