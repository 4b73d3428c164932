"""The names of the tiers. Command lines need them, and little else: this imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum


class TierName(StrEnum):
    """The tiers, the lowest first. An account may use its own and those below."""

    STANDARD = "standard"
    PREMIUM = "premium"
    ENTERPRISE = "enterprise"
