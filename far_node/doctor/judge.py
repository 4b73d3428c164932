"""What the facts mean. Pure: each finding says what is true, why that matters, and what to do.

One cause has one finding: what could not be looked at because of another cause is ``unknown``, and nobody is blamed
for it.
"""

from __future__ import annotations

import ipaddress
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from discovery.dht.probe import Meeting
from discovery.protocol.announcement import CLOCK_SKEW_SECONDS, LIFETIME_SECONDS
from discovery.protocol.errors import FarError
from discovery.protocol.ids import check_wallet
from far_node.capacity import GIB, readable_bytes
from far_node.doctor.facts import (
    DeviceFacts,
    DiskFacts,
    HttpFacts,
    IdentityFacts,
    ListenFacts,
    MemoryFacts,
    ModelFacts,
    SwarmFacts,
)

Verdict = Literal["good", "warning", "bad", "unknown"]

CLOCK_WARNING_SECONDS = 2.0
CLOCK_BAD_SECONDS = 300.0
DISK_WARNING_BYTES, DISK_BAD_BYTES = 5 * GIB, GIB
_HTTP_DATE_SECONDS = 1.0
"""What a Date in HTTP is true to."""


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        check: what was looked at.
        says: what is true.
        why: why that matters; empty where all is well.
        todo: what to do about it.
        command: the one command that does so, where there is one.
    """

    check: str
    verdict: Verdict
    says: str
    why: str = ""
    todo: str = ""
    command: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def config(problems: Sequence[str], file: str | None) -> Finding:
    """Do the settings mean something?"""
    if not problems:
        where = f"those of {file}" if file else "no file, flags and variables alone"
        return Finding("config", "good", f"the settings mean something ({where})")
    why = "A node does not start with settings that it does not understand: it would do something else than was meant."
    return Finding("config", "bad", "; ".join(problems), why, "Correct them.", "far-node config check")


def wallet(text: str | None) -> Finding:
    """Is it an address that money can be sent to?"""
    why = "Everything that the node earns is paid to this address, and nobody can bring back what went to a wrong one."
    if text is None:
        todo = "Name the wallet that is to be paid: --wallet 0x…"
        return Finding("wallet", "unknown", "no wallet was named", why, todo)
    try:
        found = check_wallet(text)
    except FarError as error:
        return Finding("wallet", "bad", error.message, why, "Copy the address again from your wallet: --wallet 0x…")
    return Finding("wallet", "good", f"{found} is well written", facts={"wallet": found})


def identity(facts: IdentityFacts) -> Finding:
    """Is the key file ours alone?"""
    why = "The identity is the name that the node's reputation and its earnings belong to."
    if facts.error is not None:
        todo = f"Bring back your copy of {facts.path}, or remove it to have a new one made at the next start."
        return Finding("identity", "bad", facts.error, why, todo)
    if not facts.exists:
        return Finding("identity", "good", f"there is no {facts.path} yet: it is made at the first start")
    if facts.mode is not None and facts.mode & 0o077:
        says = f"{facts.path} can be read by others on this machine (mode {facts.mode:04o})"
        why += " Whoever reads the file can take both."
        command = f"chmod 600 {facts.path}"
        return Finding("identity", "bad", says, why, "Let nobody else read it.", command)
    return Finding("identity", "good", f"{facts.peer_id}, readable by you alone", facts={"peer_id": facts.peer_id})


def model(facts: ModelFacts | None) -> Finding:
    """Is the model there, and whole?"""
    if facts is None:
        return Finding("model", "unknown", "no model was named", "", "Name what the node is to serve: --model far-demo")
    name = facts.model
    if facts.error is not None:
        damaged = facts.error.code in ("weights_damaged", "unsafe_weights")
        why = (
            "A node with other weights computes other answers, and is not paid for them."
            if damaged
            else "The node cannot start without its model."
        )
        todo = "Pull or copy it again." if damaged else "Correct --model, or pull the model first."
        command = None if damaged else "far-node models list"
        return Finding("model", "bad", facts.error.message, why, todo, command, {"code": facts.error.code})
    if facts.is_elsewhere:
        says = f"{name} is not on this disk: it would be downloaded at the start"
        return Finding("model", "good", says, command=f"far-node models pull {name}")
    if facts.missing_bytes:
        says = f"{name} is here in part: {readable_bytes(facts.missing_bytes)} are missing, and come when needed"
        return Finding("model", "good", says, facts={"missing_bytes": facts.missing_bytes})
    checked = f"; {facts.hashed} of {facts.files} files have the hashes they should" if facts.files else ""
    hashes = {"hashed": facts.hashed, "files": facts.files}
    return Finding("model", "good", f"{name} is in {facts.place}, and complete{checked}", facts=hashes)


def disk(facts: DiskFacts) -> Finding:
    """Is there room for the model and for what is kept beside it?"""
    why = "A download that finds no room breaks off, and a node that cannot write its files stops."
    todo = "Remove models that you do not serve, or let FAR_MODELS_DIR name a directory on a larger disk."
    numbers = {"free_bytes": facts.free_bytes, "needed_bytes": facts.needed_bytes}
    if facts.error is not None:
        return Finding("disk", "bad", facts.error, why, "Name a directory that can be written: FAR_MODELS_DIR=…")
    free = f"{readable_bytes(facts.free_bytes)} of {readable_bytes(facts.total_bytes)} are free in {facts.place}"
    if facts.needed_bytes is not None and facts.needed_bytes + DISK_BAD_BYTES > facts.free_bytes and facts.needed_bytes:
        says = f"{free}; {readable_bytes(facts.needed_bytes)} of the model are still to come"
        return Finding("disk", "bad", says, why, todo, "far-node models list", numbers)
    if facts.free_bytes < DISK_BAD_BYTES:
        return Finding("disk", "bad", free, why, todo, "far-node models list", numbers)
    if facts.free_bytes < DISK_WARNING_BYTES:
        return Finding("disk", "warning", free, why, todo, "far-node models list", numbers)
    return Finding("disk", "good", free, facts=numbers)


def device(facts: DeviceFacts) -> Finding:
    """Does torch see what shall compute? The driver, the build of torch or the owner's choice can be the cause."""
    told: dict[str, Any] = {
        "torch": facts.torch,
        "built_for": facts.built_for,
        "device": facts.found,
        "cards": [asdict(card) for card in facts.cards],
    }
    cards = ", ".join(f"{card.name} (driver {card.driver})" for card in facts.cards)
    idle = "On the CPU a node serves a small part of what it could with the GPU."
    wants_gpu = facts.wanted.startswith("cuda")
    if facts.found is not None and facts.found != "cpu":
        return Finding("device", "good", f"{facts.found}, torch {facts.torch} for {facts.built_for}", facts=told)
    if facts.found is not None and (not facts.cards or facts.wanted == "cpu"):
        chosen = "as chosen" if facts.wanted == "cpu" else "no GPU is known to a driver"
        return Finding("device", "good", f"the CPU ({chosen}), torch {facts.torch}", facts=told)
    verdict: Verdict = "bad" if wants_gpu else "warning"
    why = "The node cannot start on a device that torch does not see." if wants_gpu else idle
    if not facts.cards:
        says = f"{facts.error}; and no driver tells of a GPU (neither nvidia-smi nor rocm-smi finds one)"
        todo = "Install the driver of the GPU and restart the machine; without a GPU, start with --cpu-only."
        return Finding("device", verdict, says, why, todo, None, told)
    if facts.built_for is None:
        says = f"there is {cards}, and this torch {facts.torch} is built for the CPU alone"
        index = "cu128" if facts.cards[0].maker == "nvidia" else "rocm6.4"
        todo = f"Install the build of torch for it ({index}), with the installer or by hand."
        return Finding("device", verdict, says, why, todo, None, told)
    if facts.error is not None and "there is no" in facts.error:
        return Finding("device", verdict, facts.error, why, "Choose one that is there with --device.", None, told)
    says = f"there is {cards}, and torch {facts.torch} for {facts.built_for} cannot use it: the driver may be too old"
    todo = "Update the driver, or install a build of torch for an older version."
    return Finding("device", verdict, says, why, todo, "nvidia-smi", told)


