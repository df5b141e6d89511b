"""Documents and images that visitors have uploaded: parsing documents into passages, an index of them, and files."""
