"""The table of exit codes is that of the commands; what ends with which is tried where the commands are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from discovery import console
from tests.docs.pages import ROOT, table
from tests.docs.test_commands import PROGRAMS

CODES = {name: value for name, value in vars(console).items() if name.startswith("EXIT_")}
TABLE = table(ROOT / "docs/providers.md", "| exit code | means")
LEAVE = ("Exit", "exit", "SystemExit")


def test_every_exit_code_is_in_the_table_and_no_other() -> None:
    assert [int(row[0]) for row in TABLE] == sorted(CODES.values())


def test_every_command_that_finds_something_is_named_there() -> None:
    (said,) = (row[1] for row in TABLE if int(row[0]) == console.EXIT_FOUND)
    found = {words for name, program in PROGRAMS.items() for words in finders(name, program)}
    assert found >= {"far-node doctor", "far-mesh verify"}
    assert not [words for words in found if f"`{words}" not in said]


def finders(name: str, command: Any) -> Iterator[str]:
    """Commands that say of themselves, or of one of their options, that they may end with that code."""
    for sub_name, sub in getattr(command, "commands", {}).items():
        yield from finders(f"{name} {sub_name}", sub)
    texts = (command.help, *(getattr(one, "help", None) for one in command.params))
    if any(f"Exit code {console.EXIT_FOUND}" in (text or "") for text in texts):
        yield name


@pytest.mark.parametrize("package", ["discovery", "far_node", "far_mesh"])
def test_no_command_has_a_code_of_its_own(package: str) -> None:
    numbers = [f"{path.relative_to(ROOT)}:{line}" for path in (ROOT / package).rglob("*.py") for line in literals(path)]
    assert not numbers, "codes have names in discovery/console.py"


def literals(path: Path) -> Iterator[int]:
    """Lines on which a program is left with a number."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in LEAVE and isinstance(node.args[0].value, int):
                yield node.lineno
