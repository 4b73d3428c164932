"""Why there is no update."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class NotUpdatable(FarError):
    """This program is not where the installer puts it, so nothing here may replace it."""

    code = "not_updatable"
    status = 409


class UpdateFailed(FarError):
    """The newer version could not be looked for, downloaded or installed. Nothing has changed; later it may succeed."""

    code = "update_failed"
    retry = True
    status = 503


class UpdateRefused(FarError):
    """What is offered is not what its publisher signed, or does not work. Nothing has changed."""

    code = "update_refused"
    status = 409
