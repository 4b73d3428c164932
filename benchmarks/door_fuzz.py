"""A million messages from strangers at the doors of two nodes: how fast they are answered, and what they leave behind.

    python -m benchmarks.door_fuzz [--messages 1000000] [--seed 1] [--out benchmarks/results]

The conversations are those of the tests (``tests/support/fuzz.py``): eight strangers at a time, valid and broken
messages of every kind, over the transport of the tests to real nodes with real blocks in this process, while one honest
client has the same session again and again and compares every answer with the one it got in quiet. The command fails
if anything was answered otherwise than it should, if the log holds a warning, or if memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import uvloop

from benchmarks.support.report import commit, keep
from tests.support.models import make_model
from tests.support.ring import a_ring
from tests.support.siege import CACHE_BYTES, LIMITS, Siege, impatient, overheard, resident_bytes

WARM_UP = 20_000
REPORTS = 20
MOST_GROWTH_BYTES = 32 << 20


async def besiege(messages: int, seed: int) -> dict[str, Any]:
    """The siege, and what there is to say of it."""
    with tempfile.TemporaryDirectory() as name, impatient(), overheard() as heard:
        model = make_model(
            Path(name) / "small",
            hidden_size=32,
            num_hidden_layers=3,
            intermediate_size=48,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        async with a_ring(model) as ring:
            for first, end in ((0, 1), (1, 3)):
                await ring.add(first, end, cache_bytes=CACHE_BYTES, limits=LIMITS)
            siege = Siege(ring, seed)
            await siege.learn()
            await siege.run(min(WARM_UP, messages))
            before, tasks, started = resident_bytes(), len(asyncio.all_tasks()), time.perf_counter()
            counted = siege.messages
            course = []
            while siege.messages < messages and not siege.complaints:
                await siege.run(max(1, (messages - WARM_UP) // REPORTS))
                course.append(resident_bytes())
                seconds = time.perf_counter() - started
                print(
                    f"{siege.messages:>9} messages, {(siege.messages - counted) / seconds:6.0f}/s, "
                    f"{course[-1] / 2**20:6.1f} MiB, {siege.lessons} honest sessions",
                    flush=True,
                )
            seconds = time.perf_counter() - started
        return {
            "messages": siege.messages,
            "messages_per_s": round((siege.messages - counted) / seconds),
            "seconds": round(seconds, 1),
            "resident_mib_before": round(before / 2**20, 1),
            "resident_mib_after": round(course[-1] / 2**20, 1) if course else None,
            "resident_mib_most": round(max(course) / 2**20, 1) if course else None,
            "tasks_left": len(asyncio.all_tasks()) - tasks if course else 0,
            "complaints": siege.complaints,
            "alarms": heard.alarms[:20],
            "crashes": len(ring.crashes),
            "honest_sessions": siege.lessons,
            "honest_difference": siege.difference,
            "honest_step_ms": {"quiet": _milliseconds(siege.quiet_seconds), "besieged": _milliseconds(siege.seconds)},
            "reactions": dict(siege.reactions.most_common()),
            "talks": dict(siege.talks.most_common()),
            "log": dict(heard.events.most_common()),
        }


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    return {
        "median": round(1000 * statistics.median(seconds), 2),
        "p95": round(1000 * statistics.quantiles(seconds, n=20)[-1], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    of_commit = commit()
    results = uvloop.run(besiege(given.messages, given.seed))
    command = f"python -m benchmarks.door_fuzz --messages {given.messages} --seed {given.seed}"
    keep(given.out, "door_fuzz", command, of_commit, results)
    print(json.dumps(results, indent=2))
    grown = (results["resident_mib_after"] or 0) - results["resident_mib_before"]
    if results["complaints"] or results["alarms"] or results["tasks_left"] > 0 or grown * 2**20 > MOST_GROWTH_BYTES:
        sys.exit("the door did not stand")


if __name__ == "__main__":
    main()
