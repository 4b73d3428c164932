"""What ``far-node`` shows: events while it works, and the status of a running node."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console as Terminal
from rich.console import Group
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from discovery.console import Console
from discovery.score import what_helps
from far_node.capacity import readable_bytes
from far_node.standing import PARTS, Standing

if TYPE_CHECKING:
    from discovery.dht.reach import Reach


class Story:
    """Tells what happens: one JSON object per event, sentences, and a moving bar where somebody is looking.

    The bar is shown between ``with story:`` and the end of that block.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if not self._console.as_json and sys.stdout.isatty():
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[how_far]}"),
            )
            self._bar = Progress(*columns, TimeElapsedColumn(), transient=True)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._tasks = None, {}

    def tell(self, event: str, **facts: Any) -> None:
        """Something happened; what this version does not know is not told to people."""
        self._console.event(event, _sentence(event, facts), **facts)
        if event == "progress" and self._bar is not None:
            self._move(self._bar, **facts)

    def ready(
        self,
        about: dict[str, Any],
        reach: Reach,
        relays: Sequence[str] | None,
        host_maddrs: Sequence[str],
        **who: Any,
    ) -> None:
        """The node serves."""
        sentence = f"{_serving(about)}\nas {who['peer_id']}, paid to {who['wallet']}"
        if relays is not None or reach.way == "none":
            sentence += f"\nreached {_way_in(asdict(reach), relays, host_maddrs)}"
        self._console.event("ready", sentence, **who, relays=relays, reached=asdict(reach), **about)

    def changed(self, command: str, told: dict[str, Any]) -> None:
        """A command to a running node was carried out."""
        event = {"load": "loaded", "swap": "swapped", "unload": "unloaded"}[command]
        done = _serving(told) if "model_id" in told else "the model is unloaded"
        self._console.event(event, done + _cut_short(told), **told)

    def stopped(self, told: dict[str, Any]) -> None:
        """The node is gone."""
        self._console.event("stopped", "stopped" + _cut_short(told), **told)

    def _move(self, bar: Progress, work: str, done: int, total: int, unit: str, **_: Any) -> None:
        if work not in self._tasks:
            self._tasks[work] = bar.add_task(work, how_far="")
        far = (f"{readable_bytes(done)} of {readable_bytes(total)}") if unit == "bytes" else f"{done} of {total} {unit}"
        bar.update(self._tasks[work], completed=done, total=total, how_far=far)


def _sentence(event: str, facts: dict[str, Any]) -> str | None:
    match event:
        case "starting":
            return f"looking for {facts['model']} …"
        case "loading":
            first, end = facts["blocks"]
            size = f"{facts['quantization']}, {readable_bytes(facts['bytes'])}"
            tight = "\nwarning: that leaves less memory free than --reserve-gb and --cache-mb ask for"
            return f"loading blocks {first}:{end} of {facts['model_id']} ({size}) …{tight if facts['tight'] else ''}"
        case "making_room":
            return f"sessions of {facts['model_id']} end first, then it makes room …"
        case "moving":
            (first, end), (to, until) = facts["blocks"], facts["to"]
            return f"moving from blocks {first}:{end} to {to}:{until}: {facts['why']} …"
        case "moved":
            return "serving blocks {}:{}".format(*facts["blocks"])
        case "leaving" if facts["sessions"]:
            return f"waiting for {facts['sessions']} open sessions to end; once more, and they are cut off"
    return None


def _serving(about: dict[str, Any]) -> str:
    first, end = about["blocks"]
    room, length = about["expected_sessions"], about["expected_session_length"]
    return (
        f"serving blocks {first}:{end} of {about['block_count']} of {about['model_id']} "
        f"({about['quantization']}, {about['dtype']}): {readable_bytes(about['parameter_bytes'])} of weights, "
        f"{readable_bytes(about['cache_budget_bytes'])} of cache for about {room} sessions of {length} tokens"
    )


def _cut_short(told: dict[str, Any]) -> str:
    return "" if told.get("drained", True) else "; sessions that had not ended were cut off"


