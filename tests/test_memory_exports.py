"""Reading of export files: all origins, and broken, huge or malicious files."""

import io
import json
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.exports import conversation
from memory.exports.conversation import ExportError
from memory.exports.reader import read_export
from runs.reply import ReplyPart, reply_sequence
from runs.state import shorten_output
from tests.exports import chatgpt, claude, letter, node, raw_message, text_message, tour, zipped

MOST = 1_000_000
Lines = list[dict[str, Any]]


def lines(value: Any, room: int = 100, most: int = MOST) -> Lines:
    return list(read_export(value if isinstance(value, bytes) else json.dumps(value).encode(), room, most))


def rows(value: Any) -> Lines:
    return [line["row"] for line in lines(value) if "row" in line]


def branch(value: Any) -> Lines:
    """The rows of the current branch of one conversation."""
    head = lines(value)[0]
    known = {}
    found = lines(value)
    head, known = found[0]["head"], {line["row"]["id"]: line["row"] for line in found if "row" in line}
    path: Lines = []
    while head:
        path.append(known[head])
        head = known[head]["parent_id"]
    return path[::-1]


def refused(value: Any, **more: Any) -> str:
    with pytest.raises(ExportError) as error:
        lines(value, **more)
    return str(error.value)


def test_chatgpt_conversation_keeps_its_visible_content() -> None:
    found = lines([tour()])
    assert found[0]["title"] == "Sums"
    path = branch([tour()])
    assert [(row["role"], row["text"]) for row in path] == [
        ("user", "[file: sums.csv]\n[image]\nWhat is 17 * 23?"),
        ("assistant", "It is 391 ([a](https://a.test))."),
        ("user", "Thanks"),
        ("assistant", "You are welcome"),
    ]
    thought, call = path[1]["parts"]
    assert (thought["kind"], thought["text"]) == ("thinking", "Planning\nI add them.")
    assert (call["kind"], call["name"], call["text"]) == ("tool", "python", "391")
    assert call["input"] == {"input": "print(17 * 23)"}
    others = [row for row in rows([tour()]) if row["text"] == "Another answer"]
    assert [row["place"] for row in path] == [1, 2, 3, 4]
    assert len(others) == 1 and others[0]["place"] == 2
    assert "SECRET" not in json.dumps(found) and "\ue200" not in json.dumps(found)


def _without(value: dict[str, Any], name: str) -> dict[str, Any]:
    mapping = {key: {k: v for k, v in one.items() if k != name} for key, one in value["mapping"].items()}
    return value | {"mapping": mapping}


@pytest.mark.parametrize(
    "value",
    [
        _without(tour(), "children"),
        _without(tour(), "parent"),
        tour() | {"mapping": {key: one for key, one in tour()["mapping"].items() if key != "root"}},
        tour() | {"mapping": dict(reversed(tour()["mapping"].items()))},
        {"conversations": [tour()]},
        zipped(conversations=[tour()], user={}),
        zipped(export__conversations_000=[tour()]),
        json.dumps([tour()]).encode("utf-8-sig"),
        json.dumps([tour()]).encode("utf-16"),
    ],
)
def test_other_shapes_of_the_file_give_the_same_conversation(value: Any) -> None:
    assert [row["text"] for row in branch(value)] == [row["text"] for row in branch([tour()])]
    assert len(rows(value)) == len(rows([tour()]))


def test_without_a_current_node_the_newest_node_is_the_head() -> None:
    assert branch([tour() | {"current_node": None}])[-1]["text"] == "Another answer"
    assert branch([tour() | {"current_node": "gone"}])[-1]["text"] == "Another answer"


def _timeless(*nodes: dict[str, Any], current: str | None = None) -> dict[str, Any]:
    for one in nodes:
        if one["message"]:
            del one["message"]["create_time"]
    return chatgpt("x", list(nodes), current)


