"""How a list is made: from a model, the shop's catalogue, and what the shop asks for."""
