"""A port for a server that is started by its number."""

import random
import socket

_PORTS = range(20_000, 32_000)
"""Below those that a system gives out by itself, from 32768 (Linux) or 49152: between the choice and the server's start
nothing that asks for just any port can be given this one."""
_TRIES = 50


def free_port() -> int:
    """One on which nothing listens at 127.0.0.1. Raises OSError where there is none."""
    for port in random.sample(_PORTS, _TRIES):
        with socket.socket() as listening:
            try:
                listening.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port from {_PORTS.start} to {_PORTS.stop} is free at 127.0.0.1")
