"""Why the machine cannot be told to start a node."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class ServiceUnavailable(FarError):
    """There is no service manager here, or it refused."""

    code = "service_unavailable"
    status = 409
