"""The option whether the visitor's documents are searched before a reply."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds the option to conversations."""
    op.add_column("conversations", sa.Column("documents", sa.Boolean))
