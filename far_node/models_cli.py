"""``far-node models``: the models on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import EXIT_INTERRUPTED, Console, fail, quiet_libraries

if TYPE_CHECKING:
    from rich.table import Table

    from far_node.models.facts import Description, ModelFacts
    from far_node.models.store import ModelStore, Record

app = typer.Typer(
    help="The models on this machine: pull, list, info, add, remove.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

NameArgument = Annotated[str, typer.Argument(help="Name of the model: name or owner/name.")]
DirectoryOption = Annotated[
    Path | None, typer.Option("--models-dir", help="Where models are kept; default: FAR_MODELS_DIR, ~/.far/models.")
]
MaxSizeOption = Annotated[
    str | None,
    typer.Option(
        "--max-size",
        help="What they may take, such as 200GB: the least recently used go; default: FAR_MODELS_MAX_SIZE.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command()
def pull(
    name: NameArgument,
    blocks: Annotated[str | None, typer.Option(help="Only these blocks, a:b with b exclusive.")] = None,
    ends: Annotated[
        bool, typer.Option("--ends", help="Only embeddings, final norm and head, or these as well as --blocks.")
    ] = False,
    registry: Annotated[str | None, typer.Option(help="Address of a layer registry; default: the hub.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the hub's repository.")] = None,
    source: Annotated[str | None, typer.Option("--from", help="What hub or registry call it, if not NAME.")] = None,
    file: Annotated[str | None, typer.Option(help="One GGUF file of the hub's repository.")] = None,
    models_dir: DirectoryOption = None,
    max_size: MaxSizeOption = None,
    json: JsonOption = False,
) -> None:
    """Download a model, or some blocks of it, from a hub or a layer registry."""
    with _command(json, models_dir, max_size) as (console, store):
        from discovery.protocol.errors import InvalidArgument
        from far_node.config import parse_blocks
        from far_node.models.hub import HubSource
        from far_node.models.part import Part
        from far_node.models.progress import shown
        from far_node.models.pull import check_gguf, pull, pull_file

        _check_new(name)
        wait = _waiting(console, name)
        if file is not None:
            if registry or blocks or ends:
                raise InvalidArgument("--file is a whole model; --registry, --blocks and --ends are not for it")
            check_gguf(file)
            found = HubSource(source or name, revision)
            request, expected = found.find_file(file)
            with shown(console) as progress:
                record = pull_file(store, name, request, expected, found.origin, on_progress=progress, on_wait=wait)
        else:
            first, end = parse_blocks(blocks) if blocks is not None else (0, 0)
            part = Part(first, end, ends) if blocks is not None or ends else None
            with shown(console) as progress:
                record = pull(
                    store,
                    name,
                    part,
                    registry=registry,
                    revision=revision,
                    model_id=source,
                    on_progress=progress,
                    on_wait=wait,
                )
        console.event("pulled", f"{record.name}: {_what_is_here(record)}, {_size(record.size_bytes)}", **_facts(record))


@app.command("list")
def list_models(models_dir: DirectoryOption = None, json: JsonOption = False) -> None:
    """Show the models that are here."""
    with _command(json, models_dir, None) as (console, store):
        records = sorted(store.records().values(), key=lambda record: record.name)
        for record in records:
            console.event("model", **_facts(record))
        used = sum(record.size_bytes for record in records)
        summary = f"{len(records)} models, {_size(used)} in {store.directory}"
        if store.max_bytes is not None:
            summary += f" of {_size(store.max_bytes)}"
        if not json:
            _print_models(records)
        console.event(
            "models",
            summary,
            count=len(records),
            used_bytes=used,
            max_bytes=store.max_bytes,
            directory=str(store.directory),
        )


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Name of a model that is here, or a model directory.")],
    models_dir: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a model is, and the memory that its blocks take in each quantization."""
    with _command(json, models_dir, None) as (console, store):
        from dataclasses import asdict

        from far_node.models.facts import describe
        from far_node.models.progress import shown

        with shown(console) as progress:
            about = describe(store, name, progress)
        if json:
            record = _facts(about.record) if about.record is not None else None
            facts = asdict(about.facts) if about.facts is not None else None
            console.event("info", name=name, digest=about.digest, record=record, **facts or {})
        else:
            _print_info(about)


