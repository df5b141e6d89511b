"""The watchdog of a local model's process: it kills a process that hangs, which is then restarted like a dead one."""

import http.client
import logging
import subprocess
import threading
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

_EVERY_S = 5.0
_TIMEOUT_S = 5.0
_MISSES = 2
"""The number of failed checks in a row after which the process is killed."""


class Watchdog(threading.Thread):
    """A thread that requests the process's `/health` (llama.cpp, tools/server/README.md) every few seconds.

    llama.cpp answers it while the model runs, from another thread.
    """

    def __init__(self, name: str, address: str, process: "subprocess.Popen[str]") -> None:
        super().__init__(name=f"watchdog of {name}", daemon=True)
        self.responds = True
        """False if the last check failed."""
        self._backend, self._process, self._where = name, process, urlsplit(address)
        self._ended = threading.Event()

    def stop(self) -> None:
        """Ends the checks; returns at once."""
        self._ended.set()

    def run(self) -> None:
        """Checks until `stop` or the end of the process."""
        misses = 0
        while not self._ended.wait(_EVERY_S) and self._process.poll() is None:
            self.responds = self._check()
            misses = 0 if self.responds else misses + 1
            if misses >= _MISSES and not self._ended.is_set():
                logger.warning("the process of %r does not respond and is killed", self._backend)
                self._process.kill()

    def _check(self) -> bool:
        connection = http.client.HTTPConnection(self._where.hostname or "", self._where.port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
