"""The tables. Ids are unguessable; `owner` is a visitor's id, or null if everyone with the id has access.

`backend`, `memory` and the options are the ones that the conversation used last. A change here needs a migration, too.
"""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from memory.options import PARAMETERS

metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(64)),
    Column("title", Text, nullable=False, default=""),
    Column("folded", Text),
    Column("head", String(32)),
    Column("backend", Text),
    Column("memory", Text),
    Column("system_prompt", Text),
    Column("temperature", Float),
    Column("max_tokens", Integer),
    Column("thinking", Boolean),
    Column("tools", JSON(none_as_null=True)),
    Column("documents", Boolean),
    *(Column(name, Integer) for name in PARAMETERS),
    Column("mode_options", JSON(none_as_null=True)),
    Column("model", Text),
    Column("cost_usd", Float),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False, index=True),
    Index("conversations_of_owner", "owner", "updated"),
)
"""`head` is the last message of the current branch, null without messages. `folded` is the title in the form that is
searched (`memory/folded_text.py`), null in rows of an earlier version; likewise in `messages`. `cost_usd` is the
cost of all its runs and summaries, null where none had a price.
"""

messages = Table(
    "messages",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", String(32)),
    Column("place", Integer, nullable=False),
    Column("role", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("folded", Text),
    Column("standing", String(16), nullable=False),
    Column("run_id", String(32)),
    Column("note", Text),
    Column("parts", JSON(none_as_null=True)),
    Column("images", JSON(none_as_null=True)),
    Column("backend", Text),
    Column("model", Text),
    Column("created", Float, nullable=False),
    Index("messages_in_order", "conversation_id", "place"),
    Index("messages_of_parent", "conversation_id", "parent_id"),
    Index("messages_growing", "standing"),
)
"""A tree: `parent_id` is the previous message, null for a first one; `place` is the depth, from 1.

`backend` and `model` wrote a reply; they are null in other messages and in rows of an earlier version. `images` refers
to files (`documents/images.py`).
"""

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created", Float, nullable=False),
    Column("record", LargeBinary, nullable=False),
)
"""Ended runs; `record` is their events as JSON lines, compressed with zlib."""

summaries = Table(
    "summaries",
    metadata,
    Column("message_id", String(32), primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("created", Float, nullable=False),
)
"""Summaries of a branch up to and including `message_id`."""

costs = Table(
    "costs",
    metadata,
    Column("visitor", String(64), nullable=False, index=True),
    Column("day", Integer, nullable=False),
    Column("cost_usd", Float, nullable=False),
)
"""The costs of a visitor's runs and summaries of the day (days since 1970, UTC); those of earlier days are deleted."""
