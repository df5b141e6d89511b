"""The process that reads one PDF: what is in it may be made to take all time and memory. Run as a script, imports
nothing of ours.

Reads the file from standard input and answers with one line of JSON: `pages`, a text each, or `error`, the reason in
words for people. Arguments: the most pages, the most characters of all of them.
"""

import json
import os
import sys
from contextlib import suppress
from io import BytesIO

_BYTES = 500_000_000
_SECONDS = 10


def _limit() -> None:
    """Bounds this process's memory and computing time, and lets all others go first, where the system can."""
    with suppress(AttributeError, OSError):
        os.nice(19)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # for its reading from disks, too
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))


def read(data: bytes, most_pages: int, most_characters: int) -> dict[str, object]:
    """The texts of the pages, or why there are none."""
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
        return {"error": "unpacked, it is too large or leads in circles"}
    except Exception:  # whatever a file can do to its reader
        return {"error": f"page {len(pages) + 1} is damaged" if pages else "it is damaged"}
    return {"pages": pages}


def main() -> None:
    _limit()
    print(json.dumps(read(sys.stdin.buffer.read(), int(sys.argv[1]), int(sys.argv[2]))))


if __name__ == "__main__":
    main()
