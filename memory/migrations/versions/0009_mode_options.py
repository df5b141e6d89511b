"""The options of memory modes that are not part of this project."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Adds the options to conversations."""
    op.add_column("conversations", sa.Column("mode_options", sa.JSON))
