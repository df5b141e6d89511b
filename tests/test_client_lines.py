"""client.js against a real running app over a bad line: it always ends with exactly the reply, once."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import scripted
from tests.live_app import Api, live_api
from tests.node import NODE
from tests.unreliable_proxy import unreliable_http_proxy, unreliable_socket_proxy

_HERE = Path(__file__).parent
_LINES = {"events": unreliable_http_proxy, "socket": unreliable_socket_proxy}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with live_api(tmp_path_factory.mktemp("lines"), backends=[scripted("Quick", speed=60)]) as app:
        yield app


async def chat(**given: Any) -> dict[str, Any]:
    """What the client received."""
    command = [NODE, str(_HERE / "client_chat.mjs"), json.dumps(given)]
    client = (_HERE.parent / "web" / "client.js").as_uri()
    pipe = asyncio.subprocess.PIPE
    environ = {**os.environ, "GLASSBOX_CLIENT": client}
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=pipe, stderr=pipe)
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()[-3000:]
    return dict(json.loads(out))


@pytest.mark.parametrize("over", ["events", "socket"])
def test_over_a_bad_line_the_reply_comes_whole_and_once(app: Api, over: str) -> None:
    cut = 0

    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**32), cuts=st.integers(1, 12), message=st.sampled_from(["tour", "cut"]))
    def holds(seed: int, cuts: int, message: str) -> None:
        async def talk() -> dict[str, Any]:
            async with _LINES[over](app.url, Random(seed), cuts) as url:
                return await chat(url=url, over=over, message=message, backend="Quick")

        nonlocal cut
        received = asyncio.run(talk())
        run = app.runs.find(received["last"]["run_id"])
        assert run and run.ended
        entries = run.log.entries
        assert received["seqs"] == list(range(1, len(entries) + 1))
        assert received["text"] == run.text == received["last"]["content"]
        assert received["last"] == entries[-1].wire()
        cut += received["connected"]["dropped"]

    holds()
    assert cut > 10, "the line was not bad"
    assert not list(app.runs.live())
