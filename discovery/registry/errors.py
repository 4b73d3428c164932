"""What the layer registry refuses, and why."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class ModelNotServed(FarError):
    """This registry has no such model, or the model has no such file."""

    code = "model_not_served"
    status = 404


class ModelNotPrepared(FarError):
    """The model's files are still being read, or cannot be used; ``GET /models/status`` says which."""

    code = "model_not_prepared"
    retry = True
    status = 503


class OperatorOnly(FarError):
    """Not without the operator's token."""

    code = "operator_only"
    status = 403
