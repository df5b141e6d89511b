"""The option whether the model thinks."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds the option to conversations."""
    op.add_column("conversations", sa.Column("thinking", sa.Boolean))
