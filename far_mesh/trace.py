"""Where the time of an answer went: waiting at nodes, computing there, links, and the client itself. Pure.

What nodes took is their own word (:class:`~discovery.protocol.messages.HopTime`); the client measures how long each
step was under way, and what the nodes do not claim of that is the links'. So a node that claims too little blames the
links, and one that claims too much cannot claim more than the round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from rich.table import Table
from rich.text import Text

_MS = 1000.0
_BARS = 16
_PARTS = (("compute", "█", "green"), ("queue", "▓", "yellow"), ("links", "░", "blue"), ("client", "▒", "magenta"))


@dataclass(frozen=True, slots=True)
class NodeTime:
    """What a node says that a step took in it, in seconds."""

    peer_id: str
    waited: float
    computed: float


@dataclass(frozen=True, slots=True)
class StepTrace:
    """One step round the ring. Times are seconds of a steady clock.

    Attributes:
        positions: that were sent; ``tokens``: that its answer made certain, 0 where it was void or of a prompt's
            beginning.
        sent_at: when it left; ``answered_at``: when its answer was there; from ``taken_at`` to ``chosen_at`` the client
            made tokens of it.
        nodes: those it went through, in order.
    """

    positions: int
    tokens: int
    sent_at: float
    answered_at: float
    taken_at: float
    chosen_at: float
    nodes: tuple[NodeTime, ...] = ()


@dataclass(frozen=True)
class Parts:
    """What one or several steps took, in seconds.

    Attributes:
        compute: by peer id.
        links: all of the rounds that no node claims: the ways between client and nodes, and what sits on them.
        client: embedding, head, sampling.
        until_token: from the token before, or from the beginning, to this one. Less than the sum where steps overlap,
            more where the reader let tokens wait.
    """

    queue: float = 0.0
    compute: Mapping[str, float] = field(default_factory=dict)
    links: float = 0.0
    client: float = 0.0
    until_token: float = 0.0

    @property
    def computed(self) -> float:
        """By all nodes together."""
        return sum(self.compute.values())


@dataclass(frozen=True)
class Trace:
    """An answer's steps in the order in which they were taken; ``began_at`` on the same clock."""

    began_at: float
    steps: tuple[StepTrace, ...]

    @property
    def tokens(self) -> int:
        """That became certain."""
        return sum(step.tokens for step in self.steps)

    @property
    def prompt(self) -> tuple[StepTrace, ...]:
        """The steps that the prompt went in; the last of them brought the first token, if there is one."""
        end = next((number for number, step in enumerate(self.steps, 1) if step.tokens), len(self.steps))
        return self.steps[:end]

    @property
    def later(self) -> tuple[StepTrace, ...]:
        """The steps after the prompt's that brought tokens."""
        return tuple(step for step in self.steps[len(self.prompt) :] if step.tokens)

    @property
    def void_steps(self) -> int:
        """Steps after the prompt's with wrong guesses, from which no token came."""
        return len(self.steps) - len(self.prompt) - len(self.later)

    @property
    def peers(self) -> tuple[str, ...]:
        """All nodes that took part, in the order in which they are first met."""
        return tuple(dict.fromkeys(node.peer_id for step in self.steps for node in step.nodes))

    def parts(self) -> list[Parts]:
        """Of the prompt, and of each step after it that brought tokens.

        The steps of a prompt overlap: nodes' times are those of all together, links those of the last.
        """
        prompt = self.prompt
        if not prompt or not prompt[-1].tokens:
            return []
        each = [_parts(step, step.sent_at) for step in prompt]
        whole = replace(
            total(each),
            links=each[-1].links,
            client=max(0.0, prompt[0].sent_at - self.began_at) + each[-1].client,
            until_token=prompt[-1].chosen_at - self.began_at,
        )
        found, before = [whole], prompt[-1].chosen_at
        for step in self.later:
            found.append(_parts(step, before))
            before = step.chosen_at
        return found


def _parts(step: StepTrace, before: float) -> Parts:
    """``before``: when the token before it was there."""
    under_way = step.answered_at - step.sent_at
    claimed = sum(node.waited + node.computed for node in step.nodes)
    believed = min(1.0, under_way / claimed) if claimed > 0 else 0.0
    compute: dict[str, float] = {}
    for node in step.nodes:
        compute[node.peer_id] = compute.get(node.peer_id, 0.0) + believed * node.computed
    return Parts(
        queue=believed * sum(node.waited for node in step.nodes),
        compute=compute,
        links=max(0.0, under_way - claimed),
        client=max(0.0, step.sent_at - before) + step.chosen_at - step.taken_at,
        until_token=step.chosen_at - before,
    )


