"""Documents that visitors have uploaded: parsing files into passages, and a full-text index of them."""
