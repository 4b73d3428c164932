"""A node that the machine starts: under systemd on Linux, under launchd on macOS."""

from __future__ import annotations
