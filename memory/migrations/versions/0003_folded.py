"""Titles and messages in the form that is searched; the running app fills in older rows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the folded texts."""
    for table in ("conversations", "messages"):
        op.add_column(table, sa.Column("folded", sa.Text))
