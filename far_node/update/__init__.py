"""How a node gets a newer version: found, checked, tried beside the old one, kept or taken back."""

from __future__ import annotations
