"""What docs/models-and-weights.md says of commands, settings, paths and errors is what there is."""

from __future__ import annotations

import re

import discovery.registry.errors
import far_node.cli
import far_node.models.errors
from discovery.protocol.errors import FarError, InvalidArgument
from discovery.registry.app import create_app
from discovery.registry.files import UNSAFE_SUFFIXES
from far_node.models.store import DEFAULT_DIRECTORY
from tests.docs.pages import ROOT, bare, table
from tests.docs.test_commands import PROGRAMS
from tests.docs.test_errors import family

PAGE = ROOT / "docs" / "models-and-weights.md"


def test_every_command_is_told_of_and_no_other() -> None:
    told = {bare(row[0]).split()[0] for row in table(PAGE, "| command | does")}
    assert told == set(PROGRAMS["far-node"].commands["models"].commands)
    assert far_node.cli.app.registered_groups


def test_the_default_directory() -> None:
    settings = {bare(row[0]): bare(row[1]) for row in table(PAGE, "| setting | default")}
    assert settings == {"FAR_MODELS_DIR": str(DEFAULT_DIRECTORY), "FAR_MODELS_MAX_SIZE": "no limit"}


def test_every_path_of_the_registry_is_told_of() -> None:
    told = {bare(row[0]) for row in table(PAGE, "| path | gives")}
    paths = create_app({}).openapi()["paths"]
    there = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert told == {path.replace("{model_id}", "{id}") for path in there}


def test_formats_that_are_said_to_be_refused_are() -> None:
    (line,) = re.findall(r"as weights\. (.*?) and the like", PAGE.read_text())
    assert {bare(name) for name in line.split(", ")} <= UNSAFE_SUFFIXES


def test_every_error_code_exists_and_none_is_missing() -> None:
    codes = {kind.code for kind in family()}
    told = {bare(row[0]) for row in table(PAGE, "| code | what happened")}
    own = {kind.code for kind in family() if kind.__module__ == far_node.models.errors.__name__}
    assert own <= told <= codes


def test_the_errors_of_the_registry() -> None:
    told = {bare(row[0]): int(row[1]) for row in table(PAGE, "| code | status | meaning")}
    own: list[type[FarError]] = [kind for kind in family() if kind.__module__ == discovery.registry.errors.__name__]
    own.append(InvalidArgument)
    assert told == {kind.code: kind.status for kind in own}
