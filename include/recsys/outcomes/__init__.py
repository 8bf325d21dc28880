"""What became of the served lists: events attributed to them, rates, and what the shop earned."""
