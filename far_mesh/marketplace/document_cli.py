"""``far-mesh openapi``: the document of the interface, without a marketplace that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from discovery.console import EXIT_FAILED


def openapi(
    output: Annotated[Path | None, typer.Option(help="Write it into this file instead of printing it.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Compare with this file instead; exit code 1 when it is not up to date.")
    ] = None,
) -> None:
    """The document (OpenAPI 3.1) of everything a marketplace serves, the same in every run."""
    text = document_text()
    if check is not None:
        if not check.is_file() or check.read_text(encoding="utf-8") != text:
            typer.echo(f"differs from what a marketplace serves: {check} (make generate writes it anew)", err=True)
            raise typer.Exit(EXIT_FAILED)
        return
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def document_text() -> str:
    """The document as the SDKs keep it: keys in the order of the routes, two spaces, a newline at the end."""
    from far_mesh.marketplace.app import faces  # takes seconds: not for every command

    return json.dumps(faces(None, has_escrow=True).openapi(), indent=2, ensure_ascii=False) + "\n"
