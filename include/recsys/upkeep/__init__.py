"""Upkeep of the state root: what may go is removed, what is in use or referred to stays."""
