"""JSON that strangers wrote."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json


def parsed(text: str | bytes) -> Any:
    """What it says, or None where it is no JSON.

    Not by ``json.loads``: text that is nested deep enough overflows its stack where a program has raised Python's limit
    of recursion.
    """
    try:
        return from_json(text)
    except ValueError:
        return None
