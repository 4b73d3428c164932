"""How soon the pages of a gateway can be used by somebody who has never been there, and what they weigh.

python -m benchmarks.dashboard_budget [--rounds 20] [--out benchmarks/results]

Everything on one machine: three nodes, a chain, a gateway, and a Chromium that keeps nothing of the visit before.
A page can be used when it shows what the gateway has said, which is noted in the page itself at that moment.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from benchmarks.support.report import commit, keep
from tests.browser.program import find_chromium, options_of
from tests.browser.stage import MODEL, Stage
from tests.browser.visitor import Visitor

PAGES = {"home": ("/", "1 of 1"), "playground": ("/playground", "context of"), "provide": ("/gpu/distributed", MODEL)}
"""Where, and words that stand there once it can be used."""

_NOTE = """
(() => {
  const look = () => {
    if (!document.querySelector("main")?.textContent.includes(WORDS)) return;
    window.farUsable = performance.now();
    watch.disconnect();
  };
  const watch = new MutationObserver(look);
  watch.observe(document, { childList: true, characterData: true, subtree: true });
})();
"""
_TIMES = """
() => {
  const files = performance.getEntriesByType("resource").filter((one) => one.name.includes("/_next/"));
  const sum = (all) => all.reduce((total, one) => total + one.encodedBodySize, 0);
  return {
    first_paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
    usable: window.farUsable,
    script_bytes: sum(files.filter((one) => new URL(one.name).pathname.endsWith(".js"))),
    bytes: sum(files) + performance.getEntriesByType("navigation")[0].encodedBodySize,
    files: files.length,
  };
}
"""


def look(browser: Browser, url: str, path: str, words: str) -> dict[str, float]:
    """One visit: milliseconds since the address was entered, and bytes as they come over the wire."""
    with Visitor(browser, url, None, "light") as visitor:
        visitor.context.add_init_script(_NOTE.replace("WORDS", json.dumps(words)))
        page = visitor.open(path)
        page.wait_for_function("window.farUsable && performance.getEntriesByName('first-contentful-paint').length")
        found: dict[str, float] = page.evaluate(_TIMES)
    return found


def summary(visits: list[dict[str, float]]) -> dict[str, Any]:
    """Median and slowest."""
    return {
        **{
            f"{name}_ms": {"median": round(statistics.median(times)), "most": round(max(times))}
            for name in ("first_paint", "usable")
            if (times := [visit[name] for visit in visits])
        },
        **{name: max(visit[name] for visit in visits) for name in ("script_bytes", "bytes", "files")},
    }


def main() -> None:
    """Measure and keep."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    chosen = options.parse_args()
    of_commit = commit()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "FAR_CONFIG": "", "FAR_NODE_CONFIG": ""}
    with tempfile.TemporaryDirectory() as directory, Stage(Path(directory)) as stage, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=options_of())
        results = {
            name: summary([look(browser, stage.url, path, words) for _ in range(chosen.rounds)])
            for name, (path, words) in PAGES.items()
        }
        browser.close()
    print(json.dumps(results, indent=2))
    command = f"python -m benchmarks.dashboard_budget --rounds {chosen.rounds}"
    keep(chosen.out, "dashboard_budget", command, of_commit, results)


if __name__ == "__main__":
    main()