@pytest.mark.parametrize("current", [None, "gone", "root", "other root"])
@pytest.mark.parametrize("roots", [["root"], ["root", "other root"], []])
def test_a_conversation_without_a_usable_current_node_and_times_keeps_its_branch(
    current: str | None, roots: list[str]
) -> None:
    first = "root" if "root" in roots else None
    nodes = [node("q", first, text_message("user", "one")), node("a", "q", text_message("assistant", "two"))]
    value = _timeless(*(node(name, None) for name in roots), *nodes, current=current)
    assert [row["text"] for row in branch(value)] == ["one", "two"]


@pytest.mark.parametrize("order", [1, -1])
def test_messages_whose_parents_form_a_cycle_are_kept(order: int) -> None:
    names = ["a", "b", "c"]
    nodes = [node(name, names[n - 1], text_message("user", name)) for n, name in enumerate(names)]
    thoughts = raw_message("assistant", {"content_type": "thoughts", "thoughts": [{"content": "Hm"}]})
    nodes += [node("d", "c", text_message("assistant", "d")), node("e", "f", thoughts), node("f", "e", thoughts)]
    nodes += [node("other", None, text_message("user", "other"))]
    value = chatgpt("x", nodes[::order], "d")
    found = rows(value)
    assert sorted(row["text"] for row in found) == ["", "a", "b", "c", "d", "other"]
    assert len(next(row["parts"] for row in found if not row["text"])) == 2
    assert branch(value)[-1]["text"] == "d" and branch(value)[-2]["text"] == "c"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"content_type": "code", "language": "python", "text": "x = '```'"}, "````python\nx = '```'\n````"),
        ({"content_type": "code", "language": "unknown", "text": "x"}, "```\nx\n```"),
        ({"content_type": "multimodal_text", "parts": [{"content_type": "audio_transcription", "text": "Hi"}]}, "Hi"),
        ({"content_type": "tether_quote", "url": "u", "text": "quoted"}, "quoted"),
        ({"content_type": "something_new", "result": "shown"}, "shown"),
        ({"content_type": "multimodal_text", "parts": [{"content_type": "video_pointer"}]}, "[video_pointer]"),
    ],
)
def test_every_kind_of_content_becomes_text(content: Any, text: str) -> None:
    nodes = [node("q", None, text_message("user", "?")), node("a", "q", raw_message("assistant", content))]
    assert branch([chatgpt("x", nodes, "a")])[-1]["text"] == text


def test_thoughts_without_an_answer_are_kept() -> None:
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "", "content": "Hm"}]}
    nodes = [node("q", None, text_message("user", "?")), node("t", "q", raw_message("assistant", thoughts))]
    _, reply = branch([chatgpt("x", nodes, "t")])
    assert (reply["standing"], reply["text"], reply["parts"][0]["text"]) == ("interrupted", "", "Hm")


def test_claude_conversation_keeps_its_visible_content() -> None:
    assert lines([letter()])[0]["title"] == "Whales"
    first, reply, last = branch([letter()])
    assert (
        first["text"]
        == "[pasted text]\na long pasted text\n\n[file: notes.md]\n# Notes\n\n[file: photo.png]\n\nDo they sing?"
    )
    assert reply["text"] == "Let me look.\n\nThey sing."
    thought, call = reply["parts"]
    assert (thought["text"], thought["end"] - thought["start"]) == ("I look it up.", 2)
    assert (call["name"], call["input"], call["text"], call["error"]) == (
        "web_search",
        {"query": "whales"},
        "They sing.",
        None,
    )
    assert (last["role"], last["text"]) == ("user", "Only in the old field")
    assert branch(zipped(conversations=[letter()], users=[], projects=[]))[1]["text"] == reply["text"]


