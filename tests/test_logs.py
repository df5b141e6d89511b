"""The log: its lines, and the keys and words that it must not contain."""

import json
import logging
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from backends.keys import Key, VisitorKeys, redact_keys
from logs import log_formatter
from runs.errors import ChatError
from tests.app_process import RunningApp

ROOT = Path(__file__).parent.parent
SCRIPT = '[[backends]]\nname = "Script"\nkind = "scripted"\noptions = { speed = 1000 }\n'


def written(message: str, form: Any = "text", *args: Any, exc_info: Any = None) -> str:
    record = logging.LogRecord("agent.turns", logging.INFO, "", 0, message, args, exc_info)
    return log_formatter(form).format(record)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\x0b", "\x85", "\u2028", "\x1b[2J", "\x00"])
def test_text_cannot_forge_a_line(form: str, end: str) -> None:
    line = written("found %s", form, f"a{end}ERROR glassbox: everything is lost")
    assert len(line.splitlines()) == 1 and "\x1b" not in line and "\x00" not in line


def test_traceback_cannot_forge_a_line() -> None:
    try:
        raise ValueError("a\nERROR glassbox: forged")
    except ValueError:
        lines = written("it failed", exc_info=sys.exc_info()).splitlines()
    assert lines[0] == "INFO agent.turns: it failed" and len(lines) > 3
    assert all(line.startswith("  | ") for line in lines[1:])


def test_key_is_redacted_in_messages_and_tracebacks() -> None:
    key = Key("sk-of-a-visitor-1234567890", from_visitor=True)
    try:
        raise ValueError(f"with {key.reveal()}")
    except ValueError:
        for form in ("text", "json"):
            line = written("%s", form, key.reveal(), exc_info=sys.exc_info())
            assert "1234567890" not in line and "[key]" in line


def test_warnings_are_logged_and_do_not_quote_a_model() -> None:
    script = """
import warnings
from pydantic import BaseModel
from backends.keys import Key
from logs import configure_logging
class One(BaseModel):
    text: str
configure_logging("json")
key = Key("sk-of-a-visitor-1234567890")
warnings.warn(f"two\\nlines and {key.reveal()}")
One.model_construct(text=["what a model wrote"]).model_dump()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["py.warnings"]
    assert "two\nlines and [key]" in lines[0]["event"] and done.returncode == 0


def test_key_that_is_a_word_leaves_the_fields_of_a_line() -> None:
    words = [Key(word, from_visitor=True) for word in ("agent.turns", "warning", datetime.now(UTC).strftime("%Y-%m"))]
    line = json.loads(written("a warning of agent.turns", "json"))
    assert (line["level"], line["logger"], line["event"]) == ("info", "agent.turns", "a warning of agent.turns")
    assert "[key]" not in line["timestamp"] and words


@pytest.mark.parametrize("form", ["text", "json"])
def test_key_that_is_a_word_changes_no_other_line(form: str) -> None:
    """Only arguments of a message, messages of libraries and tracebacks can contain a key and are redacted."""
    ended = {"event": "run ended", "outcome": "complete", "backend": "Script", "logger": "runs.live", "level": "info"}
    failed = ChatError("internal", "The database did not answer in time.")

    def all_lines() -> list[str]:
        record = logging.LogRecord("runs.live", logging.INFO, "", 0, ended, (), None)  # type: ignore[arg-type]
        record._logger, record._name = logging.getLogger("runs.live"), "info"  # type: ignore[attr-defined]
        lines = log_formatter(form).format(record), written("what the database says: %s", form, failed)  # type: ignore[arg-type]
        return [re.sub(r"\S+Z", "", line) for line in lines]

    quiet = all_lines()
    keys = [Key(word, from_visitor=True) for word in ("complete", "Script", "database", "run ended", "what the")]
    assert all_lines() == quiet and keys
    assert "[key]" in written("a provider: %s", form, "no key: complete")
    record = logging.LogRecord("httpx", logging.INFO, "", 0, "GET complete", (), None)
    assert "[key]" in log_formatter(form).format(record)  # type: ignore[arg-type]


def test_logged_message_is_redacted_of_its_visitors_keys() -> None:
    keys = VisitorKeys()
    keys.put("anna", "A", "a-key-of-anna")
    keys.put("ben", "A", "database")
    operators = Key("of-the-operator")
    received = redact_keys("a-key-of-anna of-the-operator database", keys.all_of("anna"))
    assert received == "[key] [key] database" and operators


def test_lines_of_a_run_have_its_id() -> None:
    with structlog.contextvars.bound_contextvars(run_id="r1"):
        assert written("it failed").endswith("it failed run_id=r1")
        assert json.loads(written("it failed", "json"))["run_id"] == "r1"


@pytest.mark.parametrize("asked", ["0", "1"])
def test_app_logs_runs_and_messages_only_if_configured(tmp_path: Path, asked: str) -> None:
    with RunningApp(tmp_path, SCRIPT, GLASSBOX_LOG="json", GLASSBOX_LOG_MESSAGES=asked) as app:
        body = {"message": "a word that nobody else says: xylophagous"}
        answer = httpx.post(f"{app.url}stream", json=body, timeout=30)
        run_id = answer.headers["x-run-id"]
        time.sleep(0.2)
    errors = app.output().replace(f"Glassbox is at {app.url}\n", "")
    lines = [json.loads(line) for line in errors.splitlines()]
    of_run = [line for line in lines if line.get("run_id") == run_id]
    assert [line["event"] for line in of_run if line["event"].startswith("run ")] == ["run started", "run ended"]
    ended = of_run[-1]
    assert ended["outcome"] == "complete" and ended["ttft_s"] >= 0 and ended["timestamp"].endswith("Z")
    assert ("xylophagous" in errors) is (asked == "1")
