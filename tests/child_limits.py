"""Code under the limits of a process that reads visitors' files."""

import subprocess
import sys
from pathlib import Path


def limited(child: Path, code: str) -> "subprocess.CompletedProcess[bytes]":
    """Runs code under the limits of the script `child`, with one second of processor time."""
    load = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("child", {str(child)!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child._SECONDS = 1
child._limit()
"""
    return subprocess.run([sys.executable, "-c", load + code], capture_output=True, timeout=60)