def memory(facts: MemoryFacts | None) -> Finding:
    """Does the model, or what was asked of it, fit?"""
    if facts is None:
        return Finding("memory", "unknown", "not looked at: the model, or the device, has to be right first")
    numbers = {"free_bytes": facts.free_bytes, "total_bytes": facts.total_bytes, "device": facts.device}
    if facts.error is not None:
        why = "A node without the memory for a block has nothing to serve."
        todo = "Close other programs, or serve fewer blocks or coarser weights: --num-blocks, --quantization."
        return Finding("memory", "bad", facts.error, why, todo, None, numbers)
    free = f"{readable_bytes(facts.free_bytes)} of {readable_bytes(facts.total_bytes)} free on {facts.device}"
    fits = f"{free}; {facts.fits}" if facts.fits else free
    return Finding("memory", "good", fits, facts=numbers)


def bootstrap(facts: SwarmFacts) -> Finding:
    """Do the initial peers answer?"""
    why = "Through its initial peers a node finds the swarm and is found; without one it serves nobody."
    if facts.error is not None:
        return Finding("dht", "bad", facts.error, why, "Start the doctor again; if it stays, report it.")
    if not facts.meetings:
        todo = "Name a peer of the swarm: --initial-peers /ip4/…/p2p/12D3KooW…"
        return Finding("dht", "unknown", "no initial peers were named", why, todo)
    told = {"peers": [{"maddr": one.maddr, "reason": one.reason} for one in facts.meetings]}
    lost = [one for one in facts.meetings if one.reason is not None]
    words = "; ".join(f"{one.maddr}: {one.reason}" for one in lost)
    if len(lost) == len(facts.meetings):
        todo = (
            "Look whether this machine has a connection to the Internet, and whether the address is the one that the "
            "swarm publishes; a firewall has to let connections out."
        )
        return Finding("dht", "bad", f"no initial peer answers ({words})", why, todo, None, told)
    if lost:
        says = f"{len(facts.met)} of {len(facts.meetings)} initial peers answer ({words})"
        return Finding("dht", "warning", says, why, "Take those that do not answer off the list.", None, told)
    trips = [one.round_trip_ms for one in facts.met if one.round_trip_ms is not None]
    fastest = f", the nearest in {min(trips):.0f} ms" if trips else ""
    return Finding("dht", "good", f"{len(facts.met)} of {len(facts.met)} initial peers answer{fastest}", facts=told)


