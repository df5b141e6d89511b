"""LangSmith: it gets data only if configured, and then the page says so."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import langsmith
import pytest
from langchain_core.tracers.langchain import wait_for_all_tracers
from langsmith.utils import get_env_var

from settings import BackendSettings, Settings, SettingsError, TracingSettings, load_settings
from tests.live_app import live_app
from tracing import NOTE, configure_langsmith

VARIABLES = ["LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2", "LANGCHAIN_TRACING"]


@pytest.fixture
def smith(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The requests to a fake LangSmith server, which the environment names."""
    got: list[str] = []

    class Smith(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            got.append(f"{self.command} {self.path} {body!r}")
            self.send_response(202)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Smith)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("LANGSMITH_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("LANGSMITH_API_KEY", "of the tests")
    for name in VARIABLES:
        monkeypatch.setenv(name, "true")
    get_env_var.cache_clear()
    langsmith.configure(enabled=None)  # as a new process begins
    yield got
    langsmith.configure(enabled=False)
    get_env_var.cache_clear()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("on", [False, True])
def test_langsmith_gets_data_only_if_configured(tmp_path: Path, smith: list[str], on: bool) -> None:
    with live_app(tmp_path, tracing=TracingSettings(langsmith=on)) as app:
        answer = httpx.post(f"{app.url}stream", json={"message": "an echo of xylophagous"}, timeout=30)
        assert "event: done" in answer.text
        pages = [httpx.get(f"{app.url}{path}").text for path in ("config", "example")]
    wait_for_all_tracers()
    assert any("POST" in one for one in smith) is on
    assert bool(smith) is on
    assert [NOTE in page for page in pages] == [on, on]


def test_variables_without_effect_are_reported() -> None:
    environ = {"LANGSMITH_TRACING": "true", "LANGCHAIN_WANDB_TRACING": "1", "LANGCHAIN_HANDLER": "x", "OTHER": "true"}
    (received,) = configure_langsmith(environ, False)
    assert received.startswith("LANGCHAIN_HANDLER, LANGCHAIN_WANDB_TRACING, LANGSMITH_TRACING: nothing is traced;")
    assert environ == {"OTHER": "true"}
    assert configure_langsmith({"LANGSMITH_TRACING": "false"}, False) == []


def test_tracing_setting_is_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "glassbox.toml"
    file.write_text("[tracing]\nlangsmith = true\n")
    assert load_settings({"config": str(file)}, {"GLASSBOX_DATA": str(tmp_path)}).tracing.langsmith
    file.write_text("[tracing]\nlangsmiht = true\n")
    with pytest.raises(SettingsError, match="tracing, langsmiht: no such setting; did you mean 'langsmith'"):
        load_settings({"config": str(file)}, {"GLASSBOX_DATA": str(tmp_path)})
    assert not Settings(backends=[BackendSettings(name="S", kind="scripted")]).tracing.langsmith