def total(parts: Sequence[Parts]) -> Parts:
    """All together."""
    return _each(parts, sum)


def median(parts: Sequence[Parts]) -> Parts:
    """The median of each part by itself; nodes that were not there do not count."""
    return _each(parts, statistics.median)


def _each(parts: Sequence[Parts], of: Callable[[Sequence[float]], float]) -> Parts:
    if not parts:
        return Parts()
    peers = dict.fromkeys(peer_id for one in parts for peer_id in one.compute)
    return Parts(
        queue=of([one.queue for one in parts]),
        compute={peer: of([one.compute[peer] for one in parts if peer in one.compute]) for peer in peers},
        links=of([one.links for one in parts]),
        client=of([one.client for one in parts]),
        until_token=of([one.until_token for one in parts]),
    )


def as_facts(trace: Trace) -> dict[str, Any]:
    """For ``--json``; times in milliseconds."""
    parts = trace.parts()
    return {
        "peers": trace.peers,
        "tokens": trace.tokens,
        "void_steps": trace.void_steps,
        "prompt_positions": [step.positions for step in trace.prompt],
        "prompt": parts_as_facts(parts[0]) if parts else None,
        "median_step": parts_as_facts(median(parts[1:])) if parts[1:] else None,
        "total": parts_as_facts(total(parts)),
        "steps": [
            {"positions": step.positions, "tokens": step.tokens} | parts_as_facts(one)
            for step, one in zip(trace.later, parts[1:], strict=True)
        ],
    }


def parts_as_facts(parts: Parts) -> dict[str, Any]:
    """For JSON, in milliseconds."""
    return {
        "queue_ms": _ms(parts.queue),
        "compute_ms": {peer_id: _ms(seconds) for peer_id, seconds in parts.compute.items()},
        "links_ms": _ms(parts.links),
        "client_ms": _ms(parts.client),
        "until_token_ms": _ms(parts.until_token),
    }


def _ms(seconds: float) -> float:
    return round(seconds * _MS, 3)


def table(trace: Trace) -> Table:
    """The prompt, the median of the steps after it, and all of them, in milliseconds."""
    parts = trace.parts()
    shown = Table(title="Where the time went, in milliseconds", title_justify="left")
    shown.add_column("step")
    shown.add_column("queue", justify="right")
    for peer_id in trace.peers:
        shown.add_column(f"…{peer_id[-6:]}", justify="right")
    for name in ("links", "client", "until token"):
        shown.add_column(name, justify="right")
    rows = [("prompt", parts[0]), ("median", median(parts[1:]))] if parts[1:] else [("prompt", total(parts))]
    for name, one in (*rows, ("total", total(parts))):
        compute = (_cell(one.compute.get(peer_id)) for peer_id in trace.peers)
        shown.add_row(name, _cell(one.queue), *compute, _cell(one.links), _cell(one.client), _cell(one.until_token))
    return shown


def plot(trace: Trace, width: int = 60) -> Text:
    """A bar for each step after the prompt, or for several neighbouring ones: what the mean of them took."""
    parts = trace.parts()[1:]
    text = Text()
    if not parts:
        return text
    groups = [parts[first:end] for first, end in _groups(len(parts))]
    means = [[sum(value) / len(group) for value in zip(*map(_values, group), strict=True)] for group in groups]
    longest = max(max(sum(mean) for mean in means), 1e-9)
    first = 1
    for group, mean in zip(groups, means, strict=True):
        last = first + len(group) - 1
        text.append(f"{first if last == first else f'{first}–{last}':>11} ")
        for (_, sign, colour), cells in zip(_PARTS, _cells(mean, width / longest), strict=True):
            text.append(sign * cells, style=colour)
        text.append(f" {sum(mean) * _MS:.1f} ms\n")
        first = last + 1
    text.append(" " * 12)
    for name, sign, colour in _PARTS:
        text.append(f"{sign} {name}  ", style=colour)
    return text


def _groups(count: int) -> Iterable[tuple[int, int]]:
    size = -(-count // _BARS)
    return ((first, min(first + size, count)) for first in range(0, count, size))


def _values(parts: Parts) -> tuple[float, ...]:
    """In the order of the signs."""
    return parts.computed, parts.queue, parts.links, parts.client


def _cells(values: Sequence[float], scale: float) -> list[int]:
    """Whole cells whose ends are where the sums of the values are, so that a bar is as long as its sum."""
    ends, reached = [0], 0.0
    for value in values:
        reached += value
        ends.append(round(reached * scale))
    return [end - begin for begin, end in pairwise(ends)]


def _cell(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * _MS:.1f}"