def port(listen: ListenFacts, facts: SwarmFacts) -> Finding:
    """Can others open a connection to us?"""
    why = "Clients and other nodes open connections to the node. Behind a closed port it is reached by relay, slower."
    told: dict[str, Any] = {"port": listen.port, "maddrs": list(listen.maddrs)}
    if listen.in_use and not listen.is_ours:
        says = f"another program listens on port {listen.port} of this machine"
        todo = "End that program, or let the node listen elsewhere: --host-maddr /ip4/0.0.0.0/tcp/31331"
        return Finding("port", "bad", says, "The node cannot start.", todo, f"ss -ltnp 'sport = :{listen.port}'", told)
    seen = [one.answer for one in facts.met if one.answer is not None]
    outcomes = [answer.outcome for answer in seen]
    told["outcomes"] = outcomes
    if "reached" in outcomes:
        answer = next(answer for answer in seen if answer.outcome == "reached")
        says = f"{answer.ip} port {listen.port} is reached from outside"
        if answer.ip is not None and not ipaddress.ip_address(answer.ip).is_global:
            says = f"{answer.ip} port {listen.port} is reached from the same private network; the Internet did not try"
        return Finding("port", "good", says, facts=told)
    if listen.relay:
        return _relays(facts, told)
    if "stranger" in outcomes:
        says = f"on port {listen.port} another program answers from outside, not a node"
        todo = f"Let the router forward port {listen.port} (TCP) to this machine, or name the right one: --public-addr"
        return Finding("port", "bad", says, why, todo, None, told)
    ip = next((answer.ip for answer in seen if answer.outcome in ("refused", "silent")), None)
    if ip is not None:
        how = "connections are refused" if "refused" in outcomes else "nothing answers, as a firewall or router does"
        says = f"{ip} port {listen.port} is closed from outside: {how}"
        todo = (
            f"Let the firewall pass port {listen.port} (TCP) and the router forward it to this machine, or start with "
            "--map-ports (asks the router) or --relay (needs no open port)."
        )
        return Finding("port", "bad", says, why, todo, f"sudo ufw allow {listen.port}/tcp", told)
    if "too_often" in outcomes:
        return Finding("port", "unknown", "asked too often: the peers dial back again in a minute", why, facts=told)
    return Finding("port", "unknown", "nobody could be asked to dial back", why, facts=told)


def _relays(facts: SwarmFacts, told: dict[str, Any]) -> Finding:
    """Does an initial peer let others through to us?"""
    willing = [one for one in facts.met if one.no_slot is None]
    told |= {"relays": [one.maddr for one in willing]}
    if willing:
        says = f"not needed: {len(willing)} of {len(facts.meetings)} initial peers relay for this machine (--relay)"
        return Finding("port", "good", says, facts=told)
    if not facts.met:
        return Finding("port", "unknown", "nobody could be asked to relay for this machine (--relay)", facts=told)
    reasons = "; ".join(f"{one.maddr}: {one.no_slot}" for one in facts.met)
    return Finding(
        "port",
        "bad",
        f"no initial peer relays for this machine ({reasons})",
        "With --relay a node is reached through initial peers that relay, and does not start without one.",
        "Name a bootstrap peer that relays (--initial-peers), or open the port and leave --relay away.",
        None,
        told,
    )


