"""The images of a message."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Adds the references to images to messages."""
    op.add_column("messages", sa.Column("images", sa.JSON(none_as_null=True)))
