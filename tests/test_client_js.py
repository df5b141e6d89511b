"""The JavaScript client, by Node's own test runner: its parser, and how it takes up a run when the line drops."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.node import NODE

_HERE = Path(__file__).parent
_CLIENT = _HERE.parent / "web" / "client.js"


@pytest.mark.parametrize("cases", ["client_parser.mjs", "client_lines.mjs"])
def test_the_javascript_client(cases: str) -> None:
    ran = subprocess.run(
        [NODE, str(_HERE / cases)],
        env={**os.environ, "GLASSBOX_CLIENT": _CLIENT.as_uri()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert re.search(r"^(# |ℹ )pass [1-9]", ran.stdout, re.M)  # noqa: RUF001


def test_the_pages_stream_of_messages() -> None:
    script = _HERE.parent / "web" / "queue_stream.js"
    command, environment = [NODE, str(_HERE / "queue_stream.mjs")], {**os.environ, "QUEUE_STREAM": str(script)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert re.search(r"^(# |ℹ )pass 4", ran.stdout, re.M)  # noqa: RUF001


def test_the_page_that_compares() -> None:
    command, environment = [NODE, str(_HERE / "grid.mjs")], {**os.environ, "GLASSBOX_WEB": _CLIENT.parent.as_uri()}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert re.search(r"^(# |ℹ )pass [1-9]", ran.stdout, re.M)  # noqa: RUF001


def test_the_client_is_one_file_that_needs_no_other() -> None:
    source = _CLIENT.read_text()
    assert not re.search(r"^\s*import\b|\bimport\(|\brequire\(", re.sub(r"//.*", "", source), re.M)
