"""How much may be asked for in a minute: per account, per API key, per address."""
