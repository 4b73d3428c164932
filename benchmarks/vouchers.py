"""Vouchers under attack: how many bad ones of each kind are accepted, and what it costs to look at one.

python -m benchmarks.vouchers [--count 100000] [--seed 1] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.support.report import commit, keep
from far_mesh.marketplace.payments.errors import VoucherRefused
from far_mesh.marketplace.payments.vouchers import check, parse
from tests.support.vouchers import DEPOSIT, PROMISED, attempts, bench, good

CHANNEL_EVERY = 1_000


def attack(count: int, seed: int) -> dict[str, Any]:
    """Try ``count`` bad vouchers of all kinds, on a fresh channel every thousand, and a good one on each channel."""
    chance = random.Random(seed)
    refused, accepted, good_ones, seconds = Counter[str](), Counter[str](), 0, []
    for start in range(0, count, CHANNEL_EVERY):
        on = bench(chance)
        for kind, document in attempts(on, chance, min(CHANNEL_EVERY, count - start)):
            began = time.perf_counter()
            try:
                check(on.domain, on.channel, parse(document))
                accepted[kind] += 1
            except VoucherRefused:
                refused[kind] += 1
            seconds.append(time.perf_counter() - began)
        right = parse(good(on, chance.randint(PROMISED + 1, DEPOSIT)))
        good_ones += check(on.domain, on.channel, right) == right.units - PROMISED
    return {
        "bad": count,
        "bad_accepted": sum(accepted.values()),
        "accepted_by_kind": dict(accepted),
        "refused_by_kind": dict(sorted(refused.items())),
        "good": -(-count // CHANNEL_EVERY),
        "good_accepted": good_ones,
        "check_ms_median": round(1e3 * statistics.median(seconds), 3),
        "check_ms_p99": round(1e3 * statistics.quantiles(seconds, n=100)[98], 3),
    }


def main() -> None:
    """Attack, keep the figures, and fail if a bad one was accepted or a good one was not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="bad vouchers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    of_commit = commit()
    results = attack(given.count, given.seed)
    command = f"python -m benchmarks.vouchers --count {given.count} --seed {given.seed}"
    keep(given.out, "vouchers", command, of_commit, results)
    print(json.dumps(results, indent=2))
    if results["bad_accepted"] or results["good_accepted"] != results["good"]:
        sys.exit("a voucher was judged wrongly")


if __name__ == "__main__":
    main()
