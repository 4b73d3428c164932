"""What the discovery service refuses, beside what every door does."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class MirrorFull(FarError):
    """As many announcements are kept as may be: of all nodes, or of one."""

    code = "mirror_full"
    retry = True
    status = 503


class ProberUnknown(FarError):
    """A report of somebody whom the operator has not named as a prober."""

    code = "prober_unknown"
    status = 403
