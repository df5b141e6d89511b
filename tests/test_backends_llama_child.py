"""The process of a local model ends with the app, whatever it is doing."""

import json
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import pytest

from backends.weights import bundled_weights

CHILD = Path(__file__).parent.parent / "backends" / "llama_child.py"


@pytest.mark.parametrize("loaded", [False, True], ids=["while it loads", "when it is ready"])
def test_a_process_ends_with_its_app(loaded: bool) -> None:
    reading = {"threads": 1, "batch": 128}
    config = {"path": str(bundled_weights()), "context": 512, "slots": 1, "threads": 1, "key": "k", "reading": reading}
    for _ in range(3):  # at the end of the interpreter, one of 25 processes waited forever
        with Popen([sys.executable, "-P", str(CHILD)], stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as process:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps(config).encode() + b"\n")
            process.stdin.flush()
            if loaded:
                assert json.loads(process.stdout.readline())["address"].startswith("http://127.0.0.1:")
            process.stdout.close()
            process.stdin.close()
            try:
                assert process.wait(30) == 0
            finally:
                process.kill()
