import json
import random

from runs.registry import RunRegistry
from runs.sent_requests import _LONGEST, _MOST_BYTES, SentRequests
from tests.test_runs_live import a_run, done, writing


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_last_request_of_each_call_is_kept() -> None:
    kept = SentRequests()
    assert kept.body(0) is None
    kept.begin_call()
    assert kept.body(0) is None, "a call may send nothing"
    kept.add(b"{}")
    kept.add(json.dumps({"text": "wörld"}).encode())
    kept.begin_call()
    assert (kept.body(0), kept.body(1)) == ('{"text": "w\\u00f6rld"}', None)


def test_sent_requests_are_bounded() -> None:
    kept = SentRequests()
    for size in (_LONGEST + 1, _MOST_BYTES - 10_000, 20_000, 5_000):
        kept.begin_call()
        kept.add(noise(size))
    assert [kept.body(n) is None for n in range(4)] == [True, False, True, False]
    assert kept.memory_bytes <= _MOST_BYTES
    kept.begin_call()
    kept.add(b"a" * _LONGEST)
    assert kept.body(4) == "a" * _LONGEST


async def test_requests_count_as_memory_of_ended_runs() -> None:
    registry, runs = RunRegistry(kept_bytes=600_000), [a_run() for _ in range(3)]
    for n, run in enumerate(runs):
        run.conversation_id = f"c{n}"
        run.requests.begin_call()
        run.requests.add(noise(400_000))
        registry.add(run)
        await done(run, writing)
    registry.add(a_run())
    assert [registry.find(run.id) is not None for run in runs] == [False, False, True]
