"""The process that reads one large file of conversations: parsing holds the interpreter, and a file may be made to take
all memory. Run as a module; reads the file from standard input.

Answers with the lines of `read_export` as JSON, or with a last line {"error": a sentence}. Arguments: how many
conversations there is room for, and how many bytes the file may unpack to.
"""

import json
import sys
from contextlib import suppress
from typing import Any

from memory.exports.conversation import ExportError
from memory.exports.reader import read_export

_BYTES_OF_A_BYTE, _BYTES, _SECONDS = 30, 300_000_000, 60
"""Memory: for each byte that may be read, since an empty list in JSON takes two and in memory 64, and for the rest."""


def _limit(most_bytes: int) -> None:
    """Bounds this process's memory and computing time, where the system can, and lets others go first."""
    with suppress(ImportError, ValueError, OSError):
        import os
        import resource

        os.nice(19)
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        most = _BYTES + _BYTES_OF_A_BYTE * most_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    room, most_bytes = int(sys.argv[1]), int(sys.argv[2])
    _limit(most_bytes)
    try:
        for line in read_export(sys.stdin.buffer.read(), room, most_bytes):
            _write(line)
    except ExportError as e:
        _write({"error": str(e)})
    except MemoryError:
        _write({"error": "The file takes too much memory to be read. Import a part of it."})


def _write(line: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


if __name__ == "__main__":
    main()
