"""The tables of docs/quantization.md are the figures that the benchmark kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "quantization.md"
KEPT: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "quantization.json").read_text())
REPORT: dict[str, Any] = KEPT["results"]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bundled() -> str:
    """Memory and perplexity."""
    kinds = REPORT["bundled"]["kinds"]
    return _table(
        ("kind", "KiB per block", "stories", "answers"),
        (
            (
                name,
                f"{found['bytes_per_block'] / 1024:.0f}",
                *(
                    f"{value:.4f} ({found['worse_percent'][what]:+.2f} %)"
                    for what, value in found["perplexity"].items()
                ),
            )
            for name, found in kinds.items()
        ),
    )


def speed(part: str, figure: str) -> str:
    """Decode steps by rows, or prefills by positions."""
    measured = REPORT["speed"][part]
    names = list(next(iter(measured.values()))["ms"])

    def cell(name: str, one: dict[str, Any]) -> str:
        return f"{one['ms'][name]:.1f}" if figure == "ms" else f"{one[figure][name]['median']:.1f}"

    head = (
        "kind",
        *(
            f"{size} {'session' if size == '1' else 'sessions'}" if part == "decode" else f"{size} positions"
            for size in measured
        ),
    )
    return _table(head, ((name, *(cell(name, one) for one in measured.values())) for name in names))


@pytest.mark.parametrize(
    "table",
    [
        bundled(),
        speed("decode", "times_as_fast_as_float32"),
        speed("decode", "ms"),
        speed("prefill", "times_as_fast_as_float32"),
    ],
    ids=["bundled", "decode", "milliseconds", "prefill"],
)
def test_the_tables_are_those_of_the_benchmark(table: str) -> None:
    assert table in PAGE.read_text()


def test_the_command_is_that_of_the_figures() -> None:
    assert KEPT["command"] in PAGE.read_text()


def test_what_the_page_promises_was_measured() -> None:
    kinds, decode = REPORT["bundled"]["kinds"], REPORT["speed"]["decode"]
    assert all(worse < 2 for worse in kinds["int8"]["worse_percent"].values())
    held = REPORT["speed"]["bytes_of_two_blocks"]
    assert held["int8"] <= 0.55 * held["bfloat16"]
    assert decode["1"]["times_as_fast_as_bfloat16"]["int8"]["median"] >= 1.3
    assert decode["8"]["times_as_fast_as_float32"]["int8"]["median"] >= 1.8
