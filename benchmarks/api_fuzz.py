"""The whole document of the interface against a gateway: all requests at the edges of every schema, many by chance, and
chains of requests that go on with what was answered.

    python -m benchmarks.api_fuzz [--examples 200] [--seed 1] [--only /v1/]

As somebody with money who is an operator, and as nobody. The chain and the database are real, the mesh is the double of
the tests. Ends with 1 if anything was found; tests/far_mesh/marketplace/test_document.py does a share of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.support.report import commit, keep
from far_mesh.marketplace.chain.client import address_of
from far_mesh.model.tools import FORMATS
from tests.far_mesh.marketplace.doubles import MeshDouble
from tests.far_mesh.marketplace.fuzzing import Found, fuzz
from tests.far_mesh.marketplace.house import House, Loop, start_chain

OPERATOR = "0x" + "0f" * 32


def main() -> None:
    """Try, print what was found, and keep how much was tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    of_commit, loop = commit(), Loop()
    with tempfile.TemporaryDirectory() as folder:
        anvil, live = loop.do(start_chain(Path(folder)))
        settings = live.settings(
            database_url=f"sqlite+aiosqlite:///{folder}/m.db",
            unsettled_limit_units=10**15,
            operators=[address_of(OPERATOR)],
        )
        with House(loop, live, settings, MeshDouble(tool_format=FORMATS[0])) as house:
            token = house.user(10**14, key=OPERATOR).token
            callers = {"operator": token, "nobody": None}
            found = {who: _tried(house, token, arguments) for who, token in callers.items()}
        loop.do(anvil.stop())
    loop.close()
    command = f"python -m benchmarks.api_fuzz --examples {arguments.examples} --seed {arguments.seed}"
    if arguments.only is None:
        results = {who: _told(one, seconds) for who, (one, seconds) in found.items()}
        keep(Path(__file__).parent / "results", "api_fuzz", command, of_commit, results)
    sys.exit(any(one.failures for one, _ in found.values()))


def _tried(house: House, token: str | None, arguments: argparse.Namespace) -> tuple[Found, float]:
    started = time.monotonic()
    found = fuzz(
        house.app.openapi(),
        house.url,
        token,
        seed=arguments.seed,
        examples=arguments.examples,
        only=arguments.only,
        stateful=True,
    )
    print(f"{sum(found.requests.values())} requests to {len(found.requests)} operations", found, sep="\n", flush=True)
    return found, time.monotonic() - started


def _told(found: Found, seconds: float) -> dict[str, Any]:
    return {
        "operations": len(found.requests),
        "requests": sum(found.requests.values()),
        "failures": sorted(map(list, found.failures)),
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
