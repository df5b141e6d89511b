"""A process that has imported the app and forks a copy of itself for each start: the imports take seconds.

`start_app` has the parameters of `subprocess.Popen` that tests use, and returns what they use of a Popen. What depends
on the environment at the time of the imports (proxies, a Space) needs a real start.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

import psutil

ROOT = Path(__file__).parent.parent


class ForkedProcess:
    """A forked app, with the methods of a Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process = psutil.Process(pid)

    def poll(self) -> int | None:
        """None while the process runs. The exit code is unknown, because the process is no child of the tests."""
        return None if self._process.is_running() else 0

    def wait(self, timeout: float | None = None) -> None:
        """Raises TimeoutExpired."""
        try:
            self._process.wait(timeout)
        except psutil.TimeoutExpired:
            raise subprocess.TimeoutExpired("app.py", timeout or 0) from None

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError if the process has ended."""
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_app(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    stdout: IO[Any],
    stderr: IO[Any],
    start_new_session: bool = False,
) -> ForkedProcess:
    """Starts `python app.py ARGUMENTS`."""
    request = {"arguments": command[2:], "environment": dict(env), "session": start_new_session}
    control = _control()
    socket.send_fds(control, [json.dumps(request).encode() + b"\n"], [stdout.fileno(), stderr.fileno()])
    return ForkedProcess(int(_line(control)))


@cache
def _control() -> socket.socket:
    """The connection to the fork server, which is started with the first app and ends with this process."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())]
    process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


def _line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        if not (more := connection.recv(65536)):
            raise EOFError("the fork server has ended")
        data += more
    return data


def _serve(control: socket.socket) -> None:
    import app

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended apps are reaped by the system
    while True:
        data, files, _, _ = socket.recv_fds(control, 65536, 2)
        if not data:  # the tests have ended, however that happened
            for child in psutil.Process().children():
                child.kill()
            return
        if not data.endswith(b"\n"):
            data += _line(control)
        if pid := os.fork():
            for file in files:
                os.close(file)
            control.sendall(b"%d\n" % pid)
        else:
            control.close()
            _become(app, files, **json.loads(data))


def _become(app: Any, files: Sequence[int], arguments: list[str], environment: dict[str, str], session: bool) -> None:
    """Runs the app in this process. Raises SystemExit at its end."""
    from hosting.output import nonblocking_output

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if session:
        os.setsid()
    for file, target in zip(files, (1, 2), strict=True):
        os.dup2(file, target)
        os.close(file)
    for known in (os.environ, app.ENVIRON):
        known.clear()
        known.update(environment)
    with nonblocking_output():
        sys.exit(app.main(arguments))


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
