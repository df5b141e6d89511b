"""Liveness checks of a local model's process: one that is there and does not answer is killed, so that it is started
again like one that has died.
"""

import http.client
import logging
import subprocess
import threading
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

_EVERY_S = 5.0
_TIMEOUT_S = 5.0
_MISSES = 2
"""Checks in a row without an answer, after which the process is killed."""


class Watchdog(threading.Thread):
    """Asks the process's `/health` (llama.cpp, tools/server/README.md) every few seconds, in a thread of its own.

    llama.cpp answers it while it reads and writes, from other threads than the model's.
    """

    def __init__(self, name: str, address: str, process: "subprocess.Popen[str]") -> None:
        super().__init__(name=f"watchdog of {name}", daemon=True)
        self.answers = True
        """Whether the last check had an answer."""
        self._backend, self._process, self._where = name, process, urlsplit(address)
        self._ended = threading.Event()

    def stop(self) -> None:
        """Ends the checks; returns at once."""
        self._ended.set()

    def run(self) -> None:
        misses = 0
        while not self._ended.wait(_EVERY_S) and self._process.poll() is None:
            self.answers = self._check()
            misses = 0 if self.answers else misses + 1
            if misses >= _MISSES and not self._ended.is_set():
                logger.warning("the process of %r does not answer and is killed", self._backend)
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
