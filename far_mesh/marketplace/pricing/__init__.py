"""What a token costs: settings, the database, how busy the swarm is, and quotes that are kept."""
