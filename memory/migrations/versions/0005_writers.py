"""The backend and the model that wrote each reply."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the backend and the model of each reply."""
    op.add_column("messages", sa.Column("backend", sa.Text))
    op.add_column("messages", sa.Column("model", sa.Text))
