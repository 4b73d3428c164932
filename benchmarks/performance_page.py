"""docs/performance.md, made of what the benchmarks kept.

    python -m benchmarks.performance_page

Run it whenever a result in ``benchmarks/results`` is new; a test compares the page with the results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

_HEAD = """\
# Performance

What was measured, with the command that measures it again. Figures are medians of runs in which the things compared
took turns; the machines have two cores without a GPU, and other programs were at work on them. This page is made of
[the results](../benchmarks/results) by `python -m benchmarks.performance_page`;
[benchmarks/README.md](../benchmarks/README.md) says what each script asks.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(part() for part in (ring, speculation, failover, node, routes, places, petals))])


def _kept(name: str) -> tuple[dict[str, Any], Any]:
    """All that is kept of a run, and its results alone."""
    facts = json.loads((RESULTS / f"{name}.json").read_text())
    return facts, facts["results"]


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _section(title: str, facts: dict[str, Any], *paragraphs: str) -> str:
    command = f"```bash\n{facts['command']}\n```\n"
    return "\n".join([f"## {title}\n", *paragraphs, command])


def _between(spread: dict[str, float]) -> str:
    return f"{spread['median']:g} ({spread['min']:g} – {spread['max']:g})"


def ring() -> str:
    """The way round a ring."""
    facts, found = _kept("mesh")
    far, near, prefill, streams = (found[part] for part in ("ring", "hop", "prefill", "streams"))
    rows = [
        (
            f"a token through {far['nodes']} nodes, {far['one_way_ms']:g} ms one way between all hosts, 100 Mbit/s",
            f"{far['ms']['token']:g} ms",
            f"{_between(far['times_the_limit'])} × the limit, which is all delays and all computing",
        ),
        (
            f"a token through {near['nodes']} nodes on one machine",
            f"{near['ms']['token']:g} ms",
            f"{_between(near['overhead_ms_per_node'])} ms for each node beyond computing",
        ),
        (
            f"the first token of a prompt of {prefill['prompt_tokens']} through {prefill['nodes']} nodes at "
            f"{prefill['one_way_ms']:g} ms, in {prefill['parts']} parts",
            f"{prefill['ms_to_first_token']['parts']:g} ms",
            f"{_between(prefill['times_as_quick_as_one_piece'])} times as quick as in one piece",
        ),
        *(
            (
                f"{count} {'text' if count == '1' else 'texts'} at once through {streams['nodes']} nodes on two cores",
                f"{rate:g} tokens/s",
                "" if count == "1" else f"{rate / streams['tokens_per_s']['1']:.1f} × one",
            )
            for count, rate in streams["tokens_per_s"].items()
        ),
    ]
    text = "A random Llama of 42 M parameters, float32, one thread for each node, no guesses ahead.\n"
    return _section("The way round a ring", facts, text, _table(("what", "figure", "beside"), rows))


def speculation() -> str:
    """Guesses ahead."""
    facts, found = _kept("speculation")
    rows = [
        (
            f"{one['kind']}: {one['text'].rstrip('.')}",
            one["plain_tokens_per_s"],
            one["speculative_tokens_per_s"],
            f"{one['ratio_median']:g} ({one['ratio_min']:g} – {one['ratio_max']:g})",
        )
        for one in found
    ]
    text = "Four nodes and a client 40 ms apart one way. Greedy; every text is the same with and without guesses.\n"
    head = ("text", "plain tokens/s", "with guesses", "times")
    return _section("Guesses ahead", facts, text, _table(head, rows))


def failover() -> str:
    """Lost nodes."""
    facts, found = _kept("failover")
    refused = sum(found["refused"].values())
    text = (
        f"{found['faults']} faults (processes killed, stopped, cut off, at any step, one or two at once) in "
        f"{found['texts']} texts: {found['finished_with_the_same_text']} came out as undisturbed, {found['wrong']} "
        f"came out otherwise, and {refused} ended with a typed error because no node was left for some blocks. A "
        f"pause took {found['pause_s']['median']:g} s (95th percentile {found['pause_s']['p95']:g} s), of which up to "
        f"{found['silent_host_found_after_s']:g} s are waiting before a host that says nothing counts as lost.\n"
    )
    return _section("When nodes are lost", facts, text)


