"""Migrations of the database by Alembic. To add one, write a file in `versions/` and set `HEAD` to its number.

Importing Alembic takes as long as the rest of a start, so it is only imported to migrate an older database; a new one
gets the newest tables at once.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from memory.tables import metadata

HEAD = "0010"
"""The newest version."""
_VERSION = "alembic_version"
_LOCK = 7309453


def migrate(db: Connection) -> None:
    """Migrates a database to the newest version, within the open transaction; two processes take turns.

    A database of a later version is used as it is.
    """
    if db.dialect.name == "sqlite":
        if version(db) == HEAD:
            return  # this also works for a read-only one
        db.exec_driver_sql("BEGIN IMMEDIATE")  # the driver would begin at the first row, not at the first table
    else:
        db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    found = version(db)
    if found is None and not inspect(db).has_table("conversations"):
        metadata.create_all(db)
        db.execute(text(f"CREATE TABLE {_VERSION} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        db.execute(text(f"INSERT INTO {_VERSION} VALUES (:head)"), {"head": HEAD})  # nosec B608 # a constant
    elif found is None or found < HEAD:
        _upgrade(db)


def version(db: Connection) -> str | None:
    """The version of the database; None for a new one, and for one without versions."""
    if not inspect(db).has_table(_VERSION):
        return None
    found = db.execute(text(f"SELECT version_num FROM {_VERSION}")).scalar_one_or_none()  # nosec B608 # a constant
    return None if found is None else str(found)


def _upgrade(db: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": db})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    command.upgrade(config, HEAD)
