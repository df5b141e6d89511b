"""Tool calls in whole turns: streamed output, errors, timeouts and cancellation."""

import asyncio
import gc
import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.tools.streaming import MOST
from memory.options import TurnOptions
from runs.errors import ChatError
from runs.tool_calls import ApprovalAnswer
from tests.calls import (
    HTML,
    Make,
    asked,
    begun,
    chunks,
    ended,
    observed,
    of,
    opened,
    options,
    place,
    renewed,
    waiting,
    world,
)
from tests.conftest import until
from tests.grammar import check_run

pytest_plugins = ["tests.calls"]


# Streams and parallel calls


async def test_ten_thousand_yields_arrive_in_order_in_few_events(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("many", {"n": 10_000})), result_characters=100_000))
    assert received[-1]["type"] == "complete"
    whole = "".join(f"{i}," for i in range(10_000))
    assert chunks(received, "c0") == of(received, "tool_end")[0]["output"] == whole == observed(seen)["c0"]
    assert 1 < len(of(received, "tool_output")) < 200
    outputs = [received.index(e) for e in of(received, "tool_output")]
    assert place(received, "tool_start", "c0") < outputs[0] < outputs[-1] < place(received, "tool_end", "c0")


async def test_parallel_tools_have_separate_outputs(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, *(("trio", {"name": name}) for name in "abc"))))
    assert received[-1]["type"] == "complete"
    last_start = max(place(received, "tool_start", f"c{i}") for i in range(3))
    first_end = min(place(received, "tool_end", f"c{i}") for i in range(3))
    assert last_start < first_end
    for i, name in enumerate("abc"):
        outputs = of(received, "tool_output", f"c{i}")
        assert place(received, "tool_output", f"c{i}") < first_end, "each has said something before one had ended"
        assert {e["tool"] for e in outputs} == {"trio"}
        text = f"{name} begins, {name} ends"
        assert (
            chunks(received, f"c{i}")
            == of(received, "tool_end", f"c{i}")[0]["output"]
            == text
            == observed(seen)[f"c{i}"]
        )


async def test_calls_with_equal_ids_get_unique_ids(make: Make, seen: list[Any]) -> None:
    rounds = [
        [("plain", {"text": "one"}, "same"), ("plain", {"text": "two"}, "same")],
        [("plain", {"text": "three"}, "same")],
    ]
    received = await asked(make({**options(seen), "rounds": rounds}))
    assert received[-1]["type"] == "complete"
    ids = [e["tool_call_id"] for e in of(received, "tool_start")]
    assert len(set(ids)) == 3
    ends = {e["tool_call_id"]: e["output"] for e in of(received, "tool_end")}
    for start in of(received, "tool_start"):
        assert ends[start["tool_call_id"]] == f"got {start['input']['text']}"
    assert sorted(world.got) == ["one", "three", "two"]


async def test_tool_input_has_the_id_of_its_call(make: Make, seen: list[Any]) -> None:
    rounds = [[("plain", {"text": text}, "call_0")] for text in "abc"]
    received = await asked(make(options(seen) | {"rounds": rounds, "in_pieces": True}))
    ids = [e["tool_call_id"] for e in of(received, "tool_start")]
    assert len(set(ids)) == 3
    for call_id, text in zip(ids, "abc", strict=True):
        written = "".join(e["delta"] for e in of(received, "tool_input", call_id))
        assert written == json.dumps({"text": text})


# Failing calls


async def test_exception_of_a_streaming_tool_becomes_its_result(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("breaks", {"name": "a"}), ("plain", {"text": "b"}))))
    assert received[-1]["type"] == "complete"
    assert of(received, "tool_end", "c0")[0]["error"] == "no luck today"
    assert chunks(received, "c0") == "so far so good"
    assert "error" not in of(received, "tool_end", "c1")[0]
    assert "no luck today" in observed(seen)["c0"]
    assert observed(seen)["c1"] == "got b"


async def test_hanging_tool_times_out(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("slow", {"name": "a"})), seconds=0.2))
    assert received[-1]["type"] == "complete"
    (end,) = of(received, "tool_end")
    assert "0.2 s" in end["error"]
    assert 0.2 <= end["duration_s"] < 2
    assert "0.2 s" in observed(seen)["c0"]
    assert world.finished == ["a"]


