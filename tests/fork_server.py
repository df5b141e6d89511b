"""A process that has imported the app and forks a copy of itself for each start: the imports take seconds.

`start_app` has the parameters of `subprocess.Popen` that tests use, and returns what they use of a Popen. What depends
on the environment at the time of the imports (proxies, a Space) needs a real start.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import psutil

ROOT = Path(__file__).parent.parent


class ForkedProcess:
    """A forked app, with the methods of a Popen."""

    def __init__(self, pid: int, ended: IO[bytes]) -> None:
        """The fork server writes the exit code to the pipe `ended`."""
        self.pid = pid
        self._ended = ended
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        return self._code_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code. Raises TimeoutExpired."""
        code = self._code_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("app.py", timeout or 0)
        return code

    def _code_within(self, timeout: float | None) -> int | None:
        if self._code is None:
            waiting = select.poll()
            waiting.register(self._ended, select.POLLIN)
            if waiting.poll(None if timeout is None else timeout * 1000):
                if not (line := self._ended.readline()):
                    raise EOFError("the fork server has ended")
                self._code = int(line)
                self._ended.close()
        return self._code

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError if the process has ended."""
        if self.poll() is not None:
            raise ProcessLookupError
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
    reading, writing = os.pipe()
    files = [stdout.fileno(), stderr.fileno(), writing]
    socket.send_fds(control, [json.dumps(request).encode() + b"\n"], files)
    os.close(writing)
    return ForkedProcess(int(_line(control)), os.fdopen(reading, "rb", buffering=0))


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

    pipes: dict[int, int] = {}

    def report_ended(*_: object) -> None:
        """Writes the exit code of each app that has ended to its pipe."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pipe = pipes.pop(ended[0])
                with suppress(BrokenPipeError):
                    os.write(pipe, b"%d\n" % os.waitstatus_to_exitcode(ended[1]))
                os.close(pipe)

    signal.signal(signal.SIGCHLD, report_ended)
    while True:
        data, files, _, _ = socket.recv_fds(control, 65536, 3)
        if not data:  # the tests have ended, however that happened
            for child in psutil.Process().children():
                child.kill()
            return
        if not data.endswith(b"\n"):
            data += _line(control)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # until its pipe is known
        if pid := os.fork():
            *files, pipes[pid] = files
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            for file in files:
                os.close(file)
            control.sendall(b"%d\n" % pid)
        else:
            control.close()
            for pipe in (files.pop(), *pipes.values()):
                os.close(pipe)
            _become(app, files, **json.loads(data))


def _become(app: Any, files: Sequence[int], arguments: list[str], environment: dict[str, str], session: bool) -> None:
    """Runs the app in this process. Raises SystemExit at its end."""
    from hosting.output import nonblocking_output

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
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
