"""How peers know of one another: shared words, the DHT notice board, the p2p transport."""

from __future__ import annotations

from discovery.recursion import import_what_lifts_the_limit

__version__ = "0.1.0"

import_what_lifts_the_limit()