async def test_tool_that_ignores_cancellation_does_not_block_the_run(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("stubborn", {"text": "a"})), seconds=0.2))
    assert received[-1]["type"] == "complete"
    assert of(received, "tool_end")[0]["duration_s"] < 2
    assert (world.got, "0.2 s" in observed(seen)["c0"]) == (["cancelled"], True)
    world.go.set()


async def test_result_of_a_megabyte_is_cut(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("large", {"characters": 1_000_000})), result_characters=500))
    assert received[-1]["type"] == "complete"
    (end,) = of(received, "tool_end")
    assert (len(end["output"]) < 600, "error" in end) == (True, False)
    assert "1,000,000 characters" in end["output"]
    assert observed(seen)["c0"] == end["output"]


async def test_endless_tool_output_is_ended(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("flood", {"characters": 10_000_000})), result_characters=500))
    assert received[-1]["type"] == "complete"
    assert MOST <= len(chunks(received, "c0")) < MOST + 100
    assert chunks(received, "c0").endswith("characters]")
    (end,) = of(received, "tool_end")
    assert len(end["output"]) < 600
    assert observed(seen)["c0"] == end["output"]


async def test_html_in_results_is_unchanged(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("html", {"text": HTML}))))
    assert received[-1]["type"] == "complete"
    assert of(received, "tool_start")[0]["input"] == {"text": HTML}
    assert of(received, "tool_end")[0]["output"] == HTML == observed(seen)["c0"]


@pytest.mark.parametrize("text", ["half \ud83d pair", "\x00", "\u2028"])
async def test_odd_characters_can_be_sent_and_stored(make: Make, seen: list[Any], text: str) -> None:
    run = await begun(make(options(seen, ("plain", {"text": text}))))
    received = await ended(run)
    assert received[-1]["type"] == "complete"
    assert run.unsaved is None
    for entry in run.log.entries:
        entry.json.encode()


async def test_one_of_several_calls_can_be_cancelled(make: Make, seen: list[Any]) -> None:
    run = await begun(make(options(seen, ("slow", {"name": "a"}), ("slow", {"name": "b"}))))
    await until(lambda: opened(run, "c0") and opened(run, "c1"))
    run.tool_calls.cancel("c0")
    await until(lambda: any(e.type == "tool_end" for e in run.log.entries))
    assert world.finished == ["a"]
    assert [s.id for s in run.state.open_steps if s.kind == "tool"] == ["c1"]
    with pytest.raises(ChatError) as raised:
        run.tool_calls.cancel("c0")
    assert raised.value.code == "busy"
    world.go.set()
    received = await ended(run)
    assert received[-1]["type"] == "complete"
    assert "cancelled" in of(received, "tool_end", "c0")[0]["error"]
    assert of(received, "tool_end", "c1")[0]["output"] == "b waits, went on" == observed(seen)["c1"]
    assert "cancelled" in observed(seen)["c0"]


async def test_stop_lets_a_tool_run_its_finally(make: Make, seen: list[Any], record_property: Any) -> None:
    run = await begun(make(options(seen, ("slow", {"name": "a"}))))
    await until(lambda: opened(run))
    at = time.monotonic()
    await run.stop("user")
    took = time.monotonic() - at
    record_property("stop_s", round(took, 3))
    assert took < 2
    received = check_run(run)
    assert (received[-1]["type"], received[-1]["reason"]) == ("stopped", "user")
    assert of(received, "tool_end")[0]["error"] == "cancelled"
    await until(lambda: world.finished, 2)
    assert world.finished == ["a"]


async def test_endless_tool_rounds_end_with_a_note(make: Make, seen: list[Any]) -> None:
    turns = make(options(seen, ("plain", {"text": "again"}), forever=True), rounds=3)
    run = await begun(turns)
    received = await ended(run)
    assert (received[-1]["type"], received[-1]["reason"]) == ("stopped", "limit")
    assert len(of(received, "tool_end")) == len(world.got) == 4
    reply = (await turns.store.history(run.conversation_id))[-1]
    assert (reply.standing, "3 rounds" in (reply.note or "")) == ("stopped", True)


