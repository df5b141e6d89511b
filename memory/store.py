"""The store: conversations, messages and the records of ended runs. An acknowledged message is on disk."""

from memory.conversations import Conversations
from memory.message_tree import MessageTree
from memory.run_records import RunRecords
from memory.turn_writes import TurnWrites


class Store(Conversations, MessageTree, TurnWrites, RunRecords):
    """Everything that is kept in the database. Open it on the loop that uses it; every method may raise ChatError."""
