"""The store of conversations, and the memory modes that select the model's input from them."""
