"""The tables. Ids are unguessable; `owner` is a visitor's id, or null for what whoever has the id may use.

`backend`, `memory` and the tuning are the ones that the conversation used last.
"""

from sqlalchemy import JSON, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(64), index=True),
    Column("title", Text, nullable=False, default=""),
    Column("backend", Text),
    Column("memory", Text),
    Column("system_prompt", Text),
    Column("temperature", Float),
    Column("max_tokens", Integer),
    Column("tools", JSON(none_as_null=True)),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("place", Integer, nullable=False),
    Column("role", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("standing", String(16), nullable=False),
    Column("run_id", String(32)),
    Column("note", Text),
    Column("parts", JSON(none_as_null=True)),
    Column("created", Float, nullable=False),
    Index("messages_in_order", "conversation_id", "place"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created", Float, nullable=False),
    Column("record", LargeBinary, nullable=False),
)
"""Ended runs; `record` is their events as JSON lines, compressed with zlib."""
