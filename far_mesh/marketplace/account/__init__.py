"""A user's prepaid balance, fed by what the chain says."""
