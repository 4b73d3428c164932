"""The documents of the repository, taken apart: links, code blocks, tables."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"^([ ]*)```(\w*)[^\n]*\n(.*?)^[ ]*```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_INLINE_CODE = re.compile(r"`([^`\n]+)`")
_PROGRAM = re.compile(r"(?:\$ )?((?:far-\w+|make|npm)\b.*)")


@dataclass(frozen=True)
class Block:
    """A fenced piece of a page."""

    page: Path
    language: str
    text: str


def name_of(page: Path) -> str:
    """Its path in the repository, for the names of tests."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's fenced blocks in these languages, without their indentation."""
    found = [Block(page, match[2], textwrap.dedent(match[3])) for match in _FENCE.finditer(page.read_text())]
    return [block for block in found if block.language in languages]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Where the page points to."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What a link can name behind ``#``, by the rule of the places where people read these pages."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(prose(page))}


def commands(page: Path) -> list[str]:
    """Lines of shell blocks that call one of our programs, make or npm; continued lines are joined."""
    text = "\n".join(block.text for block in blocks(page, "bash", "console", "sh", ""))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [match[1].split("  #")[0] for line in lines if (match := _PROGRAM.fullmatch(line.strip()))]


def inline_commands(page: Path) -> list[str]:
    """Calls of our programs in the middle of a sentence; they may be shortened."""
    return [code for code in _INLINE_CODE.findall(prose(page)) if re.match(r"far-\w+ \w+", code)]


def table(page: Path, header: str) -> list[list[str]]:
    """The rows of the one table whose header line begins with ``header``, as cells."""
    lines = page.read_text().splitlines()
    (start,) = (index for index, line in enumerate(lines) if line.startswith(header))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows


def bare(cell: str) -> str:
    """A cell without its code marks."""
    return cell.strip("`")
