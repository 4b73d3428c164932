"""The edge to the peer-to-peer world: identity files, streams, the DHT notice board."""
