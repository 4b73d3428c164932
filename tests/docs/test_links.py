"""Nothing in the documents points to nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, blocks, links, name_of, table

_MAP_LINE = re.compile(r"( *)([\w./]+)\s{2,}\S")
_LEFTOVER = re.compile(r"\b(TODO|FIXME|XXX|TBD|WIP|lorem|placeholder|coming soon)\b", re.IGNORECASE)
_MACHINE_PATH = re.compile(r"(?<![\w.])/(work|tmp|root|home)/")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} points to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name_of(page)} points to {link}, and there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_was_left_over(page: Path) -> None:
    text = page.read_text()
    assert not _LEFTOVER.findall(text)
    assert not _MACHINE_PATH.findall(text)
    assert text.endswith("\n")


def test_the_map_of_the_repository_is_true() -> None:
    (drawn,) = (block.text for block in blocks(ROOT / "README.md", "text") if "discovery/" in block.text)
    folder, seen = Path(), set()
    for line in drawn.splitlines():
        match = _MAP_LINE.match(line)
        assert match, line
        indent, name = match.groups()
        if not indent:
            folder = Path(name)
        path = folder / name if indent else folder
        assert (ROOT / path).exists(), path
        assert (ROOT / path).is_dir() == name.endswith("/"), path
        seen.add(path.parts[0])
    assert {"discovery", "far_node", "far_mesh", "contracts", "tests", "docs"} <= seen


def test_the_index_of_decisions_is_whole() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = {row[0]: row[1] for row in table(folder / "README.md", "| | |")}
    written = {}
    for page in folder.glob("[0-9]*.md"):
        number, _, title = page.read_text().splitlines()[0].removeprefix("# ").partition(" · ")
        assert page.name.startswith(f"{number}-")
        written[f"[{number}]({page.name})"] = title
    assert listed == written
