"""How much of a model somebody needs."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.protocol.errors import InvalidArgument


@dataclass(frozen=True)
class Part:
    """Blocks ``[first, end)`` and, if ``ends``, embeddings, final norm and head. ``Part()`` is no weights at all:
    configuration and tokenizer. Where a part is asked for, None stands for the whole model."""

    first: int = 0
    end: int = 0
    ends: bool = False

    def check(self, block_count: int) -> None:
        """Check that a model of ``block_count`` blocks has it.

        Raises:
            InvalidArgument: it has not.
        """
        if not 0 <= self.first <= self.end <= block_count:
            raise InvalidArgument(f"blocks {self.first}:{self.end} are not within this model's 0:{block_count}")


ENDS = Part(ends=True)
"""What a client needs."""
