"""What benchmarks share: an emulated wide-area network, and a swarm on it."""
