"""Columns and a table for the costs of conversations and visitors' days."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the cost of a conversation, and the table of the costs of a day."""
    op.add_column("conversations", sa.Column("cost_usd", sa.Float))
    op.create_table(
        "costs",
        sa.Column("visitor", sa.String(64), nullable=False, index=True),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("cost_usd", sa.Float, nullable=False),
    )
