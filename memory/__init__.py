"""What a conversation keeps (the store), and what the model is given of it (the modes)."""
