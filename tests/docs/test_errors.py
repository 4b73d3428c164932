"""The table of errors is the family of errors."""

from __future__ import annotations

from collections.abc import Iterator

import far_mesh.errors
import far_node.errors
import far_node.models.errors
from discovery.protocol.errors import FarError
from tests.docs.pages import ROOT, bare, table

ROOMS = {
    "discovery.protocol.errors",
    far_node.errors.__name__,
    far_node.models.errors.__name__,
    far_mesh.errors.__name__,
}


def family(kind: type[FarError] = FarError) -> Iterator[type[FarError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


def test_the_table_of_errors_is_that_of_the_client_side() -> None:
    rows = table(ROOT / "docs/developers.md", "| code | retry | status")
    documented = {bare(code): (retry, status) for code, retry, status, _ in rows}
    registered = {
        kind.code: ("yes" if kind.retry else "no", str(kind.status)) for kind in family() if kind.__module__ in ROOMS
    }
    assert documented == registered
    assert len(rows) == len(documented)
