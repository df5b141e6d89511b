"""The script around a server that is a program: it ends the server, and all that it has started, with the app.

It imports no other module of this project. Its arguments are the number of a pipe's read end and the server's command.
The app holds the write end: when that closes, also because the app was killed, everything below this process is killed.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_DEATH_SIGNAL, _ADOPT = 1, 36
"""PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of Linux's prctl."""
_ROUNDS, _PAUSE_S = 50, 0.01


def main() -> None:
    """Runs the server until it ends, or the pipe closes; then kills what is left."""
    pipe, command = int(sys.argv[1]), sys.argv[2:]
    linux = ctypes.CDLL(None) if sys.platform == "linux" else None
    if linux:
        linux.prctl(_ADOPT, 1, 0, 0, 0)  # processes whose parent has ended become children of this one
    die_with_parent = (lambda: linux.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)) if linux else None
    try:
        server = subprocess.Popen(command, preexec_fn=die_with_parent)  # nosec B603 # the operator's
    except OSError as e:
        print(f"cannot be started: {e.strerror}", file=sys.stderr)
        sys.exit(127)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):  # the app sees the end of the server's output only if nothing else holds the pipe
        os.dup2(nothing, stream)
    threading.Thread(target=_wait_for_end, args=(pipe,), daemon=True).start()
    server.wait()
    _kill_all()


def _wait_for_end(pipe: int) -> None:
    """Kills everything when the app closes the pipe, or has ended."""
    with contextlib.suppress(OSError):
        os.read(pipe, 1)
    _kill_all()


def _kill_all() -> None:
    """Kills all processes below this one, then ends it."""
    for _ in range(_ROUNDS):
        below = _processes_below(os.getpid())
        for process in below:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        with contextlib.suppress(OSError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not below:
            break
        time.sleep(_PAUSE_S)
    os.killpg(0, signal.SIGKILL)  # this process, too, and without /proc the server


def _processes_below(process: int) -> list[int]:
    """Returns the running descendants of a process, by /proc; none without it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(folder.name))
    found, open_ = list[int](), [process]
    while open_:
        below = children.get(open_.pop(), [])
        found += below
        open_ += below
    return found


if __name__ == "__main__":
    main()
