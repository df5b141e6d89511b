"""The model that a conversation used last."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the model of a conversation."""
    op.add_column("conversations", sa.Column("model", sa.Text))
