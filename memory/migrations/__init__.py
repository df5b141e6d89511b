"""The database's versions, as Alembic knows them. A new one: a file in `versions/`, and its number as `HEAD`.

Alembic takes as long to import as the rest of a start, so it is only imported for a database that is behind; a new one
gets its tables at once, with the newest number.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from memory.tables import metadata

HEAD = "0005"
"""The newest version."""
_VERSION = "alembic_version"
_LOCK = 7309453


def migrate(db: Connection) -> None:
    """Brings a database to the newest version, within the transaction that is open; two processes take turns.

    One of a later version is left as it is: what it has more is not looked at.
    """
    if db.dialect.name == "sqlite":
        if version(db) == HEAD:
            return  # also one that can only be read
        db.exec_driver_sql("BEGIN IMMEDIATE")  # the driver would begin with the first row, not with the first table
    else:
        db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    found = version(db)
    if found is None and not inspect(db).has_table("conversations"):
        metadata.create_all(db)
        db.execute(text(f"CREATE TABLE {_VERSION} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        db.execute(text(f"INSERT INTO {_VERSION} VALUES (:head)"), {"head": HEAD})  # nosec B608 # a name of ours
    elif found is None or found < HEAD:
        _upgrade(db)


def version(db: Connection) -> str | None:
    """The version that the database says it has; None for a new one, and for one from before there were any."""
    if not inspect(db).has_table(_VERSION):
        return None
    found = db.execute(text(f"SELECT version_num FROM {_VERSION}")).scalar_one_or_none()  # nosec B608 # a name of ours
    return None if found is None else str(found)


def _upgrade(db: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": db})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    command.upgrade(config, HEAD)
