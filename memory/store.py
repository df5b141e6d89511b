"""The store: conversations, messages, turns and the records of their runs. An acknowledged message is on disk."""

from memory.message_tree import MessageTree
from memory.stored_conversations import StoredConversations
from memory.stored_costs import StoredCosts
from memory.stored_turns import StoredTurns


class Store(StoredConversations, MessageTree, StoredTurns, StoredCosts):
    """Everything that is kept in the database. Open it on the loop that uses it; every method may raise ChatError."""
