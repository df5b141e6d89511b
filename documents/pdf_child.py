"""Reads one PDF in a process of its own, since a PDF can be made to take unlimited time and memory.

This is a script that imports no other module of the project. It reads the file from standard input and writes one line
of JSON: `pages`, the text of each page, or `error`, a message for people. Arguments: the most pages, and the most
characters of all pages.
"""

import json
import os
import sys
from contextlib import suppress
from io import BytesIO

_BYTES = 500_000_000
_SECONDS = 10


def _limit() -> None:
    """Limits this process's memory, CPU time and priority, as far as the system supports it."""
    with suppress(AttributeError, OSError):
        os.nice(19)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # this includes reading from disks
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))


def read(data: bytes, most_pages: int, most_characters: int) -> dict[str, object]:
    """Returns `pages`, the text of each page, or `error`."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

    pages: list[str] = []
    try:
        reader = PdfReader(BytesIO(data))
        for page in reader.pages:
            if len(pages) == most_pages:
                return {"error": f"it has more than {most_pages:,} pages"}
            pages.append(page.extract_text())
            if sum(map(len, pages)) > most_characters:
                return {"error": f"it has more than {most_characters:,} characters"}
    except (FileNotDecryptedError, DependencyError):
        return {"error": "it is protected by a password"}
    except (LimitReachedError, MemoryError):
        return {"error": "unpacked, it is too large or circular"}
    except Exception:  # a broken file can raise anything
        return {"error": f"page {len(pages) + 1} is damaged" if pages else "it is damaged"}
    return {"pages": pages}


def main() -> None:
    """Reads standard input and writes the answer."""
    _limit()
    print(json.dumps(read(sys.stdin.buffer.read(), int(sys.argv[1]), int(sys.argv[2]))))


if __name__ == "__main__":
    main()
