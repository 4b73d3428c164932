"""What can go wrong for a client of the swarm."""

from __future__ import annotations

from discovery.protocol.errors import FarError


class NoRoute(FarError):
    """No live nodes cover some blocks; ``uncovered`` in ``facts`` lists the ranges."""

    code = "no_route"
    retry = True
    status = 503


class ContextLengthExceeded(FarError):
    """The prompt, with the tokens asked for, is longer than the model's context."""

    code = "context_length_exceeded"
    status = 400


class NotADraw(FarError):
    """The model's logits are not numbers that a token can be drawn from: some node answered nonsense."""

    code = "invalid_logits"
    status = 502


class DraftUnfit(FarError):
    """The model that is to guess for another has other tokens, or cannot go back to an earlier position."""

    code = "draft_unfit"
    status = 400
