"""Every command in the documents is one that the programs understand."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import discovery.cli
import far_mesh.cli
import far_node.cli
from tests.docs.pages import PAGES, ROOT, bare, commands, inline_commands, name_of, table

PROGRAMS: dict[str, Any] = {
    name: typer.main.get_command(app)
    for name, app in (
        ("far-discovery", discovery.cli.app),
        ("far-node", far_node.cli.app),
        ("far-mesh", far_mesh.cli.app),
    )
}
PAGES_WITH_COMMANDS = [page for page in PAGES if commands(page)]


NEEDED = ("--model", "--wallet", "--initial-peers")
"""Flags of start that have no default, where neither a variable nor a file says something."""


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, in a group or not, and the words after it."""
    command, rest = PROGRAMS[words[0]], words[1:]
    while hasattr(command, "commands"):
        if command.invoke_without_command and (not rest or rest[0].startswith("-")):
            break
        assert rest, f"{' '.join(words)} is a group of commands"
        assert rest[0] in command.commands, f"{words[0]} has no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def check_our_command(words: list[str]) -> None:
    command, arguments = find_command(words)
    command.make_context(command.name, arguments)  # parses only; raises when it does not understand


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words[1:]:
        variable, given, _ = word.partition("=")
        pattern = rf"\$\((if \$\()?{variable}\b" if given else rf"^{word}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile does not know {word}"


def check_npm(words: list[str]) -> None:
    scripts = json.loads((ROOT / "package.json").read_text())["scripts"]
    name = words[2] if words[1] == "run" else words[1]
    assert name in scripts or name in ("ci", "install"), f"package.json has no script {name}"


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=name_of)
def test_commands_are_understood(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line, comments=True)
        checks = {"make": check_make, "npm": check_npm}
        try:
            checks.get(words[0], check_our_command)(words)
        except Exception as error:
            pytest.fail(f"{name_of(page)}: {line}\n{error}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_shortened_commands_name_real_options(page: Path) -> None:
    for code in inline_commands(page):
        if code.split()[0] not in PROGRAMS:
            continue
        command, arguments = find_command(code.split())
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= known, f"{name_of(page)}: {code}"


def test_the_table_of_flags_is_that_of_far_node_start() -> None:
    documented = {bare(row[0]): row[1] for row in table(ROOT / "docs/providers.md", "| flag | default")}
    parameters = {parameter.opts[0]: parameter for parameter in PROGRAMS["far-node"].commands["start"].params}
    assert list(documented) == list(parameters)
    for flag, parameter in parameters.items():
        said, default = documented[flag], parameter.default
        if flag in NEEDED:
            assert said.startswith("needed"), flag
        elif default is False:
            assert said == "off", flag
        elif default:
            assert said == str(default[0] if isinstance(default, list) else default), flag
        else:
            assert said not in ("needed", "off", ""), flag
