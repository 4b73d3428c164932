"""The whole of Far Mesh on one machine: a swarm, a chain, a gateway, a user, and a story that is paid for."""
