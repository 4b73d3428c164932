"""``far-mesh bench``: what a swarm does for a client, measured from outside: latency, throughput, failover."""
