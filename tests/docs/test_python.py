"""The Python in the documents compiles, and what it imports, calls and reads is there."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import typer

import far_mesh.cli
from far_mesh.config import GenerationOptions, MeshConfig, Preference
from tests.docs.pages import PAGES, ROOT, Block, bare, blocks, name_of, table

OURS = ("discovery", "far_node", "far_mesh")
EXAMPLES = [block for page in PAGES for block in blocks(page, "python")]


def test_there_are_examples() -> None:
    assert {name_of(block.page) for block in EXAMPLES} >= {"docs/trying.md", "docs/developers.md", "docs/providers.md"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda block: name_of(block.page))
def test_examples_compile_and_import_what_exists(example: Block) -> None:
    tree = ast.parse(example.text)
    compile(tree, name_of(example.page), "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert importlib.util.find_spec(alias.name), alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert importlib.util.find_spec(node.module), node.module
            if node.module.split(".")[0] in OURS:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda block: name_of(block.page))
def test_examples_call_methods_and_options_that_exist(example: Block) -> None:
    tree = ast.parse(example.text)
    used: dict[str, type] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            module = importlib.import_module(node.module or "")
            used |= {alias.name: getattr(module, alias.name) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in used:
            kind = used[node.func.id]
            if dataclasses.is_dataclass(kind):
                names = {field.name for field in dataclasses.fields(kind)}
                assert {keyword.arg for keyword in node.keywords} <= names, ast.unparse(node)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in used:
            assert hasattr(used[node.value.id], node.attr), ast.unparse(node)


@pytest.mark.parametrize(
    ("kind", "first_row"), [(GenerationOptions, "`max_tokens`"), (MeshConfig, "`prefix`")], ids=lambda value: str(value)
)
def test_tables_of_options_are_those_of_the_code(kind: type[GenerationOptions | MeshConfig], first_row: str) -> None:
    documented = {bare(row[0]): row[1] for row in _table_after(ROOT / "docs/developers.md", f"`{kind.__name__}`")}
    assert documented == {field.name: _in_words(_default(field)) for field in dataclasses.fields(kind)}
    assert first_row.strip("`") == next(iter(documented))


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _in_words(default: object) -> str:
    if default is dataclasses.MISSING:
        return "needed"
    return "its own defaults" if dataclasses.is_dataclass(default) else str(default)


def test_every_preference_has_a_flag_that_both_commands_know() -> None:
    documented = {bare(row[0]): bare(row[1]) for row in table(ROOT / "docs/developers.md", "| field | flag")}
    assert list(documented) == [field.name for field in dataclasses.fields(Preference)]
    commands = typer.main.get_command(far_mesh.cli.app).commands  # type: ignore[attr-defined]
    for name in ("generate", "route"):
        flags = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(documented.values()) <= flags


def _table_after(page: Path, words: str) -> list[list[str]]:
    lines = page.read_text().splitlines()
    (start,) = (index for index, line in enumerate(lines) if line.startswith((f"{words}:", f"{words},")))
    body = lines[start + 4 :]
    rows = body[: next(index for index, line in enumerate(body) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
