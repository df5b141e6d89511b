"""The child process that reads a large file of conversations: parsing blocks the interpreter, and a malicious file may
take all memory. Run it as a module; it reads the file from standard input.

It prints the lines of `read_export` as JSON, or a last line {"error": a sentence}. Its arguments are the most
conversations and the most bytes of the unpacked file.
"""

import json
import sys
from contextlib import suppress
from typing import Any

from memory.exports.conversation import ExportError
from memory.exports.reader import read_export

_BYTES_OF_A_BYTE, _BYTES, _SECONDS = 30, 300_000_000, 60
"""Limits of memory, for each byte that may be read (an empty list takes two in JSON, 64 in memory) and for the rest."""


def _limit(most_bytes: int) -> None:
    """Limits this process's memory and CPU time, if the system can, and lowers its priority."""
    with suppress(ImportError, ValueError, OSError):
        import os
        import resource

        os.nice(19)
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        memory = _BYTES + _BYTES_OF_A_BYTE * most_bytes
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def main() -> None:
    """Reads the file and prints its conversations."""
    most, most_bytes = int(sys.argv[1]), int(sys.argv[2])
    _limit(most_bytes)
    try:
        for line in read_export(sys.stdin.buffer.read(), most, most_bytes):
            _write(line)
    except ExportError as e:
        _write({"error": str(e)})
    except MemoryError:
        _write({"error": "The file takes too much memory to be read. Import a part of it."})


def _write(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


if __name__ == "__main__":
    main()