def nat(facts: SwarmFacts) -> Finding:
    """Which kind of address translation is between us and the others (RFC 4787)?"""
    seen = [(one.answer.ip, one.answer.source_port) for one in facts.met if one.answer and one.answer.ip is not None]
    ips = {ip for ip, _ in seen if ip is not None}
    if not ips:
        return Finding("nat", "unknown", "nobody could say how we are seen from outside")
    told = {"seen_as": sorted(f"{ip}:{port}" for ip, port in seen), "kind": "none"}
    if ips <= facts.own_ips:
        if any(is_carrier_grade(ip) for ip in ips):
            return Finding("nat", "good", "seen with an address of a carrier's own network", facts=told)
        return Finding("nat", "good", f"none: {', '.join(sorted(ips))} is an address of this machine", facts=told)
    if len(ips) > 1:
        says = f"others see this machine at several addresses: {', '.join(sorted(ips))}"
        why = "A router that changes its address by destination cannot be passed from outside."
        todo = "Start with --relay, or ask your provider for one public address."
        return Finding("nat", "warning", says, why, todo, None, told | {"kind": "address-dependent"})
    (ip,) = ips
    if len(seen) == 1:
        says = f"behind a router, seen as {ip}; of which kind, one peer alone cannot tell"
        return Finding("nat", "good", says, facts=told | {"kind": "not known"})
    if len({port for _, port in seen}) > 1:
        says = f"behind a router, seen as {ip}, that takes another port for each peer (symmetric)"
        why = "Two such routers cannot be passed by hole punching: without a forwarded port only a relay helps."
        todo = "If the port is closed from outside: forward it in the router, or start with --relay."
        return Finding("nat", "good", says, why, todo, None, told | {"kind": "symmetric"})
    says = f"behind a router, seen as {ip}, that keeps one port for all peers (cone): holes can be punched"
    return Finding("nat", "good", says, facts=told | {"kind": "cone"})


def is_carrier_grade(ip: str) -> bool:
    """Whether it is of the range that providers share among customers (RFC 6598)."""
    address = ipaddress.ip_address(ip)
    return address.version == 4 and address in ipaddress.ip_network("100.64.0.0/10")


def clock(meetings: Sequence[Meeting], services: Sequence[HttpFacts]) -> Finding:
    """Is our clock right, by peers and by the Date of web services? The median counts: one of them may be wrong."""
    peers = [one.clock_ahead_seconds for one in meetings if one.clock_ahead_seconds is not None]
    dates = [one.clock_ahead_seconds for one in services if one.clock_ahead_seconds is not None]
    if not peers and not dates:
        return Finding("clock", "unknown", "nobody could be asked for the time")
    ahead = statistics.median(peers or dates)
    if not peers and abs(ahead) <= CLOCK_WARNING_SECONDS + _HTTP_DATE_SECONDS:
        ahead = max(0.0, abs(ahead) - _HTTP_DATE_SECONDS) * (1 if ahead > 0 else -1)
    told = {"ahead_seconds": round(ahead, 3), "peers": len(peers), "services": len(dates)}
    words = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} {'others' if peers else 'web services'}"
    why = (
        f"Announcements live for {LIFETIME_SECONDS} s and may be {CLOCK_SKEW_SECONDS} s from the future at most: with "
        "a wrong clock others believe none of ours, and we none of theirs."
    )
    command = "sudo timedatectl set-ntp true"
    if abs(ahead) > CLOCK_BAD_SECONDS:
        return Finding("clock", "bad", f"the clock is {words}", why, "Set the clock by the network.", command, told)
    if abs(ahead) > CLOCK_WARNING_SECONDS:
        return Finding("clock", "warning", f"the clock is {words}", why, "Set the clock by the network.", command, told)
    return Finding("clock", "good", f"right: {words}", facts=told)


def service(name: Literal["discovery", "gateway"], facts: HttpFacts | None) -> Finding:
    """Does a web service that the owner named answer?"""
    if facts is None:
        return Finding(name, "unknown", f"not looked at: no --{name} was named")
    why = {
        "discovery": "The node works without it, by its initial peers; but it helps others to find the node sooner.",
        "gateway": "The node serves without it; rewards and prices are asked there.",
    }[name]
    told = {"url": facts.url, "status": facts.status}
    if facts.status == 200:
        return Finding(name, "good", f"{facts.url} answers in {facts.milliseconds or 0.0:.0f} ms", facts=told)
    says = f"{facts.url} {facts.reason}" if facts.status is None else f"{facts.url} answers with status {facts.status}"
    return Finding(name, "warning", says, why, f"Look whether --{name} is written rightly.", None, told)
