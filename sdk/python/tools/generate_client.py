"""Writes ``farlabs/client.py``, the client for threads, from ``farlabs/aio.py``, the client for event loops.

What the two decide is in modules that both use. What is left is doing one thing after another, and differs in words.

    python sdk/python/tools/generate_client.py          writes it
    python sdk/python/tools/generate_client.py --check  says whether it is as it would be written
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "farlabs"

WORDS = (
    (r'\A"""The client for event loops\..*?"""', '"""The client for threads.\n\nWritten by tools/generate_client.py: '
     'change aio.py, not this.\n"""'),
    (r"AsyncGenerator\[([^\]]*), None\]", r"Generator[\1, None, None]"),
    (r"Awaitable\[([^\]]*)\] \| None", r"\1"),
    (r"Awaitable\[([^\]]*)\]", r"\1"),
    (r"\bAwaitable, ", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"import asyncio\n", ""),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\baclosing\b", "closing"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync(Door|Generation|FarLabsClient|PayVoucher|OnWait|Client|Flight)\b", r"\1"),
    (r"\basync_settled\b", "settled"),
    (r"\baiter_bytes\b", "iter_bytes"),
    (r"\baclose\b", "close"),
    (r"__a(enter|exit|iter)__", r"__\1__"),
)  # fmt: skip


def threaded(code: str) -> str:
    """The same without an event loop."""
    for pattern, word in WORDS:
        code = re.sub(pattern, word, code, flags=re.DOTALL)
    for arguments in (["check", "--select", "F401,I", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(PACKAGE / "client.py"), "-"]
        code = subprocess.run(command, input=code, text=True, check=True, capture_output=True).stdout
    return code


def main() -> None:
    """Write, or compare."""
    options = argparse.ArgumentParser(description="the client for threads from that for event loops")
    options.add_argument("--check", action="store_true", help="write nothing, and fail if it is stale")
    fresh = threaded((PACKAGE / "aio.py").read_text())
    if not options.parse_args().check:
        (PACKAGE / "client.py").write_text(fresh)
    elif (PACKAGE / "client.py").read_text() != fresh:
        sys.exit("client.py is not what aio.py says: run make generate")


if __name__ == "__main__":
    main()
