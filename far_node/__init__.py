"""A server of quantised transformer blocks."""

from __future__ import annotations

import discovery as discovery  # before any library of wallets: see discovery.recursion
