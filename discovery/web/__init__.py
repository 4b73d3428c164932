"""What doors over HTTP share: whose request it is, how often it may be made, and what is said when it is refused."""