# Problems of earlier versions


async def test_new_call_ids_are_unique(make: Make, seen: list[Any]) -> None:
    rounds = [[("plain", {"text": "1"}, "a"), ("plain", {"text": "2"}, "a"), ("plain", {"text": "3"}, "a-2")]]
    received = await asked(make({**options(seen), "rounds": rounds}))
    assert len({e["tool_call_id"] for e in of(received, "tool_start")}) == 3


async def test_custom_events_of_a_tool_are_ignored(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("tells", {"text": "a"}))))
    assert (received[-1]["type"], observed(seen)) == ("complete", {"c0": "received"})


async def test_tool_that_cancels_itself_is_not_blamed_on_the_visitor(make: Make, seen: list[Any]) -> None:
    received = await asked(make(options(seen, ("gives_up", {"text": "a"}))))
    assert received[-1]["type"] == "complete"
    assert "visitor" not in of(received, "tool_end")[0]["error"] + observed(seen)["c0"]


async def test_nan_arguments_leave_the_wire_valid_json(make: Make, seen: list[Any]) -> None:
    run = await begun(make(options(seen, ("plain", {"text": float("nan")}))))
    await ended(run)
    strange: list[str] = []
    for entry in run.log.entries:
        json.loads(entry.json, parse_constant=strange.append)
    assert strange == []


async def test_output_after_cancellation_is_dropped_silently(
    make: Make, seen: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    received = await asked(make(options(seen, ("chatty", {"text": "a"})), seconds=0.1))
    gc.collect()
    await asyncio.sleep(0.05)
    assert received[-1]["type"] == "complete"
    assert "never retrieved" not in caplog.text


async def test_approved_truncated_input_runs_with_the_whole_input(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "z" * 30_000}))
    run.tool_calls.answer("c0", ApprovalAnswer(True, run.state.approvals[0].input))
    assert (await ended(run))[-1]["type"] == "complete"
    assert world.got == ["z" * 30_000]


# Any behaviour of tools

BEHAVIOURS: dict[str, tuple[str, dict[str, Any]]] = {
    "raises": ("breaks", {"name": "a"}),
    "yields": ("many", {"n": 300}),
    "is plain": ("plain", {"text": "b"}),
    "hangs": ("slow", {"name": "c"}),
    "is cancelled": ("slow", {"name": "d"}),
    "is large": ("large", {"characters": 50_000}),
    "floods": ("flood", {"characters": 200_000}),
    "is not there": ("nothing", {}),
    "gets nonsense": ("many", {"n": "x"}),
}


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(st.lists(st.sampled_from(sorted(BEHAVIOURS)), min_size=1, max_size=3), min_size=1, max_size=2),
    stop=st.none() | st.floats(0, 0.5),
)
async def test_any_tool_behaviour_keeps_the_grammar(make: Make, script: list[list[str]], stop: float | None) -> None:
    renewed()
    rounds = [
        [(*BEHAVIOURS[what], f"{what} {i} {j}") for j, what in enumerate(whats)] for i, whats in enumerate(script)
    ]
    run = await begun(make({"rounds": rounds, "text": "done", "pause": 0}, seconds=0.25))

    async def cancel() -> None:
        while not run.ended:
            for step in run.state.open_steps:
                if (
                    step.id.startswith("is cancelled")
                    and opened(run, step.id)
                    and step.id not in run.tool_calls.cancelled
                ):
                    with suppress(ChatError):  # it has timed out, and its end event is still to come
                        run.tool_calls.cancel(step.id)
            await asyncio.sleep(0.01)

    async def halt() -> None:
        if stop is not None:
            await asyncio.sleep(stop)
            await run.stop("user")

    async with asyncio.timeout(10):
        await asyncio.gather(cancel(), halt())
        received = await ended(run)
    assert received[-1]["type"] in (("complete",) if stop is None else ("complete", "stopped"))
    if received[-1]["type"] == "complete":
        assert len(of(received, "tool_end")) == sum(len(whats) for whats in script)


