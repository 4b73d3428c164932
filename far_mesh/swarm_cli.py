"""``far-mesh swarm`` and ``far-mesh invite``: found a private swarm, say who may come in, and who no longer may."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import Console, fail, quiet_libraries, run

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from discovery.protocol.membership import SignedCharter

app = typer.Typer(help="A private swarm: whose it is, and who may come in.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="The swarm's file, which everybody in it has; it is no secret.")]
OwnerOption = Annotated[Path, typer.Option(help="Key file of the swarm's owner, which nobody else has.")]
PeersOption = Annotated[list[str], typer.Option(help="Multiaddr through which one joins, …/p2p/12D3KooW…; repeatable.")]
NoTellOption = Annotated[
    bool, typer.Option("--no-tell", help="Change the file alone; far-mesh swarm tell does the rest.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
_DAYS = Annotated[float, typer.Option(min=0.0001, help="For how long it counts.")]


@app.command()
def new(
    file: FileArgument,
    name: Annotated[str, typer.Option(help="Of small letters, digits and hyphens.")],
    owner: OwnerOption,
    initial_peers: PeersOption = [],  # noqa: B006
    json: JsonOption = False,
) -> None:
    """Found a swarm. The owner's key file is made if there is none: keep it, for it cannot be replaced when lost."""
    from discovery.dht.identity import load_identity
    from discovery.protocol.errors import FarError, InvalidArgument
    from discovery.protocol.membership import found_swarm

    console = Console(json)
    try:
        _check_peers(initial_peers)
        if file.exists():
            raise InvalidArgument(f"{file} is there already")
        charter = found_swarm(name, load_identity(owner).key, initial_peers)
        _write(file, charter)
    except FarError as error:
        fail(console, error)
    _tell_of(console, file, charter)


@app.command()
def show(file: FileArgument, json: JsonOption = False) -> None:
    """What a swarm's file says, once all signatures in it were checked."""
    from discovery.protocol.errors import FarError

    console = Console(json)
    try:
        charter = _read(file)
    except FarError as error:
        fail(console, error)
    _tell_of(console, file, charter)


@app.command()
def join_through(
    file: FileArgument,
    owner: OwnerOption,
    initial_peers: PeersOption,
    no_tell: NoTellOption = False,
    json: JsonOption = False,
) -> None:
    """Name the peers through which the swarm is joined, in the place of those before."""

    def change(charter: SignedCharter) -> SignedCharter:
        from discovery.protocol.membership import amend

        _check_peers(initial_peers)
        return amend(charter, _key(owner), initial_peers=initial_peers)

    _change(Console(json), file, change, no_tell)


@app.command()
def revoke(
    file: FileArgument,
    invitations: Annotated[list[str], typer.Argument(help="Ids of invitations, as far-mesh invite told them.")],
    owner: OwnerOption,
    no_tell: NoTellOption = False,
    json: JsonOption = False,
) -> None:
    """Let an invitation count no longer: who came with it is out as soon as the members have heard of it."""

    def change(charter: SignedCharter) -> SignedCharter:
        from discovery.protocol.membership import amend

        return amend(charter, _key(owner), revoke=invitations)

    _change(Console(json), file, change, no_tell)


@app.command()
def hand_over(
    file: FileArgument,
    owner: OwnerOption,
    to: Annotated[Path, typer.Option(help="Key file of the new owner; made if there is none.")],
    grace_days: Annotated[
        float, typer.Option(min=0, help="For how long invitations of the old key count; 0 if it was stolen.")
    ] = 7.0,
    no_tell: NoTellOption = False,
    json: JsonOption = False,
) -> None:
    """Give the swarm to another key. Those who stay need invitations of the new one before the time is over."""

    def change(charter: SignedCharter) -> SignedCharter:
        import time

        from discovery.dht.identity import load_identity
        from discovery.protocol import membership

        until = int(time.time() + grace_days * membership.DAY_SECONDS)
        return membership.hand_over(charter, _key(owner), load_identity(to).key, until)

    _change(Console(json), file, change, no_tell)


@app.command()
def tell(file: FileArgument, initial_peers: PeersOption = [], json: JsonOption = False) -> None:  # noqa: B006
    """Bring what the file says to the swarm, whose members tell each other."""
    from discovery.protocol.errors import FarError

    console = Console(json)
    try:
        charter = _read(file)
    except FarError as error:
        fail(console, error)
    _tell_members(console, charter, initial_peers)


