"""How peers know of one another: shared words, the DHT notice board, the p2p transport."""

from __future__ import annotations

__version__ = "0.1.0"