def test_parts_of_claude_are_where_they_were_in_the_text() -> None:
    blocks = [
        {"type": "text", "text": "I look it up."},
        {"type": "tool_use", "id": "c1", "name": "search", "input": {}},
        {"type": "tool_result", "tool_use_id": "c1", "content": "found"},
        {"type": "text", "text": ""},
        {"type": "text", "text": "They sing."},
        {"type": "thinking", "thinking": "Am I sure?"},
        {"type": "text", "text": "Yes."},
    ]
    message = {"uuid": "m1", "sender": "assistant", "attachments": [{"file_name": "a.md"}], "content": blocks}
    (row,) = rows({"name": "Whales", "chat_messages": [message]})
    parts = [ReplyPart(**part) for part in row["parts"]]
    (before, [call], between, [thought], after) = reply_sequence(row["text"], parts)
    assert [before, between, after] == ["[file: a.md]\n\nI look it up.", "\n\nThey sing.", "\n\nYes."]
    assert (call.text, thought.text) == ("found", "Am I sure?")


def test_claude_question_with_two_answers_has_two_branches() -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    value = claude(
        "x",
        {"sender": "human", "text": "one", "parent_message_uuid": unknown},
        {"sender": "assistant", "text": "first", "parent_message_uuid": "m0"},
        {"sender": "assistant", "text": "second", "parent_message_uuid": "m0"},
    )
    assert [row["text"] for row in branch([value])] == ["one", "second"]
    assert [row["place"] for row in rows([value])] == [1, 2, 2]


def test_conversations_are_read_newest_first_up_to_the_limit() -> None:
    many = [
        chatgpt(f"t{n}", [node("q", None, text_message("user", "hi"))], "q", at=1.7e9 + n % 3 * 10 + n)
        for n in range(9)
    ]
    found = lines([*many, letter(), {"odd": 1}, 7, {"mapping": {}, "title": "empty"}])
    titles = [line["title"] for line in found if "head" in line]
    assert titles == ["Whales", "t8", "t5", "t2", "t7", "t4", "t1", "t6", "t3", "t0"]
    assert sorted(one["title"] for one in found[-1]["skipped"]) == ["", "", "empty"]
    assert found[-1]["left_out"] == 0
    few = lines(many, room=4)
    assert ([line["title"] for line in few if "head" in line], few[-1]["left_out"]) == (["t8", "t5", "t2", "t7"], 5)


def test_own_export_and_bare_message_list_are_read() -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    for value in ({"messages": talk}, talk, [{"messages": talk}]):
        assert [row["text"] for row in branch(value)] == ["Hi", "Hello"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "The body is empty"),
        (b"{no", "not valid JSON"),
        ([], "no conversation in the body"),
        ({}, "no messages in the body"),
        (3, "no messages in the body"),
        (None, "no messages in the body"),
        ("text", "no messages in the body"),
        ([{}], "has no messages"),
        ([{}, {}], "None of the 2 conversations can be read"),
        ([[]], "has no messages"),
        ({"mapping": {}}, "no messages that could be shown"),
        ({"mapping": {"a": {"parent": "b"}, "b": {"parent": "a"}}}, "no messages that could be shown"),
        ({"chat_messages": [3, {}]}, "no messages that could be shown"),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"PK\x03\x04 no zip", "The ZIP file cannot be read"),
        (zipped(user={}), "no conversation in the body"),
        (zipped(conversations=b"{no"), "not valid JSON"),
        (zipped(conversations=b"[" + b" " * 5_000_000 + b"]"), "Unpacked, the file is too large: at most 1 MB"),
    ],
)
def test_invalid_file_is_rejected_with_a_sentence(value: Any, expected: str) -> None:
    assert expected in refused(value)


def nested(depth: int) -> Any:
    value: Any = "core"
    for n in range(depth):
        value = [value] if n % 2 else {"a": value}
    return value


@pytest.mark.parametrize("depth", [0, 50, 51, 600, 800])
def test_the_input_of_a_tool_call_is_kept_at_any_depth(depth: int) -> None:
    given = nested(depth)
    part = {"kind": "tool", "text": "done", "start": 1.0, "end": 2.0, "name": "t", "input": given}
    call = {"type": "tool_use", "id": "1", "name": "t", "input": given}
    for value in (
        {"messages": [{"role": "assistant", "content": "x", "parts": [part]}]},
        claude("x", {"sender": "assistant", "text": "x", "content": [call]}),
    ):
        kept = rows(value)[0]["parts"][0]["input"]
        assert kept == (given if depth <= 50 else {"input": json.dumps(given)})


