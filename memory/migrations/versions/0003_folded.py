"""Titles and messages in the form in which they are searched; what is null is filled in while the app runs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for table in ("conversations", "messages"):
        op.add_column(table, sa.Column("folded", sa.Text))
