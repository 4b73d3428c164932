"""Conversations that no honest client has, made from a seed: valid messages, and what can be done to them.

A :class:`Fuzzer` makes :class:`Talk` after :class:`Talk`; the same seed and number give the same bytes. Some talks are
made of one fault with a known answer, others are honest but for what a mutation did to one of their frames, and for
those every answer in the protocol's own words will do. :class:`Siege` has them at a node's door.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from discovery.protocol import mesh_pb2 as pb
from discovery.protocol.codec import CODECS, position_bytes
from discovery.protocol.messages import (
    INFO_PROTOCOL,
    LINK_PROTOCOL,
    MAX_BATCH,
    MAX_FRAME_BYTES,
    MAX_HOPS,
    MAX_PLAIN_BYTES,
    MAX_POSITIONS,
    MAX_PRICE_UNITS,
    MAX_SCOPE_BYTES,
    MAX_STEPS,
    SESSION_PROTOCOL,
)
from tests.support.documents import peer_of

PROTOCOLS = (SESSION_PROTOCOL, LINK_PROTOCOL, INFO_PROTOCOL)
INTEGERS = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    2**16,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**63,
    2**64 - 1,
)
CLOSE = pb.Envelope(close=pb.Close()).SerializeToString()

VIOLATION = frozenset({"protocol_violation"})
NO_ROOM = frozenset({"busy", "out_of_cache"})
"""What any opening may be told when others were first."""
OUT_OF_RANGE = frozenset({"compute_failed"})
"""Of finite numbers so large that the blocks' are not: the model's own range, which the door cannot know."""


class Ending(Enum):
    """How a stranger leaves."""

    LISTEN = "says goodbye and hears all"
    HANG_UP = "closes"
    VANISH = "is lost"
    STAY = "neither speaks nor hears nor goes"


@dataclass(frozen=True)
class Line:
    """One stream of a talk, to the node of this number, and what is said on it."""

    protocol: str
    frames: tuple[bytes, ...]
    node: int = 0


@dataclass(frozen=True)
class Talk:
    """What a stranger does, on one stream or two.

    Attributes:
        due: codes of which one must be the answer; empty: none is due, any of the family will do.
        answers: how many steps must be answered if the session is opened; None: it is not known.
    """

    name: str
    lines: tuple[Line, ...]
    ending: Ending = Ending.LISTEN
    due: frozenset[str] = frozenset()
    answers: int | None = None

    @property
    def messages(self) -> int:
        """Frames that are sent, the goodbye included."""
        return sum(len(line.frames) for line in self.lines) + (self.ending is Ending.LISTEN)


@dataclass(frozen=True)
class Facts:
    """What a stranger knows of the nodes of a model: who they are, their blocks, and somebody's session there."""

    digest: str
    hidden_size: int
    context_length: int
    nodes: tuple[tuple[str, int, int], ...]
    stranger: str
    honest_session: bytes
    can_rewind: bool = True