def of_any_origin(parts: Lines) -> list[Any]:
    """Files of each origin with a reply that has these parts."""
    kinds = {"thinking": {"content_type": "thoughts"}, "tool": {"content_type": "text"}}
    blocks: Lines = []
    nodes = [node("q", None, text_message("user", "Hi"))]
    for n, part in enumerate(parts):
        text, thinking = part["text"], part["kind"] == "thinking"
        blocks.append({"type": "thinking", "thinking": text} if thinking else {"type": "tool_use", "id": str(n)})
        if not thinking:
            blocks.append({"type": "tool_result", "tool_use_id": str(n), "content": [{"type": "text", "text": text}]})
        content = {"thoughts": [{"content": text}]} if thinking else {"parts": [text]}
        message = raw_message("assistant" if thinking else "tool", kinds[part["kind"]] | content)
        nodes.append(node(f"p{n}", nodes[-1]["id"], message))
    ours = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x", "parts": parts}]}
    return [
        ours,
        [chatgpt("x", [*nodes, node("a", nodes[-1]["id"], text_message("assistant", "x"))], "a")],
        [claude("x", {"sender": "human", "text": "Hi"}, {"sender": "assistant", "text": "x", "content": blocks})],
    ]


def part(kind: str, text: str) -> dict[str, Any]:
    return {"kind": kind, "text": text, "start": 1.0, "end": 1.0}


@pytest.mark.parametrize(("given", "kept"), [(7, 7), (-1, 0), ("7", 0), (None, 0), (10**12, 1_000_000_000)])
def test_offset_of_an_exported_part_is_kept(given: Any, kept: int) -> None:
    exported = part("tool", "done") | {"offset": given}
    for value, expected in ((exported, kept), (part("tool", "done"), 0)):
        assert branch(of_any_origin([value])[0])[-1]["parts"][0]["offset"] == expected


def test_imported_parts_are_shortened_as_in_a_run() -> None:
    output = f"begin {'x' * 9000} end"
    for value in of_any_origin([part("thinking", "y" * 30_000), part("tool", output)]):
        thought, call = branch(value)[-1]["parts"]
        assert thought["text"] == "y" * 20_000
        assert call["text"] == shorten_output(output) and len(call["text"]) < 4100
        assert [*branch(of_any_origin([thought, call])[0])[-1]["parts"]] == [thought, call], "as an export has them"


def test_parts_of_a_message_are_bounded_in_number_and_together() -> None:
    for value in of_any_origin([part("tool", f"{n}") for n in range(1500)]):
        assert [one["text"] for one in branch(value)[-1]["parts"]] == [f"{n}" for n in range(1000)]
    for value in of_any_origin([part("thinking", f"{n:3} {'x' * 19_900}") for n in range(150)]):
        kept = branch(value)[-1]["parts"]
        assert 90 < len(kept) <= 100 and kept[-1]["text"].startswith(f"{len(kept) - 1:3}")


def test_parts_of_a_conversation_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "_PARTS", 70)
    replies = [{"role": "assistant", "content": "x", "parts": [part("tool", "y")] * 30}] * 4
    assert [len(row["parts"]) for row in branch({"messages": replies})] == [30, 30, 10, 0]


