"""A site that was built (``frontend/``, a static export of Next.js), read once into memory.

Every page gets a content-security policy (https://www.w3.org/TR/CSP3/) of its own: nothing from another host, and of
the scripts within the page those that were there when it was built, by their hashes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Self

PACKAGED = Path(__file__).parent / "site"
"""Where the build puts it."""

_PAGE = ".html"
_FOREVER = "_next/static/"
"""Whose names change with what is in them."""

_POLICY = (
    "default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


def is_built(folder: Path = PACKAGED) -> bool:
    """Whether there is a site."""
    return (folder / "index.html").is_file()


@dataclass(frozen=True)
class File:
    """What is sent: ``content`` as it is, ``packed`` with gzip where that is smaller."""

    content: bytes
    packed: bytes | None
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Site:
    """Files by the path under which a browser asks for them."""

    files: Mapping[str, File]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The site in ``folder``; None: there is none."""
        if not is_built(folder):
            return None
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
        return cls(dict(_file(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths))


def _file(name: str, content: bytes) -> tuple[str, File]:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    is_text = kind.startswith("text/") or kind in ("application/javascript", "application/json", "image/svg+xml")
    forever = name.startswith(_FOREVER)
    headers = {
        "content-type": f"{kind}; charset=utf-8" if is_text else kind,
        "cache-control": "public, max-age=31536000, immutable" if forever else "no-cache",
        "etag": f'W/"{hashlib.sha256(content).hexdigest()[:32]}"',  # weak: the same for what is packed
        "referrer-policy": "no-referrer",
    }
    if name.endswith(_PAGE):
        headers["content-security-policy"] = policy_of(content.decode())
        headers["cross-origin-opener-policy"] = "same-origin"
    packed = gzip.compress(content, mtime=0) if is_text else content
    is_smaller = len(packed) < len(content)
    if is_smaller:
        headers["vary"] = "accept-encoding"
    return "/" + path_of(name), File(content, packed if is_smaller else None, headers)


def path_of(name: str) -> str:
    """Under which path a file is asked for: pages without their ending."""
    if name == f"index{_PAGE}":
        return ""
    return name.removesuffix(f"/index{_PAGE}").removesuffix(_PAGE)


def policy_of(page: str) -> str:
    """The policy of a page, with the hashes of the scripts that stand in it."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in _scripts(page))
    return _POLICY.format(hashes="".join(f" 'sha256-{one}'" for one in dict.fromkeys(hashes)))


def _scripts(page: str) -> Iterator[str]:
    reader = _Scripts()
    reader.feed(page)
    reader.close()
    yield from reader.found


class _Scripts(HTMLParser):
    """Scripts that stand in a page, to the letter."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []
        self._is_open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_open = tag == "script" and not any(name == "src" for name, _ in attrs)
        if self._is_open:
            self.found.append("")

    def handle_data(self, data: str) -> None:
        if self._is_open:
            self.found[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._is_open = False
