"""The table of exit codes is that of the commands; what ends with which is tried where the commands are."""

from __future__ import annotations

from discovery.console import EXIT_FAILED, EXIT_INTERRUPTED
from far_node.rewards_cli import EXIT_NOT_ALL_PROVEN
from tests.docs.pages import ROOT, table

USAGE = 2
"""Typer's own, for a command line that it does not understand."""


def test_every_exit_code_is_in_the_table_and_no_other() -> None:
    told = [int(row[0]) for row in table(ROOT / "docs/providers.md", "| exit code | means")]
    assert told == sorted({0, EXIT_FAILED, USAGE, EXIT_NOT_ALL_PROVEN, EXIT_INTERRUPTED})
