"""Double-entry books in integers of 1e-9 FAR."""