# Calls of earlier turns


async def test_later_turn_gets_earlier_calls_and_results(make: Make, seen: list[Any]) -> None:
    turns = make(options(seen, ("plain", {"text": "one"}), ("breaks", {"name": "a"})))
    first = await begun(turns)
    await ended(first)
    received = await asked(turns, "And?", conversation_id=first.conversation_id)
    before, calls, *results, reply, last = seen[-1][0][-6:]
    assert [m.type for m in (before, calls, *results, reply, last)] == ["human", "ai", "tool", "tool", "ai", "human"]
    assert [(c["name"], c["args"]) for c in calls.tool_calls] == [("plain", {"text": "one"}), ("breaks", {"name": "a"})]
    assert [r.tool_call_id for r in results] == [c["id"] for c in calls.tool_calls]
    assert results[0].text == "got one"
    assert "no luck today" in results[1].text
    (context,) = of(received, "context")
    assert [m["role"] for m in context["messages"][-6:]] == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert [m["part"] for m in context["messages"][-6:]] == ["recent"] * 5 + ["message"]
    assert context["messages"][-5]["tool_calls"][0] == {"name": "plain", "args": {"text": "one"}}
    assert context["left_out"] == []


async def test_model_without_tools_gets_earlier_results_as_text(make: Make, seen: list[Any]) -> None:
    turns = make(options(seen, ("plain", {"text": "one"})))
    first = await begun(turns)
    await ended(first)
    received = await asked(
        turns, "And?", conversation_id=first.conversation_id, options=TurnOptions(tools=("calculator",))
    )
    user, reply, last = seen[2][0][-3:]
    assert [m.type for m in (user, reply, last)] == ["human", "ai", "human"]
    assert user.text == 'Hi\n\n[Result of the tool plain, called with {"text": "one"}]\ngot one'
    assert of(received, "context")[0]["messages"][-3]["content"] == user.text


async def test_earlier_results_are_cut_and_left_out_ones_are_listed(make: Make, seen: list[Any]) -> None:
    calls = [("plain", {"text": f"{n} " + "x" * 7000}) for n in range(3)]
    turns = make(options(seen, *calls), result_characters=9000)
    first = await begun(turns)
    await ended(first)
    more: dict[str, Any] = {"conversation_id": first.conversation_id, "memory": "tokens"}
    received = await asked(turns, "And?", options=TurnOptions(token_limit=3600), **more)
    (context,) = of(received, "context")
    assert context["tokens"] <= 3600
    given = [m for m in context["messages"] if m["role"] == "tool"]
    assert given, "the newest result fits"
    assert all("cut" in m["content"] and len(m["content"]) < 4200 for m in given)
    assert len(given) + len(context["left_out"]) == 3
    assert {m["reason"] for m in context["left_out"]} == {"there is no room for the result of this tool call"}
    received = await asked(turns, "And now?", **more | {"memory": "none"})
    reasons = [m["reason"] for m in of(received, "context")[0]["left_out"] if m["role"] == "tool"]
    assert reasons == ["the mode none gives no history"] * 3


async def test_reused_ids_do_not_match_an_unreadable_call(make: Make, seen: list[Any]) -> None:
    rounds = [[("plain", [], "call_0")], [("plain", {"text": "b"}, "call_0")], [("plain", {"text": "c"}, "call_0")]]
    turns = make({**options(seen), "rounds": rounds}, approval=["plain"])
    run = await begun(turns)
    for wanted in (1, 2):
        await until(lambda wanted=wanted: len(run.state.tools) == wanted + 1 and run.tool_calls.awaiting_approval)
        run.tool_calls.answer(run.tool_calls.awaiting_approval[0], ApprovalAnswer(approved=True))
    received = await ended(run)
    ids = [e["tool_call_id"] for e in of(received, "tool_start")]
    assert len(set(ids)) == 3
    assert [e["tool_call_id"] for e in of(received, "approval")] == ids[1:]
    assert [e.get("error") is None for e in of(received, "tool_end")] == [False, True, True]
    assert observed(seen).keys() == set(ids)
    assert world.got == ["b", "c"]
