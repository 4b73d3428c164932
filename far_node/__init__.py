"""A server of quantised transformer blocks."""

from __future__ import annotations
