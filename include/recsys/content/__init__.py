"""Product text: its normal form, its embeddings, and search in them."""
