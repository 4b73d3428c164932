"""What several commands of ``far-node`` take, and how they ask the node that runs on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from discovery.console import Console, fail

NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Which of several nodes on this machine; default: FAR_NODE_NAME, the one without."),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="File of settings; default: FAR_NODE_CONFIG, ~/.far/config.toml.")
]
IdentityOption = Annotated[
    Path | None,
    typer.Option(help="Key file of the node that is meant; default: that of its settings, ~/.far/identity."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]

ANSWER_SECONDS = 10.0


def identity_of(console: Console, identity: Path | None, name: str | None) -> Path:
    """The key file of the node that is meant; what keeps it from being found is told, with exit code 1."""
    from discovery.protocol.errors import FarError
    from far_node.settings import Place, find_identity

    try:
        return find_identity(Place.of(name), identity)
    except FarError as error:
        fail(console, error)


def ask_node(
    console: Console, identity: Path, command: str, arguments: Mapping[str, Any] = {}, **more: Any
) -> dict[str, Any]:
    """What the running node answers; a refusal is told, with exit code 1."""
    from discovery.protocol.errors import FarError
    from far_node.control import ask, control_path

    try:
        return ask(control_path(identity), command, arguments, **more)
    except FarError as error:
        fail(console, error)
