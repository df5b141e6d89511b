"""The tables from before there were migrations, whatever of them is there."""

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
"""Columns that came one by one; all may be null."""


def upgrade() -> None:
    there = sa.inspect(op.get_bind())
    for table, columns in _LATER.items():
        known = {column["name"] for column in there.get_columns(table)}
        for column in columns:
            if column.name not in known:
                op.add_column(table, column)
