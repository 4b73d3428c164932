"""The lists of packages with hashes: whole, of the versions that are tested, and tied to no index."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.machine import ROOT

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;]+)")


def pins(path: str) -> dict[str, str]:
    """Versions by canonical name."""
    lines = (ROOT / path).read_text().splitlines()
    return {canonicalize_name(match[1]): match[2] for line in lines if (match := _PIN.match(line))}


LISTED = {name: pins(f"deploy/{name}.lock") for name in ("requirements", "tools", "torch")}


def test_they_name_the_versions_that_are_tested() -> None:
    tested = pins("constraints.txt")
    for listed in LISTED.values():
        differ = {name: version for name, version in listed.items() if tested.get(name, version) != version}
        assert not differ, "make lock"


def test_all_that_the_project_needs_is_in_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = LISTED["requirements"] | LISTED["torch"]
    for needed in map(Requirement, project["dependencies"]):
        assert needed.specifier.contains(listed[canonicalize_name(needed.name)]), f"{needed}: make lock"
    assert "torch" not in LISTED["requirements"]
    assert "setuptools" in LISTED["requirements"]
    assert "uv" in LISTED["tools"]


@pytest.mark.parametrize("name", LISTED)
def test_each_package_has_hashes_and_none_an_address(name: str) -> None:
    text = (ROOT / "deploy" / f"{name}.lock").read_text()
    for entry in re.split(r"\n(?=\S)", text.strip()):
        first, *hashes = (line.removesuffix(" \\") for line in entry.splitlines())
        assert _PIN.match(first), first
        assert hashes, first
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first
    assert "//" not in text
    assert "--index" not in text