def _way_in(reach: dict[str, Any], relays: Sequence[str] | None, host_maddrs: Sequence[str]) -> str:
    """How others reach a node, in words."""
    ports = " or ".join(maddr.rpartition("/")[2] for maddr in host_maddrs)
    if relays is None:
        if reach["way"] == "none":
            return f"by nobody: {reach['why']}; let the router forward port {ports} (TCP), or start with --relay"
        return f"directly: {reach['why']}" if reach["way"] else f"directly, as far as is known: {reach['why']}"
    better = f"open port {ports} and start without --relay to be reached directly"
    if not relays:
        return f"by nobody: no relay answers, trying again; {better}"
    return f"through {' and '.join(f'the relay {relay}' for relay in relays)}, which is slower; {better}"


def print_status(told: dict[str, Any], standing: Standing) -> None:
    """The answer to ``far-node status``, for people, and how others see the node."""
    Terminal().print(status_view(told, standing))


def print_metrics(samples: Iterable[tuple[str, dict[str, str], float]]) -> None:
    """The numbers of a node, for people."""
    table = Table("metric", "of", "value", box=None, pad_edge=False, header_style="bold")
    for name, labels, value in samples:
        of = labels.get("model", "") if labels.keys() <= {"model"} else ", ".join(f"{k} {v}" for k, v in labels.items())
        table.add_row(name, of, f"{value:,.10g}")
    Terminal(width=None if sys.stdout.isatty() else 1000).print(table, markup=False)


def status_view(told: dict[str, Any], standing: Standing) -> Group:
    """The same, to be shown in one place again and again."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")
    for name, value in (_node_facts(told) | _standing_facts(standing)).items():
        facts.add_row(name, Text(value))
    models = Table("model", "blocks", "weights", "memory", "cache free", "sessions", "state")
    for model in told["models"]:
        first, end = model["blocks"]
        models.add_row(
            model["model_id"],
            f"{first}:{end} of {model['block_count']}",
            f"{model['quantization']}, {model['dtype']}",
            readable_bytes(model["parameter_bytes"]),
            f"{readable_bytes(model['cache_free_bytes'])} of {readable_bytes(model['cache_budget_bytes'])}",
            str(model["open_sessions"]),
            model["state"],
        )
    return Group(facts, models)


def _standing_facts(standing: Standing) -> dict[str, str]:
    if standing.seen is None or standing.score is None:
        return {"score": standing.why}
    parts = ", ".join(f"{name} {getattr(standing.score, name):.3f}" for name in PARTS)
    found = {"score": f"{standing.score.value:.3f}: {parts}"}
    number = f"{standing.probers} prober{'' if standing.probers == 1 else 's'}"
    found["seen by"] = f"{number} within a day, as {standing.discovery} says"
    helps = what_helps(standing.seen)
    return found | ({"would help": "\n".join(helps)} if helps else {})


def _node_facts(told: dict[str, Any]) -> dict[str, str]:
    minutes, seconds = divmod(told["uptime_seconds"], 60)
    hours, minutes = divmod(minutes, 60)
    memory, total = told["memory_free_bytes"], told["memory_total_bytes"]
    return {
        "node": f"{told['peer_id']} ({told['state']})",
        "paid to": told["wallet"],
        "asks for": f"{told['price_units']} units (1e-9 FAR) for 1,000 token-layers",
        "addresses": "\n".join(told["addresses"]),
        "reached": _way_in(told["reached"], told["relays"], told["host_maddrs"]),
        "up for": f"{hours} h {minutes} min {seconds} s",
        "device": f"{told['device']}, {readable_bytes(memory)} of {readable_bytes(total)} free",
        "sessions": f"{told['open_sessions']} open, {told['queued_steps']} steps waiting",
        "speed": f"{told['decode_tokens_per_second']:.1f} tokens/s in batches of {told['batch_rows']}; "
        f"prompts {told['prefill_tokens_per_second']:.1f} tokens/s",
        "served": f"{told['token_layers_served']} token-layers",
        "versions": ", ".join(f"{name} {version}" for name, version in told["versions"].items()),
    }