def invite(
    swarm: Annotated[Path, typer.Option(help="The swarm's file.")],
    owner: OwnerOption,
    role: Annotated[str, typer.Option(help="client: may ask. node: may serve as well.")] = "client",
    peer: Annotated[
        str | None, typer.Option(help="Peer id of the one who is invited; default: whoever has the invitation.")
    ] = None,
    days: _DAYS = 30.0,
    json: JsonOption = False,
) -> None:
    """Invite somebody to a private swarm: prints one word, which is what --invite takes."""
    from discovery.protocol import membership
    from discovery.protocol.errors import FarError, InvalidArgument

    console = Console(json)
    try:
        if role not in ("client", "node"):
            raise InvalidArgument(f"--role {role!r} is neither client nor node")
        charter = _read(swarm)
        seconds = int(days * membership.DAY_SECONDS)
        token = membership.invite(charter, _key(owner), "node" if role == "node" else "client", seconds, peer)
    except FarError as error:
        fail(console, error)
    told, invitation = token.to_text(), token.invitation
    facts: dict[str, Any] = {"id": invitation.id, "expires_at": invitation.expires_at, "role": role, "peer_id": peer}
    if not json:
        whose = "whoever has it comes in" if peer is None else f"for {peer} alone"
        typer.echo(f"# a {role}'s, {whose}; revoke it as {invitation.id}", err=True)
    console.event("invitation", told, invitation=told, **facts)


def _change(console: Console, file: Path, change: Any, no_tell: bool) -> None:
    from discovery.protocol.errors import FarError

    try:
        charter = change(_read(file))
        _write(file, charter)
    except FarError as error:
        fail(console, error)
    _tell_of(console, file, charter)
    if not no_tell and charter.charter.initial_peers:
        _tell_members(console, charter, [])


def _tell_members(console: Console, charter: SignedCharter, initial_peers: list[str]) -> None:
    quiet_libraries()

    async def go() -> None:
        from discovery.dht.peer import tell_members
        from discovery.protocol.errors import PeerUnavailable

        told = await tell_members(charter, initial_peers or charter.charter.initial_peers)
        for maddr, error in told.items():
            said = f"{maddr} has it" if error is None else f"{maddr} was not told: {error.message}"
            console.event("told", said, maddr=maddr, reached=error is None)
        if told and all(told.values()):
            raise PeerUnavailable("no member was told; try far-mesh swarm tell when one can be reached")

    run(console, go)


def _tell_of(console: Console, file: Path, signed: SignedCharter) -> None:
    charter = signed.charter
    facts = {
        "swarm": charter.swarm,
        "owner": signed.owner,
        "serial": charter.serial,
        "initial_peers": charter.initial_peers,
        "revoked": charter.revoked,
        "former_owners": [handover.peer_id for handover in signed.handovers],
    }
    lines = [f"{file}: {charter.swarm}, charter {charter.serial}, owned by {signed.owner}"]
    lines += [f"  joined through {maddr}" for maddr in charter.initial_peers]
    lines += [f"  revoked {invitation}" for invitation in charter.revoked]
    console.event("swarm", "\n".join(lines), **facts)


def _key(owner: Path) -> Ed25519PrivateKey:
    from discovery.dht.identity import load_identity
    from discovery.protocol.errors import InvalidIdentity

    if not owner.expanduser().exists():
        raise InvalidIdentity(f"the owner's key file {owner} is not there")
    return load_identity(owner).key


def _check_peers(maddrs: list[str]) -> None:
    from discovery.dht.peer import check_peer_maddr

    for maddr in maddrs:
        check_peer_maddr(maddr)


def _read(file: Path) -> SignedCharter:
    from discovery.protocol.errors import MembershipInvalid
    from discovery.protocol.membership import read_charter

    try:
        return read_charter(file.expanduser().read_bytes())
    except OSError as error:
        raise MembershipInvalid(f"{file} cannot be read: {error.strerror}") from None


def _write(file: Path, charter: SignedCharter) -> None:
    from discovery.protocol.errors import InvalidArgument

    try:
        file.expanduser().write_bytes(charter.to_bytes())
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be written: {error.strerror}") from None
