"""The way of money from the books to the chain, and the way back after a crash."""
