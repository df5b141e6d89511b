"""Ports for servers that are started with a port number."""

import random
import socket

_PORTS = range(20_000, 32_000)
"""Ports below those that the system assigns, from 32768 (Linux) or 49152, so that it assigns none of them meanwhile."""
_TRIES = 50


def free_port() -> int:
    """Returns a port of 127.0.0.1 on which nothing listens. Raises OSError if there is none."""
    for port in random.sample(_PORTS, _TRIES):
        with socket.socket() as listening:
            try:
                listening.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port from {_PORTS.start} to {_PORTS.stop} is free at 127.0.0.1")
