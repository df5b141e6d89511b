"""The tables of the versions before the first migration."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_LATER = {
    "conversations": [
        sa.Column("system_prompt", sa.Text),
        sa.Column("temperature", sa.Float),
        sa.Column("max_tokens", sa.Integer),
        sa.Column("tools", sa.JSON),
    ],
    "messages": [sa.Column("parts", sa.JSON)],
}
"""Nullable columns that were added one by one."""


def upgrade() -> None:
    """Adds the columns that came before migrations, if they are missing."""
    inspector = sa.inspect(op.get_bind())
    for table, columns in _LATER.items():
        known = {column["name"] for column in inspector.get_columns(table)}
        for column in columns:
            if column.name not in known:
                op.add_column(table, column)
