"""One file with everything of a state root that cannot be made again, and the way back."""
