"""Who is served how: the table of tiers, which account is in which, and what premium's promise is worth."""
