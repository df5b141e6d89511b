"""Health, readiness and metrics."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from runs.errors import ChatError
from tests.live_app import client_of, events_of, live_api, refused


def figures(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_runs_tokens_times_and_errors(tmp_path: Path) -> None:
    with live_api(tmp_path, metrics_token=SecretStr("for prometheus")) as app:
        async with client_of(app) as client:
            await events_of(client, "POST", "/stream", json={"message": "hello <script>"})
            await events_of(client, "POST", "/stream", json={"message": "cut"})
            await events_of(client, "POST", "/batch", json={"prompts": ["a", "b"]})
            slow = {"message": "hello", "backend": "Slow script"}
            rate = (await events_of(client, "POST", "/stream", json=slow))[-1]["timing"]["tokens_per_s"]
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic Zm9yOnBybw=="}):
                await refused(await client.get("/metrics", headers=headers), 401, "authentication")
            answer = await client.get("/metrics", headers={"Authorization": "Bearer for prometheus"})
    assert answer.headers["content-type"].startswith("text/plain") and "<script>" not in answer.text
    found = figures(answer.text)
    assert found["glassbox_runs_total", "Script", "tokens", "complete"] == 3
    assert sum(value for key, value in found.items() if key[0] == "glassbox_errors_total") == 1
    assert found["glassbox_tokens_total", "Script", "written"] > 3
    assert found["glassbox_first_token_seconds_count", "Script"] == 3
    assert found["glassbox_tokens_per_second_count", "Slow script"] == 1
    assert found["glassbox_tokens_per_second_sum", "Slow script"] == pytest.approx(rate)
    assert found["glassbox_runs_live",] == 0 and found["glassbox_waiting", "runs"] == 0
    assert found["process_resident_memory_bytes",] > 1e6


async def test_metrics_are_off_by_default_and_behind_auth(tmp_path: Path) -> None:
    with live_api(tmp_path / "open") as app:
        async with client_of(app) as client:
            await refused(await client.get("/metrics"), 404, "not_found")
    with live_api(tmp_path / "closed", auth=("zoe", "secret")) as app:
        async with client_of(app, cookie=False) as client:
            await refused(await client.get("/metrics"), 401, "authentication")
            assert (await client.get("/metrics", auth=("zoe", "secret"))).status_code == 200
            assert (await client.get("/readyz")).json() == {"status": "ok"}
    with live_api(tmp_path / "both", auth=("zoe", "secret"), metrics_token=SecretStr("t")) as app:
        async with client_of(app, cookie=False) as client:
            assert (await client.get("/metrics", headers={"Authorization": "Bearer t"})).status_code == 200
            await refused(await client.get("/metrics"), 401, "authentication")


async def test_not_ready_while_the_database_fails_or_the_app_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails() -> None:
        raise ChatError("internal", "The database failed.")

    with live_api(tmp_path) as app:
        async with client_of(app) as client:
            assert (await client.get("/readyz")).status_code == 200
            with monkeypatch.context() as patch:
                patch.setattr(app.store, "check", fails)
                answer = await client.get("/readyz")
                assert answer.status_code == 503 and answer.json()["reason"] == "the database does not answer"
                assert (await client.get("/healthz")).status_code == 200
            app.turns.closing = True
            assert (await client.get("/readyz")).json()["reason"] == "it is ending"
