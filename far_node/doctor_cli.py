"""``far-node doctor``: what is wrong with this machine, and what to do about it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import EXIT_FOUND, Console, fail, quiet_libraries, run
from far_node.options import ConfigOption, JsonOption, NameOption

if TYPE_CHECKING:
    from far_node.doctor.examine import Questions
    from far_node.doctor.judge import Finding
    from far_node.settings import NodeSettings, Place

_SIGNS = {"good": ("✓", "green"), "warning": ("!", "yellow"), "bad": ("✗", "red"), "unknown": ("?", "bright_black")}


def doctor(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="What the node is to serve: directory, name or hub id.")] = None,
    wallet: Annotated[str | None, typer.Option(help="EVM address that is paid, 0x…")] = None,
    initial_peers: Annotated[list[str], typer.Option(help="Multiaddr of a swarm peer; repeatable.")] = [],  # noqa: B006
    host_maddr: Annotated[list[str], typer.Option(help="Where the node listens; repeatable.")] = [],  # noqa: B006
    public_addr: Annotated[list[str], typer.Option(help="Address others reach us at, IP:PORT or multiaddr.")] = [],  # noqa: B006
    relay: Annotated[bool, typer.Option("--relay", help="The node is to be reached through relays.")] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, mps or cuda:N.")] = None,
    discovery: Annotated[str | None, typer.Option(help="Address of a discovery service.")] = None,
    gateway: Annotated[
        str | None, typer.Option(envvar="FAR_GATEWAY_URL", help="Address of the marketplace's gateway.")
    ] = None,
    identity: Annotated[Path | None, typer.Option(help="Key file of the node.")] = None,
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Look for what could keep this node from serving and earning. Exit code 3: something is wrong.

    What is not given is as far-node start would take it, from the environment and the file of settings.
    """
    from discovery.protocol.errors import FarError
    from far_node.doctor.examine import examine
    from far_node.settings import FIELDS, Place

    console = Console(json)
    quiet_libraries()
    given = {key: value for key, value in context.params.items() if key in FIELDS and value}
    try:
        asked = questions(given, Place.of(name), config, gateway)
    except FarError as error:
        fail(console, error)
    findings: list[Finding] = []

    async def look() -> None:
        findings.extend(await examine(asked))

    run(console, look)
    tell(console, findings)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(EXIT_FOUND)


def questions(given: dict[str, Any], place: Place, config: Path | None, gateway: str | None) -> Questions:
    """What the settings say, as far as it is right, and what is wrong with them. The doctor looks at the wallet
    itself, as it was written."""
    from far_node.capacity import GIB
    from far_node.config import ModelOptions, choose_device, parse_blocks, parse_public_address
    from far_node.doctor.examine import Questions
    from far_node.settings import check, gather, variable

    said = gather(given, place, config)
    found, errors = check(said, needed=False)
    model = None
    if found.model is not None:
        model = ModelOptions(
            found.model,
            blocks=None if found.blocks is None else parse_blocks(found.blocks),
            num_blocks=found.num_blocks,
            quantization=found.quantization,  # type: ignore[arg-type]  # checked by ModelOptions
            dtype=found.dtype,  # type: ignore[arg-type]
            cache_bytes=found.cache_mb << 20,
        )
    wallet = said.values.get("wallet")
    return Questions(
        problems=tuple(error.message for error in errors if error.facts.get("setting") != variable("wallet")),
        file=None if said.file is None else str(said.file),
        model=model,
        wallet=None if wallet is None else str(wallet),
        initial_peers=_known_peers(found),
        host_maddrs=found.host_maddr,
        public_maddrs=tuple(parse_public_address(address) for address in found.public_addr),
        relay=found.relay,
        device=choose_device(found.device, found.gpu, found.cpu_only),
        reserve_bytes=int(found.reserve_gb * GIB),
        gpu_memory_fraction=found.gpu_memory_fraction,
        identity=found.identity or place.identity,
        gateway=gateway,
        discovery=found.discovery,
    )


def _known_peers(found: NodeSettings) -> tuple[str, ...]:
    from discovery.protocol.errors import MembershipInvalid
    from far_node.settings import known_peers

    try:
        return known_peers(found)
    except MembershipInvalid:  # which is told with the settings
        return found.initial_peers


def tell(console: Console, findings: list[Finding]) -> None:
    """All findings, and how many of them need the owner."""
    in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for finding in findings:
        console.event("finding", in_words(finding, in_colour), **finding.document())
    counts = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in _SIGNS}
    bad, warnings = counts["bad"], counts["warning"]
    healthy = "nothing keeps this node from serving" if not bad else f"{bad} to be put right"
    sentence = f"\n{healthy}{f', {warnings} to be looked at' if warnings else ''}"
    console.event("examined", sentence, healthy=not bad, **counts)


def in_words(finding: Finding, in_colour: bool) -> str:
    """For people: a line, and what to do where something is to be done."""
    sign, colour = _SIGNS[finding.verdict]
    lines = [f"{typer.style(sign, fg=colour) if in_colour else sign} {finding.check}: {finding.says}"]
    if finding.verdict in ("bad", "warning"):
        lines += [f"    {text}" for text in (finding.why, finding.todo) if text]
        if finding.command:
            lines.append(f"    $ {finding.command}")
    return "\n".join(lines)
