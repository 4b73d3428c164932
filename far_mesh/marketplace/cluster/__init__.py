"""What operators see of the whole, and what they can tell it: which is little, for nodes belong to their owners."""
