"""What a benchmark found: one JSON object, and a table of it. Pure but for the facts of this machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from discovery import __version__
from discovery.protocol.errors import InvalidArgument
from far_mesh.bench.figures import Facts
from far_mesh.client import Mesh


async def whole(kind: str, mesh: Mesh, figures: Facts) -> Facts:
    """Figures, with what they were measured on."""
    announced = [signed.announcement for signed in await mesh.nodes()]
    return {
        "benchmark": kind,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": mesh.model_id,
        "model_digest": mesh.model_digest,
        "blocks": mesh.block_count,
        "nodes": [
            {"peer_id": node.peer_id, "blocks": node.blocks, "quantization": node.quantization, "dtype": node.dtype}
            for node in sorted(announced, key=lambda node: (node.blocks, node.peer_id))
        ],
        "client": {
            "software": f"far-mesh/{__version__}",
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        },
    } | figures


def write(result: Facts, path: Path) -> None:
    """The object as a file.

    Raises:
        InvalidArgument: it cannot be written.
    """
    try:
        path.write_text(json.dumps(result, indent=1) + "\n")
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error.strerror}", param="out") from None


def latency_table(result: Facts) -> Table:
    """One line for each length of prompt."""
    shown = _table(
        f"Latency of {result['model']}, in milliseconds",
        ("prompt", "first token", "opening", "token p50", "p95", "p99", "tokens/s"),
    )
    for one in result["prompts"]:
        gaps = one["time_per_token_ms"]
        shown.add_row(
            str(one["prompt_tokens"]),
            _cell(one["time_to_first_token_ms"], "p50"),
            _cell(one["opening_ms"], "p50"),
            *(_cell(gaps, name) for name in ("p50", "p95", "p99")),
            _number(one["tokens_per_second"]),
        )
    return shown


def throughput_table(result: Facts) -> Table:
    """One line for each number of streams."""
    shown = _table(
        f"Throughput of {result['model']}",
        ("streams", "tokens/s", "times the first", "each", "first token ms", "failed"),
    )
    for one in result["streams"]:
        failed = ", ".join(f"{count} {code}" for code, count in one["failed"].items())
        shown.add_row(
            str(one["streams"]),
            _number(one["tokens_per_second"]),
            _number(one["times_the_first"]),
            _number(one["tokens_per_second_each"]),
            _cell(one["time_to_first_token_ms"], "p50"),
            failed or "–",
        )
    return shown


def failover_table(result: Facts) -> Table:
    """One line for each round."""
    shown = _table(
        f"Nodes of {result['model']} killed, in milliseconds",
        ("lost", "blocks", "at token", "pause", "mending", "text"),
    )
    for one in result["rounds"]:
        peer, blocks = one.get("peer_id"), one.get("blocks")
        shown.add_row(
            f"…{peer[-6:]}" if peer else "–",
            "{}:{}".format(*blocks) if blocks else "–",
            str(one.get("at_token", "–")),
            _number(one.get("pause_ms")),
            ", ".join(_number(taken) for taken in one.get("mending_ms", ())) or "–",
            one["outcome"],
        )
    return shown


def failover_summary(result: Facts) -> str:
    """In one sentence."""
    pause, usual, same = result["pause_ms"], result["time_per_token_ms"], result["same_text"] or 0.0
    waits = f"; the pause is {pause['p50']:.0f} ms at the median, {pause['max']:.0f} ms at most" if pause else ""
    token = f", a token else {usual['p50']:.1f} ms" if pause and usual else ""
    return f"{100 * same:.0f} % of {len(result['rounds'])} answers came out as without a loss{waits}{token}"


def _table(title: str, columns: Iterable[str]) -> Table:
    shown = Table(title=title, title_justify="left")
    for column in columns:
        shown.add_column(column, justify="right")
    return shown


def _cell(spread: dict[str, Any] | None, name: str) -> str:
    return _number(spread[name]) if spread else "–"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
