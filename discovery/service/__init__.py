"""The discovery service: a window over HTTP on what nodes have signed. It mirrors, and invents nothing."""
