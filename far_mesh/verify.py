"""``far-mesh verify``: what a file of receipts proves, for people and for programs; it needs nothing but the file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from discovery.protocol.errors import InvalidArgument
from far_mesh.receipts_file import (
    CLIENT,
    MAX_FILE_BYTES,
    Evidence,
    Report,
    Row,
    check,
    read_receipts_file,
    receipts_file,
)


def load(path: Path) -> Report:
    """A file, checked.

    Raises:
        InvalidArgument: there is no such file.
        ReceiptInvalid: it holds no receipts of one session, or a signature in it is not good.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}", param="file") from None
    return check(read_receipts_file(data))


def check_place(path: Path) -> None:
    """Whether a file can be written there, before there is anything to write.

    Raises:
        InvalidArgument: it cannot.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InvalidArgument(f"{path} is not a place for a file", param="file")


def save(evidence: Evidence, path: Path) -> None:
    """Write a file of receipts; whoever reads it sees all of it or none.

    Raises:
        InvalidArgument: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(receipts_file(evidence))
        beside.replace(path)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error.strerror}", param="receipts") from None


def as_facts(report: Report) -> dict[str, Any]:
    """The object of ``--json``."""
    asked = report.asked
    return {
        "session_id": asked.session_id.hex(),
        "model_digest": asked.model_digest,
        "codec": asked.codec,
        "price_units": asked.price_units,
        "blocks": report.blocks,
        "positions": report.positions,
        "expected_token_layers": report.expected_token_layers,
        "verified_token_layers": report.token_layers,
        "witnessed_token_layers": report.witnessed_token_layers,
        "complete": report.is_complete,
        "nodes": [asdict(row) for row in report.rows],
    }


def table(report: Report) -> Table:
    """Who did what, and who says the same of what came in and went out."""
    shown = Table(
        title=f"Session {report.asked.session_id.hex()}", show_footer=True, title_justify="left", caption_justify="left"
    )
    shown.add_column("node", "verified")
    shown.add_column("blocks", "{}:{}".format(*report.blocks))
    shown.add_column("steps", justify="right")
    shown.add_column("token-layers", str(report.token_layers), justify="right")
    shown.add_column("by nodes", str(report.witnessed_token_layers), justify="right")
    shown.add_column("input")
    shown.add_column("output")
    for row in report.rows:
        shown.add_row(
            _short(row.peer_id),
            "{}:{}".format(*row.blocks),
            _steps(row),
            str(row.token_layers),
            str(row.witnessed_token_layers),
            _names(row.input_agrees),
            _names(row.output_agrees),
        )
    return shown


def summary(report: Report) -> str:
    """The table in words, with what is missing."""
    total, found, witnessed = report.expected_token_layers, report.token_layers, report.witnessed_token_layers
    lines = [
        f"{found} token-layers have a verified receipt, of {total} that were asked for",
        f"{witnessed} of them are confirmed by the signature of another node, whatever the client says",
    ]
    if found > witnessed:
        lines.append(f"{found - witnessed} rest on the client's own account of what it sent and received")
    lines += [f"{_short(row.peer_id)}: {row.objection}" for row in report.rows if row.objection]
    if not report.is_complete:
        lines.append(f"{total - found} token-layers are not proven")
    return "\n".join(lines)


def _steps(row: Row) -> str:
    return f"{row.first_step}:{row.steps}" if row.steps else "–"


def _names(who: Iterable[str]) -> str:
    return ", ".join(name if name == CLIENT else _short(name) for name in who) or "–"


def _short(peer_id: str) -> str:
    return f"…{peer_id[-6:]}"
