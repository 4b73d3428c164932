"""Everything that knows the chain: client, contracts, embedded node."""