class Fuzzer:
    """Talks of one stranger."""

    def __init__(self, seed: int, facts: Facts) -> None:
        self._seed, self._facts = seed, facts
        self._random = random.Random(seed)
        floats = [self._random.gauss(0, 1) for _ in range(2**14)]
        self._floats = {
            "float32": struct.pack(f"<{len(floats)}f", *floats),
            "float16": struct.pack(f"<{len(floats)}e", *floats),
            "bfloat16": b"".join(struct.pack("<f", value)[2:] for value in floats),
        }
        self._kinds: list[tuple[int, Callable[[], Talk]]] = [
            (14, self._noise),
            (16, self._mutated_first),
            (14, self._wrong_opening),
            (14, self._wrong_step),
            (20, self._mutated_session),
            (10, self._honest),
            (8, self._linked),
            (3, self._foreign_id),
            (1, self._large),
            (6, self._resumed),
            (4, self._wrong_resumption),
            (6, self._rerouted),
            (3, self._asked_often),
        ]
        if len(facts.nodes) == 2:
            self._kinds.append((8, self._chained))

    def talk(self, number: int) -> Talk:
        """The same for the same number."""
        r = self._random = random.Random(self._seed << 32 | number)
        self._at = r.randrange(len(self._facts.nodes))
        self._peer, self._first, self._end = self._facts.nodes[self._at]
        makers = [maker for weight, maker in self._kinds for _ in range(weight)]
        return r.choice(makers)()

    # ---- talks

    def _line(self, protocol: str, *frames: bytes) -> Line:
        return Line(protocol, frames, self._at)

    def _noise(self) -> Talk:
        """Bytes that are no message, or one that nobody expects there."""
        r = self._random
        frames = []
        for _ in range(r.randint(1, 4)):
            match r.randrange(5):
                case 0:
                    frames.append(r.randbytes(r.choice((0, 1, 2, 3, 7, 60, 400))))
                case 1:
                    frames.append(bytes([r.randrange(256)]) * r.randint(1, 300))
                case 2:
                    frames.append(r.choice((b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"{}", b"\x00", b"")))
                case 3:
                    frames.append(bytes([(r.randint(1, 9) << 3) | r.randrange(8)]) + r.randbytes(r.randint(0, 30)))
                case _:
                    frames.append(self._not_due().SerializeToString())
        return Talk("noise", (self._line(r.choice(PROTOCOLS), *frames),), self._ending())

    def _mutated_first(self) -> Talk:
        """A valid first message, changed."""
        r = self._random
        protocol = r.choice(PROTOCOLS)
        if protocol == SESSION_PROTOCOL:
            first = pb.Envelope(open=self._opening())
        elif protocol == LINK_PROTOCOL:
            first = pb.Envelope(link=pb.Link(session_id=r.randbytes(16)))
        else:
            digest = r.choice(("", self._facts.digest, "0" * 64, "x"))
            first = pb.Envelope(info_request=pb.InfoRequest(model_digest=digest))
        return Talk("first message", (self._line(protocol, self.mutated(first.SerializeToString())),), self._ending())

    def _wrong_opening(self) -> Talk:
        """One field of an opening out of its range."""
        name, changes, due = self._random.choice(self._opening_faults())
        opening = self._opening(**changes)
        return Talk(f"opening: {name}", (self._line(SESSION_PROTOCOL, _frame(opening)),), due=due)

    def _wrong_step(self) -> Talk:
        """A session that goes well until one step has one fault."""
        r = self._random
        opening = self._opening(batch=r.choice((1, 1, 2, 3)), max_length=r.choice((8, 33, self._facts.context_length)))
        before, at = self._steps(opening, r.randrange(3), room=1)
        name, step, due = r.choice(self._step_faults(opening, at, len(before)))
        after, _ = self._steps(opening, r.randrange(2), at=at, index=len(before) + 1)
        frames = (_frame(opening), *before, _frame(step), *after)
        return Talk(f"step: {name}", (self._line(SESSION_PROTOCOL, *frames),), due=due | NO_ROOM)

    def _mutated_session(self) -> Talk:
        """An honest session in which some frames are changed, lost, said twice or in another order."""
        r = self._random
        opening = self._opening(batch=r.choice((1, 1, 1, 2, 4)))
        frames = [_frame(opening), *self._steps(opening, r.randint(1, 5))[0]]
        for _ in range(r.randint(1, 2)):
            at = r.randrange(len(frames))
            match r.randrange(8):
                case 0:
                    frames[at] = r.randbytes(r.randint(0, 80))
                case 1:
                    frames.insert(at, frames[r.randrange(len(frames))])
                case 2:
                    frames.insert(at, self._not_due().SerializeToString())
                case 3 if len(frames) > 1:
                    del frames[at]
                case _:
                    frames[at] = self.mutated(frames[at])
        return Talk("session", (self._line(SESSION_PROTOCOL, *frames),), self._ending())

    def _honest(self) -> Talk:
        """Nothing is wrong with it: it must be answered, whatever the others do."""
        r = self._random
        opening = self._opening(batch=r.choice((1, 1, 2)))
        frames, _ = self._steps(opening, r.randint(1, 6))
        line = self._line(SESSION_PROTOCOL, _frame(opening), *frames)
        return Talk("honest", (line,), due=NO_ROOM, answers=len(frames))

    def _linked(self) -> Talk:
        """A session that is fed by a link, with things on both streams that may not be there."""
        r, facts = self._random, self._facts
        opening = self._opening(previous=facts.stranger)
        link = pb.Envelope(link=pb.Link(session_id=opening.session_id)).SerializeToString()
        fed = [link, *self._steps(opening, r.randint(1, 4))[0]]
        control = [_frame(opening)]
        match r.randrange(6):
            case 0:
                fed[r.randrange(len(fed))] = self.mutated(r.choice(fed))
            case 1:
                fed.insert(r.randrange(len(fed) + 1), self._not_due().SerializeToString())
            case 2:
                control.append(self._steps(opening, 1)[0][0])
            case 3:
                control.append(self._not_due().SerializeToString())
            case 4:
                opening.previous = peer_of("somebody else")
                control = [_frame(opening)]
            case _:
                del fed[0]
        lines = [self._line(SESSION_PROTOCOL, *control), self._line(LINK_PROTOCOL, *fed)]
        if r.randrange(4) == 0:
            lines.append(self._line(LINK_PROTOCOL, link, *fed[1:2]))
        r.shuffle(lines)
        return Talk("linked", tuple(lines), self._ending())

    def _foreign_id(self) -> Talk:
        """Somebody else's session, or nobody's."""
        r, honest = self._random, self._facts.honest_session
        if r.randrange(2):
            self._peer, self._first, self._end = self._facts.nodes[0]
            opening = self._opening(session_id=honest)
            frames = (_frame(opening), *self._steps(opening, 2)[0])
            return Talk("an id that is taken", (Line(SESSION_PROTOCOL, frames),))
        opening = self._opening()
        link = pb.Envelope(link=pb.Link(session_id=r.choice((honest, r.randbytes(16))))).SerializeToString()
        frames = (link, *self._steps(opening, 2)[0])
        return Talk("a link to somebody else's session", (self._line(LINK_PROTOCOL, *frames),))

    def _large(self) -> Talk:
        """Frames about as long as a frame may be, and such as grow when they are parsed."""
        r, many = self._random, 2**17
        opening = self._opening(max_length=self._facts.context_length)
        makers: list[Callable[[], bytes]] = [
            lambda: bytes(MAX_PLAIN_BYTES - r.randrange(2)),
            lambda: bytes(MAX_PLAIN_BYTES + 1),
            lambda: r.randbytes(r.choice((2**17, 2**20))),
            lambda: _envelope(step=pb.Step(rows=[1] * many, hidden=self._tensor(opening, 1))),
            lambda: _envelope(step=pb.Step(hidden=pb.Tensor(shape=[1] * many))),
            lambda: _envelope(open=pb.Open(left_padding=[1] * many)),
            lambda: _envelope(open=pb.Open(next=pb.PeerAddress(maddrs=[""] * many))),
            lambda: _envelope(open=pb.Open(previous="1" * many)),
            lambda: _envelope(failure=pb.Failure(message="m" * many)),
            lambda: _envelope(receipt=bytes(many)),
            lambda: b"\x0a" * many,
        ]
        large = r.choice(makers)()
        first = self._line(r.choice(PROTOCOLS), large)
        later = self._line(SESSION_PROTOCOL, _frame(opening), *self._steps(opening, 1)[0], large)
        return Talk("large", (r.choice((first, later)),))

    def _chained(self) -> Talk:
        """A session over two nodes, with a fault on the way."""
        r, (before, after) = self._random, self._facts.nodes
        names = {"session_id": r.randbytes(16), "nonce": r.randbytes(16), "max_length": 64, "left_padding": []}
        self._peer, self._first, self._end = before
        opening = self._opening(
            **names, first_block=before[1], end_block=before[2], next=pb.PeerAddress(peer_id=after[0])
        )
        following = self._opening(
            **names, first_block=after[1], end_block=after[2], previous=before[0], codec=opening.codec
        )
        frames, at = self._steps(opening, r.randint(1, 4))
        second = [_frame(following)]
        match r.randrange(5):
            case 0:
                frames.append(_frame(r.choice(self._step_faults(opening, at, len(frames)))[1]))
            case 1:
                second.append(self._not_due().SerializeToString())
            case 2:
                second[0] = self.mutated(second[0])
            case 3:
                frames[r.randrange(len(frames))] = self.mutated(r.choice(frames))
            case _:
                pass
        lines = [Line(SESSION_PROTOCOL, (_frame(opening), *frames), 0), Line(SESSION_PROTOCOL, tuple(second), 1)]
        if r.randrange(2):
            lines.reverse()
        return Talk("chained", tuple(lines), self._ending())

    def _resumed(self) -> Talk:
        """Somebody who takes a lost node's place and is told what that one was, as it should be."""
        r = self._random
        at_step = r.choice((0, 1, 5, 2**32, MAX_STEPS - 100))
        resumption = pb.Resumption(at_step=at_step, positions=r.choice((0, 63, 2**32, MAX_STEPS)))
        opening = self._opening(batch=r.choice((1, 1, 2)), resumption=resumption)
        frames, at = self._replay(opening, at_step)
        again = r.randrange(min(at_step, 3) + 1)
        before, at = self._steps(opening, again, at=at, index=at_step - again)
        after, _ = self._steps(opening, r.randint(1, 4), at=at, index=at_step - again + len(before))
        line = self._line(SESSION_PROTOCOL, _frame(opening), *frames, *before, *after)
        answers = max(0, len(before) + len(after) - again)
        return Talk("resumed", (line,), due=NO_ROOM, answers=answers)

    def _wrong_resumption(self) -> Talk:
        """The same, with replays that cannot be, or where none is due."""
        r, due = self._random, VIOLATION
        at_step = r.choice((1, 5, MAX_STEPS - 1))
        feeds_new = r.randrange(3) == 0
        resumption = pb.Resumption(at_step=at_step, positions=r.choice(INTEGERS[:14]), feeds_new=feeds_new)
        opening = self._opening(max_length=64, resumption=resumption)
        frames, at = self._replay(opening, at_step)
        tensor = self._tensor(opening, 1)
        match r.randrange(5):
            case 0:
                frames.append(_frame(pb.Step(index=at_step + 1, start_position=at, hidden=tensor)))
            case 1:
                after, at = self._steps(opening, 1, at=at, room=1, index=at_step)
                frames += [*after, _frame(pb.Step(index=at_step, start_position=at, hidden=tensor, is_replay=True))]
            case 2:
                frames.append(_frame(pb.Step(index=at_step, start_position=64, hidden=tensor, is_replay=True)))
                due = frozenset({"session_too_long", "protocol_violation"})
            case 3:
                frames.append(_frame(pb.Step(index=at_step, start_position=at + 1, hidden=tensor, is_replay=True)))
                due = frozenset({"bad_position", "session_too_long", "protocol_violation"})
            case _:
                frames.insert(r.randrange(len(frames) + 1), self.mutated(r.choice(frames or [CLOSE])))
                due = frozenset()
        if due:
            due |= NO_ROOM
        return Talk("wrong resumption", (self._line(SESSION_PROTOCOL, _frame(opening), *frames),), due=due)

    def _rerouted(self) -> Talk:
        """Neighbours are exchanged, at right and at wrong moments, for others, for nobody, for the same."""
        r, nodes = self._random, self._facts.nodes
        opening = self._opening(max_length=64)
        if r.randrange(2):
            opening.next.CopyFrom(pb.PeerAddress(peer_id=r.choice(nodes)[0]))
        fed: list[bytes] = []
        steps, _ = self._steps(opening, r.randint(1, 5))
        control = [_frame(opening)]
        if r.randrange(3) == 0:
            opening.previous = r.choice((self._facts.stranger, self._peer))
            control = [_frame(opening)]
            fed = [_envelope(link=pb.Link(session_id=opening.session_id)), *steps]
        else:
            control += steps
        for _ in range(r.choice((1, 1, 2, 5, 30))):
            control.insert(r.randint(1, len(control)), _envelope(reroute=self._reroute()))
        if r.randrange(4) == 0:
            control[-1] = self.mutated(control[-1])
        lines = [self._line(SESSION_PROTOCOL, *control)]
        if fed:
            lines.append(self._line(LINK_PROTOCOL, *fed))
        return Talk("rerouted", tuple(lines), self._ending())

    def _asked_often(self) -> Talk:
        """An honest session of somebody who cannot wait."""
        r = self._random
        opening = self._opening()
        steps, _ = self._steps(opening, r.randint(1, 4))
        frames = list(steps)
        for _ in range(r.choice((1, 10, 40))):
            frames.insert(r.randrange(len(frames) + 1), _envelope(ping=pb.Ping(number=r.choice(INTEGERS))))
        line = self._line(SESSION_PROTOCOL, _frame(opening), *frames)
        return Talk("asked often", (line,), due=NO_ROOM, answers=len(steps))

    # ---- what they are made of

    def _replay(self, opening: pb.Open, at_step: int) -> tuple[list[bytes], int]:
        """What brings a new node to where a lost one was, and the position after it."""
        frames, at = [], 0
        for _ in range(self._random.randrange(3)):
            positions = min(self._random.choice((1, 9, 20)), opening.max_length - at - 8)
            if positions < 1:
                break
            hidden = self._tensor(opening, positions)
            step = pb.Step(index=at_step, start_position=at, hidden=hidden, keep=1, settled=at_step, is_replay=True)
            frames.append(_frame(step))
            at += positions
        return frames, at

    def _reroute(self) -> pb.Reroute:
        r, facts = self._random, self._facts
        peers = [*(node for node, _, _ in facts.nodes), facts.stranger, peer_of("lost"), "", "x"]
        reroute = pb.Reroute(number=r.choice(INTEGERS))
        if r.randrange(3):
            reroute.previous = r.choice(peers)
        if r.randrange(3):
            reroute.next.CopyFrom(pb.PeerAddress(peer_id=r.choice(peers), maddrs=["/"] * r.choice((0, 1, 1, 17))))
        return reroute

    def _ending(self) -> Ending:
        return self._random.choices(tuple(Ending), (80, 10, 8, 2))[0]

    def _opening(self, **changes: Any) -> pb.Open:
        r, facts = self._random, self._facts
        first = r.randrange(self._first, self._end) if r.randrange(4) == 0 else self._first
        fields: dict[str, Any] = {
            "session_id": r.randbytes(16),
            "nonce": r.randbytes(16),
            "model_digest": facts.digest,
            "first_block": first,
            "end_block": r.randint(first + 1, self._end) if r.randrange(4) == 0 else self._end,
            "max_length": r.choice((32, 32, 64, 65, 100, facts.context_length)),
            "batch": 1,
            "codec": r.choice(CODECS),
            "priority": r.choice((-1, 0, 0, 1)),
            "share_prefix": r.randrange(2) == 0,
            "price_units": r.choice((0, 1, MAX_PRICE_UNITS)),
            "prefix_scope": r.choice((b"", b"mine", bytes(MAX_SCOPE_BYTES))),
        }
        fields |= changes
        batch, longest = int(fields["batch"]), int(fields["max_length"])
        if "left_padding" not in fields and 0 < batch <= MAX_BATCH and longest > 2 and r.randrange(8) == 0:
            fields["left_padding"] = [r.choice((0, 1, 2, longest - 1)) for _ in range(batch)]
        return pb.Open(**fields)

    def _data(self, dtype: str, rows: int, positions: int, size: int | None = None) -> bytes:
        """Ordinary numbers."""
        r, size = self._random, self._facts.hidden_size if size is None else size
        if dtype == "int8":
            at = r.randrange(2**12) * 2
            return rows * positions * (r.randbytes(size) + self._floats["bfloat16"][at : at + _scale_bytes(size)])
        length = rows * positions * position_bytes(dtype, size)
        pool = self._floats[dtype]
        at = r.randrange(len(pool) // 8) * 4
        return (pool[at:] + pool * (length // len(pool) + 1))[:length]

    def _tensor(self, opening: pb.Open, positions: int) -> pb.Tensor:
        return pb.Tensor(
            dtype=opening.codec,
            shape=[opening.batch, positions, self._facts.hidden_size],
            data=self._data(opening.codec, opening.batch, positions),
        )

    def _steps(
        self, opening: pb.Open, count: int, *, at: int = 0, room: int = 0, index: int = 0
    ) -> tuple[list[bytes], int]:
        """Frames of honest steps from position ``at`` on, and the position after them; ``room`` is left at the end."""
        r, frames = self._random, []
        for number in range(index, index + count):
            if at and self._facts.can_rewind and r.randrange(6) == 0:
                at = r.randrange(at)
            left = opening.max_length - room - at
            if left < 1:
                at, left = (0, opening.max_length - room) if self._facts.can_rewind else (at, 0)
            if left < 1:
                break
            positions = min(left, r.choice((1, 1, 1, 1, 2, 3, 5, 17, 40, 70)))
            step = pb.Step(
                index=number,
                start_position=at,
                keep=r.choice((0, 0, 1, positions)),
                hidden=self._tensor(opening, positions),
                settled=r.choice((0, number // 2, number)),
                times=[r.random() for _ in range(2 * r.choice((0, 0, 1, 3)))],
                rows=[r.randrange(opening.batch) for _ in range(opening.batch)] if at and r.randrange(6) == 0 else [],
            )
            frames.append(_frame(step))
            at += positions
        return frames, at

    def _not_due(self) -> pb.Envelope:
        """A valid message, likely where it is not due."""
        r = self._random
        opening = self._opening()
        return r.choice(
            (
                pb.Envelope(opened=pb.Opened()),
                pb.Envelope(close=pb.Close()),
                pb.Envelope(receipt=r.randbytes(50)),
                pb.Envelope(failure=pb.Failure(code=r.choice(("busy", "x")), message="no", retry=True, retry_after=-1)),
                pb.Envelope(link=pb.Link(session_id=r.choice((opening.session_id, self._facts.honest_session)))),
                pb.Envelope(info_request=pb.InfoRequest()),
                pb.Envelope(node_info=pb.NodeInfo(peer_id="me", decode_tokens_per_second=float("nan"))),
                pb.Envelope(open=opening),
                pb.Envelope(step=pb.Step(hidden=self._tensor(opening, 1))),
                pb.Envelope(step=pb.Step(hidden=self._tensor(opening, 1), is_replay=True)),
                pb.Envelope(ping=pb.Ping(number=r.choice(INTEGERS))),
                pb.Envelope(pong=pb.Pong(number=1, taken=r.choice(INTEGERS), given=r.choice(INTEGERS))),
                pb.Envelope(rerouted=pb.Rerouted(number=1, taken=r.choice(INTEGERS))),
                pb.Envelope(reroute=self._reroute()),
            )
        )

    def _opening_faults(self) -> list[tuple[str, dict[str, Any], frozenset[str]]]:
        r, facts = self._random, self._facts
        huge = r.choice((MAX_POSITIONS + 1, 2**31, 2**32 - 1))
        elsewhere, unreachable = frozenset({"blocks_not_served"}), frozenset({"peer_unavailable"})
        return [
            ("no session id", {"session_id": r.randbytes(r.choice((0, 1, 15, 17, 1000)))}, VIOLATION),
            ("no nonce", {"nonce": r.randbytes(r.choice((0, 15, 17)))}, VIOLATION),
            ("another model", {"model_digest": "f" * 64}, elsewhere),
            ("no digest", {"model_digest": r.choice(("", "f", "f" * 63, "f" * 65, "\0" * 5000))}, VIOLATION),
            ("no blocks", {"first_block": self._end, "end_block": r.choice((0, self._end))}, VIOLATION),
            (
                "other blocks",
                {"first_block": self._first, "end_block": r.choice((self._end + 1, 2**32 - 1))},
                elsewhere,
            ),
            ("blocks far off", {"first_block": 2**31, "end_block": 2**32 - 1}, elsewhere),
            ("no rows", {"batch": 0}, VIOLATION),
            ("too many rows", {"batch": r.choice((MAX_BATCH + 1, 2**31, 2**32 - 1))}, VIOLATION),
            ("no positions", {"max_length": 0}, VIOLATION),
            ("beyond all positions", {"max_length": huge}, VIOLATION),
            ("beyond the context", {"max_length": facts.context_length + 1}, frozenset({"session_too_long"})),
            ("far beyond", {"max_length": MAX_POSITIONS, "batch": MAX_BATCH}, frozenset({"session_too_long"})),
            ("all the cache", {"max_length": facts.context_length, "batch": MAX_BATCH}, NO_ROOM),
            (
                "another type",
                {"codec": r.choice(("", "float64", "int4", "bfloat16 ", "BFLOAT16", "é" * 900))},
                VIOLATION,
            ),
            ("padding for nobody", {"left_padding": [0] * r.choice((2, 3, 1000))}, VIOLATION),
            ("a step that cannot be", {"resumption": pb.Resumption(at_step=r.choice((2**53, 2**64 - 1)))}, VIOLATION),
            ("no count", {"resumption": pb.Resumption(positions=r.choice((2**53, 2**64 - 1)))}, VIOLATION),
            ("all padding", {"left_padding": [2**32 - 1]}, VIOLATION),
            ("no priority", {"priority": r.choice((2, -2, 2**31 - 1, -(2**31)))}, VIOLATION),
            ("a long scope", {"prefix_scope": bytes(r.choice((MAX_SCOPE_BYTES + 1, 5000)))}, VIOLATION),
            ("no price", {"price_units": r.choice((2**53, 2**64 - 1))}, VIOLATION),
            ("nobody before", {"previous": r.choice(("x", "Qm", "1" * 64, "1" * 5000, " " + self._peer))}, VIOLATION),
            ("nobody after", {"next": pb.PeerAddress(peer_id=r.choice(("", "x", "1" * 64)))}, VIOLATION),
            ("a lost successor", {"next": pb.PeerAddress(peer_id=peer_of("lost"))}, unreachable | NO_ROOM),
            (
                "a successor that serves nothing",
                {"next": pb.PeerAddress(peer_id=facts.stranger)},
                unreachable | NO_ROOM,
            ),
            (
                "too many addresses",
                {"next": pb.PeerAddress(peer_id=peer_of("lost"), maddrs=["/ip4/1.2.3.4/tcp/1"] * r.choice((17, 1000)))},
                VIOLATION,
            ),
            (
                "too long an address",
                {"next": pb.PeerAddress(peer_id=peer_of("lost"), maddrs=["/" + "x" * r.choice((256, 5000))])},
                VIOLATION,
            ),
        ]

    def _step_faults(self, opening: pb.Open, at: int, index: int) -> list[tuple[str, pb.Step, frozenset[str]]]:
        """Steps that cannot follow as number ``index`` at position ``at``, and what they are told."""
        r, size = self._random, self._facts.hidden_size
        rows, codec, longest = opening.batch, opening.codec, opening.max_length
        too_long, bad_position = frozenset({"session_too_long"}), frozenset({"bad_position"})
        right = self._tensor(opening, 1)

        def step(tensor: pb.Tensor, **more: Any) -> pb.Step:
            return pb.Step(hidden=tensor, **{"index": index, "start_position": at, **more})

        def tensor(shape: Sequence[int], data: bytes, dtype: str = codec) -> pb.Tensor:
            return pb.Tensor(dtype=dtype, shape=shape, data=data)

        def filled(value: bytes, *, last_only: bool = False) -> pb.Tensor:
            whole = value * (rows * size)
            if codec == "int8":  # it is the scales that may be strange
                whole = rows * (b"\1" * size + value * (_scale_bytes(size) // len(value)))
            return tensor([rows, 1, size], right.data[: -len(value)] + value if last_only else whole)

        other = r.choice([dtype for dtype in CODECS if dtype != codec])
        strange = _STRANGE_FLOATS[codec]
        faults = [
            (f"the number {name}", step(filled(value, last_only=r.randrange(2) == 0)), VIOLATION)
            for name, value in strange.items()
            if name in ("nan", "signalling nan", "inf", "-inf")
        ]
        faults += [
            (f"the number {name}", step(filled(strange[name])), OUT_OF_RANGE | {""}) for name in ("largest", "least")
        ]
        ahead = longest - at > 1 and at + 1 < longest
        faults += [
            ("one left out", step(right, index=index + r.choice((1, 2, 2**32))), VIOLATION),
            ("the last of all", step(right, index=r.choice((MAX_STEPS - 2, MAX_STEPS, 2**64 - 1))), VIOLATION),
            ("answered before it came", step(right, settled=index + r.choice((1, 2**63))), VIOLATION),
            ("a replay for nobody", step(right, is_replay=True), VIOLATION),
            ("half a time", step(right, times=[0.5] * r.choice((1, 3, 2 * MAX_HOPS + 1))), VIOLATION),
            ("times of too many", step(right, times=[0.5] * (2 * MAX_HOPS + 2)), VIOLATION),
            ("no time", step(right, times=[r.choice((-1.0, float("nan"), float("inf"))), 0.5]), VIOLATION),
            ("ahead", step(right, start_position=at + 1), bad_position if ahead else too_long),
            ("at the limit", step(right, start_position=longest), too_long),
            ("beyond all", step(right, start_position=r.choice((MAX_POSITIONS, 2**31, 2**32 - 1))), VIOLATION),
            ("far ahead", step(right, start_position=MAX_POSITIONS - 1), too_long),
            ("too long", step(self._tensor(opening, longest + 1), start_position=0), too_long),
            ("rows of nobody", step(right, rows=[r.choice((rows, MAX_BATCH, 2**32 - 1))] * rows), bad_position),
            ("too many rows", step(right, rows=[0] * (rows + r.choice((1, 1000)))), VIOLATION),
            ("keeps more than there is", step(right, keep=r.choice((2, 2**31, 2**32 - 1))), VIOLATION),
            ("a shape of two", step(tensor([rows, size], right.data)), VIOLATION),
            ("a shape of four", step(tensor([rows, 1, size, 1], right.data)), VIOLATION),
            ("no shape", step(tensor([], right.data)), VIOLATION),
            ("a long shape", step(tensor([1] * 1000, right.data)), VIOLATION),
            ("a zero", step(tensor(r.choice(([0, 1, size], [rows, 0, size], [rows, 1, 0])), b"")), VIOLATION),
            ("a product beyond 32 bits", step(tensor([256, 2**24, 2**8], right.data)), VIOLATION),
            ("a product beyond 64 bits", step(tensor([256, 2**24, 2**32 - 1], right.data)), VIOLATION),
            ("a product that wraps to it", step(tensor([2**16, 2**16, 2**32 - 1], right.data)), VIOLATION),
            ("a negative shape", step(tensor([2**32 - 1, 1, size], right.data)), VIOLATION),
            ("a byte too few", step(tensor([rows, 1, size], right.data[:-1])), VIOLATION),
            ("a byte too many", step(tensor([rows, 1, size], right.data + b"\0")), VIOLATION),
            ("no data", step(tensor([rows, 1, size], b"")), VIOLATION),
            ("another width", step(tensor([rows, 1, size + 1], self._data(codec, rows, 1, size + 1))), VIOLATION),
            ("a row more", step(tensor([rows + 1, 1, size], self._data(codec, rows + 1, 1))), VIOLATION),
            ("another type", step(tensor([rows, 1, size], self._data(other, rows, 1), other)), VIOLATION),
            (
                "no type",
                step(tensor([rows, 1, size], right.data, r.choice(("", "float64", "int4", "x" * 999)))),
                VIOLATION,
            ),
            ("nothing", pb.Step(index=1), VIOLATION),
        ]
        return faults

    # ---- mutations of bytes

    def mutated(self, frame: bytes) -> bytes:
        """A message with something done to one of its fields, or to its bytes."""
        r = self._random
        if r.randrange(4) == 0:
            return self._bytes_changed(frame)
        try:
            tree = parse(frame)
        except IndexError:  # it is none any more
            return self._bytes_changed(frame)
        for _ in range(r.choice((1, 1, 1, 2, 4))):
            self._change_a_field(tree)
        changed = write(tree)
        return changed if len(changed) <= MAX_FRAME_BYTES else frame

    def _bytes_changed(self, frame: bytes) -> bytes:
        r = self._random
        at = r.randint(0, len(frame))
        match r.randrange(5):
            case 0:
                return frame[:at]
            case 1:
                return frame + r.randbytes(r.randint(1, 40))
            case 2:
                return frame[:at] + r.randbytes(r.randint(1, 12)) + frame[at:]
            case 3:
                return frame * r.randint(2, 4)
            case _:
                changed = bytearray(frame or b"\0")
                for _ in range(r.randint(1, 4)):
                    changed[min(r.randrange(len(changed)), r.randrange(len(changed)))] = r.randrange(256)
                return bytes(changed)

    def _change_a_field(self, tree: list[Field]) -> None:
        r = self._random
        level = tree
        while True:
            inner = [one.value for one in level if isinstance(one.value, list) and one.value]
            if not inner or r.randrange(4) == 0:
                break
            level = r.choice(inner)
        if not level:
            level.append(Field(r.randint(1, 40), 0, r.choice(INTEGERS)))
            return
        at = r.randrange(len(level))
        one = level[at]
        match r.randrange(11):
            case 0:
                del level[at]
            case 1:
                level[at:at] = [Field(one.number, one.kind, one.value)] * r.choice((1, 2, 300))
            case 2:
                level.insert(at, Field(r.choice((one.number, r.randint(1, 40), 2**29 - 1)), 0, r.choice(INTEGERS)))
            case 3:
                level[at] = Field(one.number, 2, self._some_bytes(one.value))
            case 4:
                one.number = r.choice((r.randint(1, 15), 100, 2**29 - 1, 0))
            case 5:
                one.kind = r.randrange(8)
            case 6:
                nested: list[Field] = [one]
                for _ in range(r.choice((1, 2, 150))):
                    nested = [Field(one.number, 2, nested)]
                level[at] = nested[0]
            case 7 if isinstance(one.value, list):
                one.value.extend(self._random.choice(parse(self._not_due().SerializeToString())).as_list())
            case 8:
                one.length = r.choice(INTEGERS)
            case _ if one.kind == 0:
                level[at] = Field(one.number, 0, r.choice(INTEGERS))
            case _:
                level[at] = Field(one.number, 2, self._some_bytes(one.value))

    def _some_bytes(self, value: Any) -> bytes:
        r = self._random
        old = write(value) if isinstance(value, list) else value if isinstance(value, bytes) else b""
        match r.randrange(6):
            case 0:
                return b""
            case 1:
                return old[: r.randint(0, len(old))]
            case 2:
                return old + r.randbytes(r.randint(1, 20))
            case 3:
                return b"\xff" * r.choice((1, 10, 16, 64, 300))
            case 4:
                return "ａ\u202e\0é".encode() * r.choice((1, 20))
            case _:
                return r.randbytes(len(old))


@dataclass
class Field:
    """One field of a protobuf message; ``length`` is a lie about its bytes."""

    number: int
    kind: int
    value: int | bytes | list[Field]
    length: int | None = None

    def as_list(self) -> list[Field]:
        """Its fields, or itself."""
        return self.value if isinstance(self.value, list) else [self]


_MESSAGES: dict[int, Any] = {
    **{number: {} for number in (2, 4, 6, 7, 8, 9, 11, 12, 13)},
    **{1: {10: {}, 16: {}}, 3: {5: {}}, 10: {3: {}}},
}
"""Which fields of an envelope are messages, by number."""


def parse(frame: bytes, messages: dict[int, Any] = _MESSAGES) -> list[Field]:
    """The fields of a valid message."""
    fields, at = [], 0
    while at < len(frame):
        tag, at = _read_varint(frame, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes | list[Field]
        if kind == 0:
            value, at = _read_varint(frame, at)
        elif kind == 2:
            length, at = _read_varint(frame, at)
            raw = frame[at : at + length]
            value = parse(raw, messages[number]) if number in messages else raw
            at += length
        else:
            width = 8 if kind == 1 else 4
            value, at = frame[at : at + width], at + width
        fields.append(Field(number, kind, value))
    return fields


def write(fields: Sequence[Field]) -> bytes:
    """The bytes of fields, valid or not."""
    written = bytearray()
    for one in fields:
        written += _varint(one.number << 3 | one.kind)
        if isinstance(one.value, int):
            written += _varint(one.value)
            continue
        raw = write(one.value) if isinstance(one.value, list) else one.value
        if one.kind == 2:
            written += _varint(len(raw) if one.length is None else one.length)
        written += raw
    return bytes(written)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _scale_bytes(size: int) -> int:
    return position_bytes("int8", size) - size


def _envelope(**body: Any) -> bytes:
    frame: bytes = pb.Envelope(**body).SerializeToString()
    return frame


def _frame(message: pb.Open | pb.Step) -> bytes:
    return _envelope(**{"open" if isinstance(message, pb.Open) else "step": message})


_STRANGE_FLOATS = {
    "float32": {
        "nan": b"\0\0\xc0\x7f",
        "signalling nan": b"\1\0\x80\x7f",
        "inf": b"\0\0\x80\x7f",
        "-inf": b"\0\0\x80\xff",
        "largest": b"\xff\xff\x7f\x7f",
        "least": b"\1\0\0\0",
    },
    "bfloat16": {
        "nan": b"\xc0\x7f",
        "signalling nan": b"\x81\x7f",
        "inf": b"\x80\x7f",
        "-inf": b"\x80\xff",
        "largest": b"\x7f\x7f",
        "least": b"\1\0",
    },
    "float16": {
        "nan": b"\0\x7e",
        "signalling nan": b"\1\x7c",
        "inf": b"\0\x7c",
        "-inf": b"\0\xfc",
        "largest": b"\xff\x7b",
        "least": b"\1\0",
    },
}
_STRANGE_FLOATS["int8"] = _STRANGE_FLOATS["bfloat16"]
