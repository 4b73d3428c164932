"""A wide-area network on one Linux machine: every host is a network namespace, one router process is the world between.

Each host has one TUN interface; the router holds the other ends and hands IPv4 packets from one to another, later:
a packet waits for its sender's uplink, travels for half the round trip, and waits for the receiver's downlink. It needs
root, /dev/net/tun and iproute2, and no kernel module for delays (netem).

    with Wan(hosts=5, round_trip=0.080, bits_per_second=100e6) as wan:
        process = subprocess.Popen([*wan.within(0), sys.executable, "-m", "far_node.cli", "start", …])
        wan.change(0, cut=True)

A host may stand behind a router of its own that translates addresses (:mod:`benchmarks.support.nat`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import multiprocessing
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.support.nat import Kind, Router

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
_DEVICE = "wan"
_MTU = 1500
_LONGEST_QUEUE_SECONDS = 0.2
_PACKETS_AT_ONCE = 64


class WanUnavailable(RuntimeError):
    """This machine lets us make no network: not root, or no TUN devices, or no iproute2."""


@dataclass(frozen=True)
class Link:
    """How a host is connected. ``round_trip`` in seconds is to another host of the same; ``behind_nat``: nobody can
    begin to talk to it; ``cut``: nothing arrives or leaves.
    """

    round_trip: float = 0.0
    bits_per_second: float = 0.0
    behind_nat: bool = False
    cut: bool = False


class Wan:
    """A context manager. Host ``i`` has the address :meth:`address`.

    Args:
        routers: hosts that stand behind a router, and of which kind. Where there are any, the others have addresses
            that libp2p takes for public ones.
    """

    def __init__(
        self,
        hosts: int,
        round_trip: float = 0.0,
        bits_per_second: float = 0.0,
        name: str = "far",
        routers: Mapping[int, Kind] | None = None,
    ) -> None:
        self.hosts = hosts
        self.routers = dict(routers or {})
        self._links = [Link(round_trip, bits_per_second) for _ in range(hosts)]
        self._names = [f"{name}{os.getpid()}-{index}" for index in range(hosts)]  # several networks get along
        self._router: multiprocessing.Process | None = None
        self._orders: Connection | None = None

    def address(self, host: int) -> str:
        """IPv4 address of a host, or of the router before it."""
        return socket.inet_ntoa(self._outside(host))

    def listens_at(self, host: int) -> str:
        """IPv4 address that a host has itself."""
        return socket.inet_ntoa(self._inside(host))

    def _outside(self, host: int) -> bytes:
        return bytes([11 if self.routers else 10, 78, 0, host + 1])

    def _inside(self, host: int) -> bytes:
        return bytes([192, 168, host + 1, 2]) if host in self.routers else self._outside(host)

    def __enter__(self) -> Wan:
        if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
            raise WanUnavailable("an emulated network needs root and /dev/net/tun")
        made: list[str] = []
        try:
            for name in self._names:
                _ip("netns", "add", name)
                made.append(name)
            devices = [_open_tun(name) for name in self._names]
            for host, name in enumerate(self._names):
                _ip("-n", name, "addr", "add", f"{self.listens_at(host)}/24", "dev", _DEVICE)
                _ip("-n", name, "link", "set", _DEVICE, "mtu", str(_MTU), "txqueuelen", "2000", "up")
                _ip("-n", name, "link", "set", "lo", "up")
                if self.routers:
                    _ip("-n", name, "route", "add", "default", "dev", _DEVICE)
        except (OSError, subprocess.CalledProcessError) as error:
            for name in made:
                subprocess.run(["ip", "netns", "del", name], check=False)
            raise WanUnavailable(f"the emulated network could not be made: {error}") from error
        context = multiprocessing.get_context("fork")
        self._orders, theirs = context.Pipe()
        ports = {
            self._outside(host): _Port(device, self._links[host], self._router_of(host))
            for host, device in enumerate(devices)
        }
        self._router = context.Process(target=_route, args=(ports, theirs), daemon=True)  # type: ignore[assignment]
        assert self._router is not None
        self._router.start()
        for device in devices:
            os.close(device)
        return self

    def __exit__(self, *_: object) -> None:
        if self._router is not None:
            self._router.kill()
            self._router.join()
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False)

    def _router_of(self, host: int) -> Router | None:
        kind = self.routers.get(host)
        return None if kind is None else Router(kind, self._outside(host), self._inside(host))

    def change(self, host: int, **changes: Any) -> None:
        """Give a host another :class:`Link`."""
        self._links[host] = replace(self._links[host], **changes)
        assert self._orders is not None
        self._orders.send((host, self._links[host]))
        self._orders.recv()

    def within(self, host: int) -> list[str]:
        """What a command begins with that runs on a host; the process is the command's own."""
        return ["ip", "netns", "exec", self._names[host]]

    @contextlib.contextmanager
    def inside(self, host: int) -> Iterator[None]:
        """Let this thread, and those it starts, be on a host."""
        with open("/proc/self/ns/net") as home:
            _enter(f"/run/netns/{self._names[host]}")
            try:
                yield
            finally:
                _set_namespace(home.fileno())


