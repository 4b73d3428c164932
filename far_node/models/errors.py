"""What getting and keeping models can fail with."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class DownloadFailed(FarError):
    """A server cannot be reached or broke off. What has arrived is kept: the next try goes on from there."""

    code = "download_failed"
    retry = True
    status = 503


class NoSpace(FarError):
    """The disk is full, or the model does not fit into the size limit of the models directory."""

    code = "no_space"
    status = 507


class ModelInUse(FarError):
    """A running process uses the model, so it stays."""

    code = "model_in_use"
    status = 409
