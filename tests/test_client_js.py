"""The JavaScript client, by Node's own test runner: its parser, and how it takes up a run when the line drops."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_CLIENT = _HERE.parent / "web" / "client.js"
_OLDEST = 20
_REQUIRED = os.environ.get("GLASSBOX_TEST_NODE") == "required"


def node() -> str:
    """Where Node is; without one that is new enough the tests are left out, unless it is required."""
    found = shutil.which("node")
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout.strip() if found else "none"
    match = re.match(r"v(\d+)\.", version)
    if found and match and int(match[1]) >= _OLDEST:
        return found
    why = f"Node {_OLDEST} or later runs the tests of web/client.js; found: {version}"
    if _REQUIRED:
        pytest.fail(why)
    pytest.skip(why)


@pytest.mark.parametrize("cases", ["client_parser.mjs", "client_lines.mjs"])
def test_the_javascript_client(cases: str, tmp_path: Path) -> None:
    client = tmp_path / "client.mjs"  # older ones take a .js file for CommonJS
    shutil.copyfile(_CLIENT, client)
    ran = subprocess.run(
        [node(), str(_HERE / cases)],
        env={**os.environ, "GLASSBOX_CLIENT": client.as_uri()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert re.search(r"^(# |ℹ )pass [1-9]", ran.stdout, re.M)  # noqa: RUF001


def test_the_client_is_one_file_that_needs_no_other() -> None:
    source = _CLIENT.read_text()
    assert not re.search(r"^\s*import\b|\bimport\(|\brequire\(", re.sub(r"//.*", "", source), re.M)
