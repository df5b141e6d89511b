"""Schemathesis over the description of our own routes, on a real running app: through its command line, since its
pytest plug-in does not know this pytest.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from settings import LimitSettings
from tests.conftest import scripted
from tests.live_app import Api, live_api

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
"""Not `positive_data_acceptance`: no schema knows the names of this app's backends and tools, or its limits."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    limits = LimitSettings(body_bytes=100_000, document_bytes=100_000)
    with live_api(tmp_path_factory.mktemp("schema"), backends=[scripted("Script")], limits=limits) as app:
        yield app


async def test_every_route_answers_as_it_is_described(app: Api, tmp_path: Path) -> None:
    async with httpx.AsyncClient(base_url=app.url, timeout=20) as client:
        (await client.get("/example")).raise_for_status()
        run_id = (await client.post("/stream", json={"message": "tour"})).headers["x-run-id"]
        config = tmp_path / "schemathesis.toml"
        config.write_text(f'[parameters]\n"path.run_id" = "{run_id}"\n')
        command = [Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run"]
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        options = ["-H", f"Cookie: {cookie}", "--seed", "1", "-n", "15", "--request-timeout", "20"]
        options += ["--checks", ",".join(CHECKS), "--generation-database", "none", "--no-color"]
        options += ["--phases", "coverage,fuzzing"]
        run = [*command, app.url + "openapi.json", *options]
        done = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        described = (await client.get("/openapi.json")).json()["paths"]
        assert f"Tested: {sum(len(methods) for methods in described.values())}" in done.stdout
        assert (await client.get("/healthz")).json() == {"status": "ok"}
