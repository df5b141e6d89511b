"""Servers that do what none should: `python tests/bad_mcp_server.py HABIT`. Without the SDK, which is too polite."""

import json
import os
import sys
import time
from typing import Any

HABIT = sys.argv[1]
ANY: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}}}
DEEP: dict[str, Any] = {}
for _ in range(60):
    DEEP = {"type": "object", "properties": {"in": DEEP}}


def bomb() -> dict[str, Any]:
    """A schema of two kilobytes that unfolds to 160,000 parts."""
    parts = {f"p{i}": {"properties": {f"{j}": {"$ref": f"#/$defs/p{i + 1}"} for j in range(20)}} for i in range(4)}
    return {"type": "object", "properties": {"a": {"$ref": "#/$defs/p0"}}, "$defs": {**parts, "p4": {}}}


def named(name: str, schema: Any = ANY, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"Does {name[:20]}.", "inputSchema": schema, **more}


LISTS: dict[str, list[dict[str, Any]]] = {
    "many": [named(f"tool{i}") for i in range(5000)],
    "names": [named("same"), named("same"), named("Grüße, Welt/1"), named("☃☃"), named("x" * 200), named("calculator")],
    "tasks": [named("echo"), named("research", execution={"taskSupport": "required"})],
    "list": [named("fine"), named("list", {"type": "array"})],
    "schemas": [
        named(
            "good", {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "number"}}}
        ),
        named("bare", {"type": "object"}),
        named(
            "self",
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"$ref": "#/$defs/n"}}},
        ),
        named("root", {"type": "object", "properties": {"child": {"$ref": "#"}}}),
        named("away", {"type": "object", "properties": {"a": {"$ref": "https://example.org/schema"}}}),
        named("lost", {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}),
        named("deep", DEEP),
        named("huge", {"type": "object", "properties": {"a": {"type": "string", "description": "z" * 30_000}}}),
        named("bomb", bomb()),
        named("lies", {"type": "object", "properties": {}, "required": ["absent"]}),
        named("words", {"type": "object", "properties": {"config": {"type": "string"}, "self": {"type": "string"}}}),
    ],
}


def prompt(name: str, *arguments: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "arguments": [{"name": one, "required": True} for one in arguments], **more}


PROMPTS: dict[str, list[Any]] = {
    "prompts": [
        prompt("same", description="  two\nlines " + "z" * 1000, title="<b>bold</b> " + "t" * 100),
        prompt("same"),
        prompt(" "),
        prompt("n" * 101),
        prompt("twice", "a", "a"),
        prompt("eleven", *"abcdefghijk"),
        prompt("unnamed", ""),
        prompt("long", "a" * 101),
        *(prompt(name) for name in ("huge", "empty", "assistant", "wrong", "hang", "error", "die")),
    ],
    "prompts-many": [prompt(f"prompt{i}") for i in range(5000)],
    "prompts-wrong": [{"name": 5}],
    "prompts-only": [prompt("only")],
}
MESSAGES: dict[str, Any] = {
    "huge": [{"role": "user", "content": {"type": "text", "text": "x" * 100_000}}],
    "empty": [],
    "assistant": [{"role": "assistant", "content": {"type": "text", "text": "I said so"}}],
    "wrong": [{"role": "user", "content": "no block"}],
}
"""The messages of a prompt by its name."""


def list_prompts(asked: dict[str, Any]) -> None:
    if HABIT == "prompts-hang":
        return
    if HABIT == "prompts-die":
        sys.exit(5)
    if HABIT == "prompts-endless":
        more = {"nextCursor": "again"}
        return result(asked, {"prompts": [prompt(f"prompt{time.monotonic_ns()}") for _ in range(1000)], **more})
    result(asked, {"prompts": PROMPTS.get(HABIT, [])})


def fill_prompt(asked: dict[str, Any]) -> None:
    match name := asked["params"]["name"]:
        case "hang":
            return
        case "die":
            sys.exit(6)
        case "error":
            return send({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32602, "message": "no ink"}})
    given = json.dumps(asked["params"].get("arguments", {}))
    result(asked, {"messages": MESSAGES.get(name, [{"role": "user", "content": {"type": "text", "text": given}}])})


def send(message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def result(asked: dict[str, Any], value: Any) -> None:
    send({"jsonrpc": "2.0", "id": asked["id"], "result": value})


def called(asked: dict[str, Any]) -> None:
    given = asked["params"].get("arguments", {})
    if HABIT == "flood":
        token = asked["params"]["_meta"]["progressToken"]
        while True:
            send(
                {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": 1},
                }
            )
    if HABIT == "wrong":
        return result(asked, {"content": [{"type": "unheard"}]})
    result(asked, {"content": [{"type": "text", "text": json.dumps(given, sort_keys=True)}]})


def main() -> None:
    if HABIT == "exits":
        print("I have no disk", file=sys.stderr)
        sys.exit(4)
    if HABIT == "rubbish":
        while True:
            print("Listening on port 3000 ...", flush=True)
    if HABIT == "silent":
        time.sleep(600)
    if HABIT == "stderr":
        for _ in range(200):
            print("e" * 10_000, os.environ.get("MY_TOKEN"), file=sys.stderr)
    if HABIT == "chatter":
        print("Starting up!\n{not json}\n", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        match asked.get("method"):
            case "initialize":
                about = {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {
                        **({} if HABIT == "prompts-only" else {"tools": {}}),
                        **({"prompts": {}} if HABIT.startswith("prompts") else {}),
                    },
                    "serverInfo": {"name": "bad", "version": "1"},
                }
                result(asked, about)
            case "tools/list":
                result(asked, {"tools": LISTS.get(HABIT, [named("echo")])})
            case "tools/call":
                called(asked)
            case "prompts/list":
                list_prompts(asked)
            case "prompts/get":
                fill_prompt(asked)
            case "ping":
                result(asked, {})
            case str() if "id" in asked:
                send({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no such method"}})


if __name__ == "__main__":
    main()
