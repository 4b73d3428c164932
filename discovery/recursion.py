"""Python's limit of recursion stays what it was: whoever reads a stranger's JSON relies on it.

py_ecc, which eth-account and web3 bring along, lifts the limit to 100,000 when it is imported. In Python 3.11 a hundred
kilobytes of brackets then overflow the stack in ``json.loads``, and end the process. It is imported once, so it is
imported here, before anything of ours can import a library of wallets.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

PYTHONS = 1000
"""Where Python begins."""
_LIFTED = 100_000


def import_what_lifts_the_limit() -> None:
    """Import py_ecc, if it is there, and put the limit back: to where Python begins if it was lifted before we came."""
    before = sys.getrecursionlimit()
    with contextlib.suppress(ImportError):
        importlib.import_module("py_ecc")
    sys.setrecursionlimit(before if before < _LIFTED else PYTHONS)
