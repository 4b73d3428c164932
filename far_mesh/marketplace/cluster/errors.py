"""What can go wrong here, as a member of the one error family."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class NoRemoteControl(FarError):
    """Nodes take no orders from a marketplace: what they serve is decided by their owners, at the machine."""

    code = "no_remote_control"
    status = 409