@dataclass
class _Port:
    """A host's access to the world."""

    device: int
    link: Link
    router: Router | None = None
    uplink_free_at: float = 0.0
    downlink_free_at: float = 0.0
    asked: set[tuple[bytes, bytes, bytes]] = field(default_factory=set)
    latest: dict[int, float] = field(default_factory=dict)


def _route(ports: dict[bytes, _Port], orders: Connection) -> None:
    """Carry packets until killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    by_device, in_order = {port.device: port for port in ports.values()}, list(ports.values())
    on_the_way: list[tuple[float, int, bytes, _Port, bool]] = []
    numbers = itertools.count()
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        for ready in select.select([*by_device, orders.fileno()], [], [], wait)[0]:
            if ready == orders.fileno():
                host, link = orders.recv()
                in_order[host].link = link
                orders.send(None)
                continue
            for sent in _packets(ready):
                router = by_device[ready].router
                packet = sent if router is None else router.outward(sent)
                if packet is None:
                    continue
                target = ports.get(packet[16:20])
                arrival = _departed(packet, by_device[ready], target) if target else None
                if target is not None and arrival is not None:
                    heapq.heappush(on_the_way, (arrival, next(numbers), packet, target, False))
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            due, _, packet, target, has_passed = heapq.heappop(on_the_way)
            rate = target.link.bits_per_second
            if rate and not has_passed:
                if target.downlink_free_at - due > _LONGEST_QUEUE_SECONDS:
                    continue
                target.downlink_free_at = max(due, target.downlink_free_at) + 8 * len(packet) / rate
                heapq.heappush(on_the_way, (target.downlink_free_at, next(numbers), packet, target, True))
            elif not target.link.cut:
                let_in = packet if target.router is None else target.router.inward(packet)
                if let_in is not None:
                    with contextlib.suppress(OSError):
                        os.write(target.device, let_in)


def _packets(device: int) -> list[bytes]:
    packets: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while len(packets) < _PACKETS_AT_ONCE:
            packet = os.read(device, 65536)
            if packet[0] >> 4 == 4:
                packets.append(packet)
    return packets


def _departed(packet: bytes, source: _Port, target: _Port) -> float | None:
    """When the packet is at the other end; None: it is lost."""
    now = time.monotonic()
    if source.link.cut or target.link.cut or not _is_let_in(packet, source, target):
        return None
    if rate := source.link.bits_per_second:
        if source.uplink_free_at - now > _LONGEST_QUEUE_SECONDS:
            return None
        now = source.uplink_free_at = max(now, source.uplink_free_at) + 8 * len(packet) / rate
    arrival = now + (source.link.round_trip + target.link.round_trip) / 4
    arrival = source.latest[target.device] = max(arrival, source.latest.get(target.device, 0.0))  # in order
    return arrival


def _is_let_in(packet: bytes, source: _Port, target: _Port) -> bool:
    """Whether the target's router lets a packet in: of TCP no first one, of UDP only answers."""
    head = 4 * (packet[0] & 15)
    kind, ports = packet[9], (packet[head : head + 2], packet[head + 2 : head + 4])
    if kind == 17:
        if source.link.behind_nat:
            source.asked.add((packet[16:20], ports[1], ports[0]))
        return not target.link.behind_nat or (packet[12:16], *ports) in target.asked
    begins = kind == 6 and packet[head + 13] & 0x12 == 0x02
    return not (target.link.behind_nat and begins)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _open_tun(namespace: str) -> int:
    """The near end of a host's interface."""
    with open("/proc/self/ns/net") as home:
        _enter(f"/run/netns/{namespace}")
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
            return device
        finally:
            _set_namespace(home.fileno())


def _enter(path: str) -> None:
    with open(path) as namespace:
        _set_namespace(namespace.fileno())


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")
