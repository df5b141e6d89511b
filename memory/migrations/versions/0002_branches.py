"""Branches (each message has a parent), summaries, and the parameters of the memory modes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds branches, summaries and the parameters of the memory modes."""
    op.add_column("conversations", sa.Column("head", sa.String(32)))
    for name in ("window_turns", "token_limit", "summary_tokens", "recall_turns"):
        op.add_column("conversations", sa.Column(name, sa.Integer))
    op.drop_index("ix_conversations_owner", "conversations")
    op.create_index("conversations_of_owner", "conversations", ["owner", "updated"])
    op.create_index("ix_conversations_updated", "conversations", ["updated"])
    op.add_column("messages", sa.Column("parent_id", sa.String(32)))
    _join()
    op.create_index("messages_of_parent", "messages", ["conversation_id", "parent_id"])
    op.create_index("messages_growing", "messages", ["standing"])
    op.create_table(
        "summaries",
        sa.Column("message_id", sa.String(32), primary_key=True),
        sa.Column(
            "conversation_id",
            sa.String(32),
            sa.ForeignKey("conversations.id", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("backend", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )


def _join() -> None:
    """Makes each message the child of the one before it, and the last one the head: there were no branches."""
    op.execute(
        "UPDATE messages SET parent_id = (SELECT before.id FROM messages AS before "
        "WHERE before.conversation_id = messages.conversation_id AND before.place < messages.place "
        "ORDER BY before.place DESC LIMIT 1)"
    )
    op.execute(
        "UPDATE conversations SET head = (SELECT last.id FROM messages AS last "
        "WHERE last.conversation_id = conversations.id ORDER BY last.place DESC LIMIT 1)"
    )