@app.command()
def add(
    name: NameArgument,
    source: Annotated[str, typer.Argument(help="A model directory, a GGUF file, or the address of a GGUF file.")],
    link: Annotated[bool, typer.Option("--link", help="Leave the files where they are and only note them.")] = False,
    sha256: Annotated[str | None, typer.Option(help="SHA-256 that the GGUF file must have.")] = None,
    models_dir: DirectoryOption = None,
    max_size: MaxSizeOption = None,
    json: JsonOption = False,
) -> None:
    """Check a model that you have, and keep it under a name."""
    with _command(json, models_dir, max_size) as (console, store):
        from far_node.models.add import add
        from far_node.models.progress import shown

        _check_new(name)
        with shown(console) as progress:
            record = add(store, name, source, link=link, sha256=sha256, on_progress=progress)
        where = f"stays in {record.directory}" if record.linked else _size(record.size_bytes)
        console.event("added", f"{record.name}: {_what_is_here(record)}, {where}", **_facts(record))


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(help="Names of models that are here.")],
    models_dir: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Delete models that no running process uses. The files of a linked model stay."""
    with _command(json, models_dir, None) as (console, store):
        for name in names:
            record = store.remove(name)
            freed = f"its files stay in {record.directory}" if record.linked else f"{_size(record.size_bytes)} freed"
            console.event("removed", f"{name} is gone: {freed}", name=name, freed_bytes=record.size_bytes)


@contextmanager
def _command(json: bool, models_dir: Path | None, max_size: str | None) -> Iterator[tuple[Console, ModelStore]]:
    """What every command begins with, and how it fails."""
    from discovery.protocol.errors import FarError
    from far_node.models.store import ModelStore, parse_size

    console = Console(json)
    quiet_libraries()
    try:
        yield console, ModelStore(models_dir, parse_size(max_size) if max_size is not None else None)
    except FarError as error:
        fail(console, error)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _check_new(name: str) -> None:
    from discovery.protocol.errors import InvalidArgument
    from far_node.blocks.source import BUNDLED_MODEL
    from far_node.models.store import check_name

    if check_name(name) == BUNDLED_MODEL:
        raise InvalidArgument(f"{BUNDLED_MODEL} comes with the package; take another name")


def _waiting(console: Console, name: str) -> Callable[[], None]:
    return lambda: console.event("waiting", f"another process is changing {name}; waiting for it …", name=name)


def _facts(record: Record) -> dict[str, Any]:
    """A record for programs."""
    return record.model_dump(exclude={"origin"}) | {"origin": record.origin.model_dump()}


def _what_is_here(record: Record) -> str:
    """``blocks 0:4, 8:12 of 32``, in words for a whole model or a file."""
    if record.file is not None:
        return record.file
    if record.blocks == ((0, record.block_count),) and record.ends:
        return f"all {record.block_count} blocks"
    ranges = ", ".join(f"{first}:{end}" for first, end in record.blocks)
    parts = [f"blocks {ranges} of {record.block_count}"] if ranges else []
    return " and ".join([*parts, *(["the ends"] if record.ends else [])]) or f"none of {record.block_count} blocks"


def _size(count: int) -> str:
    from rich.filesize import decimal

    return decimal(count)


def _print_models(records: list[Record]) -> None:
    from datetime import datetime

    table = _table("name", "here", "size", "from", "digest", "last used")
    for record in records:
        used = datetime.fromtimestamp(record.last_used_at).strftime("%Y-%m-%d %H:%M")
        size = "linked" if record.linked else _size(record.size_bytes)
        digest = (record.digest or record.sha256 or "")[:12]
        table.add_row(record.name, _what_is_here(record), size, record.origin.place, digest, used)
    _print(table)


def _print_info(about: Description) -> None:
    facts, record = about.facts, about.record
    table = _table("", "")
    table.add_row("model", about.name)
    if facts is not None:
        context = f", context {facts.context_length}" if facts.context_length else ""
        table.add_row("architecture", f"{facts.architecture}, {facts.block_count} blocks{context}")
        table.add_row("stored as", ", ".join(facts.stored_dtypes))
        table.add_row("ends", _size(facts.ends_disk_bytes) if facts.ends_disk_bytes else "not here")
    table.add_row("digest", about.digest or "")
    if record is not None:
        table.add_row("from", record.origin.place)
        table.add_row("here", _what_is_here(record))
        table.add_row("file", record.file or record.directory)
    _print(table)
    if facts is not None:
        _print_blocks(facts)


def _print_blocks(facts: ModelFacts) -> None:
    """Equal blocks share a row; the last row is what all that are here take."""
    from itertools import groupby

    from far_node.models.facts import NO_MEMORY

    table = _table("blocks", "on disk", "float32", "bfloat16", "int8", "nf4")
    for (size, memory), same in groupby(facts.blocks, key=lambda block: (block.disk_bytes, block.memory)):
        numbers = [block.number for block in same]
        table.add_row(_ranges(numbers), *map(_size, (size, *memory.all)))
    disk, total = sum(block.disk_bytes for block in facts.blocks), sum((b.memory for b in facts.blocks), NO_MEMORY)
    table.add_row(f"{len(facts.blocks)} together", *map(_size, (disk, *total.all)))
    _print(table)


def _ranges(numbers: list[int]) -> str:
    """Rising numbers as ranges, end exclusive; what one of several equal blocks takes is said of each."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        first = ranges.pop()[0] if ranges and ranges[-1][1] == number else number
        ranges.append((first, number + 1))
    return ", ".join(f"{first}" if end == first + 1 else f"each of {first}:{end}" for first, end in ranges)


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=any(headings), header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=heading != "from", overflow="fold")
    return table


def _print(table: Table) -> None:
    from rich.console import Console as RichConsole

    RichConsole(width=None if sys.stdout.isatty() else 1000).print(table)
