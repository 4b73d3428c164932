"""The nodes of the swarm as the marketplace knows them: who announces what now, and who was seen when."""