@pytest.mark.parametrize("name", ["sender", "role", "id"])
def test_invalid_nested_field_never_crashes_the_import(name: str) -> None:
    deep = nested(800)
    one = {"sender": "human", "role": "user", "text": "x", "content": "x", name: deep}
    for value in (claude("x", one), {"messages": [one]}):
        try:
            assert [row["text"] for row in rows([value])] == ["x"]
        except ExportError as error:
            assert "nested too deeply" in str(error) or "allowed" in str(error)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_zip_is_rejected_with_a_sentence(method: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("conversations.json", json.dumps([tour()]))
    whole = file.getvalue()
    begin = 30 + len("conversations.json")
    for at in range(begin, begin + 40):
        damaged = whole[:at] + bytes([whole[at] ^ 0xFF] * 8) + whole[at + 8 :]
        assert "The ZIP file cannot be read: it is damaged" in refused(damaged)


def test_a_zip_of_zips_and_a_bomb_in_parts_are_bounded() -> None:
    parts = {f"conversations_{n}": b"[" + b" " * 400_000 + b"]" for n in range(9)}
    assert "at most" in refused(zipped(**parts))
    assert "no conversation" in refused(zipped(inner=zipped(conversations=[tour()])))


def test_huge_numbers_are_harmless() -> None:
    huge = b"9" * 1_000_000
    message = b'{"author": {"role": "user"}, "create_time": %b, "content": {"parts": ["hi"]}}' % huge
    body = b'{"mapping": {"q": {"message": %b}}, "update_time": 1e999, "x": NaN, "y": -Infinity}' % message
    assert [row["text"] for row in rows(body)] == ["hi"]


def children_first(count: int) -> dict[str, Any]:
    others = [
        {"role": "user", "content": str(n), "id": f"o{n}", "parent_id": f"o{n + 1}" if n < count - 1 else "m"}
        for n in range(count)
    ]
    return {"messages": [{"role": "user", "content": "x", "id": "m"}], "other_messages": others}


def worst() -> Iterator[tuple[str, Any, int]]:
    yield "children first", children_first(20_000), 20_001
    yield (
        "a long line",
        chatgpt("x", [node(f"n{i}", f"n{i - 1}" if i else None, text_message("user", "x")) for i in range(20_000)]),
        20_000,
    )
    thought = {"content_type": "thoughts", "thoughts": [{"content": "y"}]}
    chain = [node(f"n{i}", f"n{i - 1}" if i else None, raw_message("assistant", thought)) for i in range(10_000)]
    fan = [node(f"m{i}", "n9999", text_message("assistant", "x")) for i in range(10_000)]
    yield "thoughts and a fan", chatgpt("x", chain + fan), 10_000
    calls = [
        node(f"n{i}", f"n{i - 1}" if i else None, text_message("assistant", "x", recipient="python"))
        for i in range(20_000)
    ]
    yield "calls without end", chatgpt("x", [*calls, node("a", "n19999", text_message("assistant", "x"))]), 1
    marks = "\ue200" * 300_000
    yield "references", chatgpt("x", [node("q", None, text_message("assistant", marks))]), 1
    yield "empty ones", claude("x", *[{"sender": "human", "text": ""}] * 20_000, {"sender": "human", "text": "x"}), 1


@pytest.mark.parametrize("case", [name for name, _, _ in worst()])
def test_worst_case_trees_take_linear_time(case: str) -> None:
    value, count = next((value, count) for name, value, count in worst() if name == case)
    started = time.process_time()
    assert len(rows(value)) == count
    assert time.process_time() - started < 20


NAMES = [
    *("mapping", "message", "parent", "children", "author", "role", "content", "parts", "content_type", "metadata"),
    *("chat_messages", "sender", "text", "attachments", "uuid", "messages", "title", "q", "thoughts", "create_time"),
    *("recipient", "current_node", "conversations", "other_messages", "id", "parent_id"),
]
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["q", "user", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(ANY)
def test_arbitrary_json_is_harmless(value: Any) -> None:
    for one in (
        value,
        [value],
        {"mapping": {"q": {"message": value}}},
        {"chat_messages": [value]},
        {"messages": [value]},
    ):
        try:
            found = lines(one)
        except ExportError as e:
            assert str(e)
        else:
            known = {None}
            for line in found:
                if "row" in line:
                    assert line["row"]["parent_id"] in known
                    known.add(line["row"]["id"])
            json.dumps(found, allow_nan=False)