def node() -> str:
    """One node: many sessions, and what it reads and holds."""
    facts, found = _kept("node_throughput")
    text = (
        f"One thread, a Llama of hidden size 1024 and 8 blocks, float32: {found['one_session_tokens_per_s']:g} "
        f"tokens/s of one session, {found['all_sessions_tokens_per_s']:g} of {found['sessions']} together "
        f"({found['gain_median']:g} times, {found['gain_min']:g} – {found['gain_max']:g}).\n"
    )
    loading, loads = _kept("partial_load")
    rows = [
        (one["what"], one["blocks"], one["layout"], one["quantization"], one["read"], one["peak"], one["held"])
        for one in loads["loads"]
    ]
    head = ("what", "blocks", "layout", "quantization", "read", "peak memory", "held")
    parts = f"What is read and held of a model, as fractions of its weight file (`{loading['command']}`):\n"
    return _section("One node", facts, text, parts, _table(head, rows), "The first figures are those of:\n")


def routes() -> str:
    """Planning."""
    facts, found = _kept("route_planning")
    compared = ", ".join(
        f"{one['equal']:,} of {one['cases']:,} in {name} swarms" for name, one in found["brute_force"].items()
    )
    text = (
        f"Routes that weigh what the best of all chains weighs, found by trying them: {compared}. From "
        "announcements to a route for 500 nodes and 80 blocks, milliseconds of one thread's CPU time "
        "(median, 95th percentile):\n"
    )
    tables = []
    for name, planned in found["planning"].items():
        cells: dict[str, dict[str, str]] = {}
        for question, one in planned.items():
            spans, _, wanted = question.partition(": ")
            cells.setdefault(wanted, {})[spans] = f"{one['median_ms']:.1f}, {one['p95_ms']:.1f}"
        head = (f"{name} swarms", *next(iter(cells.values())))
        tables.append(_table(head, ((wanted, *some.values()) for wanted, some in cells.items())))
    return _section("Planning routes", facts, text, *tables)


def places() -> str:
    """Knowing where nodes are."""
    facts, found = _kept("geo_routing")
    sizes, guess = found["nodes"], found["guess_over_truth"]
    head = ("the planner knows", *(f"{size} nodes: ms per token, gain" for size in sizes))
    rows = [
        (
            name,
            *(
                f"{one['ms_per_token']['median']:.0f}, {one['less_than_nothing']['median']:.0%} "
                f"({one['less_than_nothing']['quarter']:.0%} – {one['less_than_nothing']['three_quarters']:.0%})"
                for one in (size["told"][name] for size in sizes.values())
            ),
        )
        for name in next(iter(sizes.values()))["told"]
    ]
    users = next(iter(sizes.values()))["users"]
    intro = (
        f"A simulation with the real planner: {users} users for each size of swarm, users and nodes in eight cities on "
        "three continents, round trips between the cities as IBM Cloud publishes them (September 2024), a last mile of "
        f"1 to 10 ms for each machine, {found['blocks']} blocks. Medians of what a token takes once round, and of what "
        "is gained over knowing nothing of places, with the middle half of the users:\n"
    )
    near = ", ".join(
        f"{size['near']['share_of_users_with_a_route']:.0%} of the users of {count} nodes"
        for count, size in sizes.items()
    )
    close = (
        "How much is gained depends on how many nodes there are to choose from: a swarm has to have the whole model "
        f"near a user. A limit of {found['near_km']:g} km left a route to {near}. Guesses from places are "
        f"{guess['median']:g} times the truth at the median ({guess['least']:g} – {guess['most']:g}). The chart: "
        "[geo_routing.svg](../benchmarks/results/geo_routing.svg).\n"
    )
    return _section("Where nodes are", facts, intro, _table(head, rows), close)


def petals() -> str:
    """Ours beside Petals."""
    facts, found = _kept("petals")
    head = ("network", "load of the machine", "ours", "Petals", "Petals, servers to servers")
    names = ("ours", "petals", "petals, revived")
    rows = [
        (
            where,
            f"{one['load_average']:g}",
            *(f"{one['tokens_per_s'][name]:g}: {_between(one['ms_per_token'][name])} ms" for name in names),
        )
        for where, one in found.items()
    ]
    texts = "all texts were the same" if all(one["same_text"] for one in found.values()) else "texts differed"
    intro = (
        "The same random Llama of 42 M parameters, float32, in three parts on three servers with one thread each, one "
        f"text at a time, greedy, without guesses; {texts}. Tokens per second, and the median time of a token with its "
        "least and most:\n"
    )
    close = (
        "In Petals the client carries each step to every server and back. Its servers can also send a step on "
        "themselves, but the client never asks them to; the last column is a copy in which it does. There the output "
        "still travels to the client, which still sends it on, and a server takes what comes first. Ours signs "
        "receipts of its work, Petals has none. A server is one Python process of ours and three of theirs, on two "
        "cores for all. Petals is at commit 22afba6 with newer libraries than it names; the script's head says which, "
        "and what it took to start it.\n"
    )
    return _section("Beside Petals", facts, intro, _table(head, rows), close)


if __name__ == "__main__":
    PAGE.write_text(page())
