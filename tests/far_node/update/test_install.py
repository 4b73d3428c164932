"""Newer versions from a directory of wheels, by the real pip."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from far_node.update.environments import Environment, Environments
from far_node.update.errors import UpdateFailed, UpdateRefused
from far_node.update.install import _add_torch, _setuptools_of, _sha256_of, look, own_environment, prepare
from far_node.update.options import UpdateOptions
from far_node.update.releases import Release, listed, sign_releases
from tests.support.documents import key_of, peer_of
from tests.support.standin import environment, wheel

CURRENT = Version("0.1.0")


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    """A first version, which the link names."""
    made = Environments(tmp_path / "far")
    made.switch(environment(made, "0.1.0"))
    return made


async def test_what_the_index_has_is_looked_up_and_installed_beside(environments: Environments, tmp_path: Path) -> None:
    index = tmp_path / "index"
    for version in ("0.0.9", "0.2.0", "0.3.0rc1"):
        wheel(index, version)
    options = UpdateOptions(index=str(index))
    release = await look(options, CURRENT)
    assert release is not None
    assert release.version == Version("0.2.0")
    assert await look(options, CURRENT, [release.version]) is None
    installed = await prepare(environments, release, options)
    assert [one.version for one in environments.complete()] == [CURRENT, release.version]
    assert environments.current() == environments.place_of(CURRENT)
    assert installed.torch_build == "cpu"
    process = await asyncio.create_subprocess_exec(installed.program, "start", "--help", env=own_environment())
    assert await process.wait() == 0


@pytest.mark.parametrize("archive", [{"hashes": {"sha256": "ab"}, "hash": "md5=1"}, {"hash": "sha256=ab"}])
def test_what_pip_says_of_a_file_is_read_in_the_form_of_each_version(archive: dict[str, Any]) -> None:
    assert _sha256_of(archive) == "ab"


async def test_a_file_that_is_not_the_signed_one_is_refused_and_gone(
    environments: Environments, tmp_path: Path
) -> None:
    index, releases = tmp_path / "index", tmp_path / "releases.json"
    releases.write_bytes(sign_releases(listed([wheel(index, "0.2.0")]), key_of("publisher")))
    wheel(index, "0.2.0", "another way")  # as a thief would
    options = UpdateOptions(index=str(index), releases=str(releases), publisher=peer_of("publisher"))
    release = await look(options, CURRENT)
    assert release is not None
    with pytest.raises(UpdateRefused, match="its SHA-256 is another"):
        await prepare(environments, release, options)
    assert sorted(os.listdir(environments.root)) == [".lock", "0.1.0"]


async def test_a_program_that_does_not_run_is_refused_by_its_version(
    environments: Environments, tmp_path: Path
) -> None:
    (release,) = [
        Release(Version(one.version), tuple(one.files.values()))
        for one in listed([wheel(tmp_path / "index", "0.2.0", "no program")])
    ]
    with pytest.raises(UpdateRefused, match="does not run here") as refused:
        await prepare(environments, release, UpdateOptions(index=str(tmp_path / "index")))
    assert refused.value.facts["version"] == "0.2.0"
    assert [one.version for one in environments.complete()] == [CURRENT]


@pytest.mark.parametrize(
    "options",
    [
        {"index": "http://127.0.0.1:9/simple"},
        {"releases": "http://127.0.0.1:9/releases.json", "publisher": peer_of("publisher")},
    ],
    ids=["index", "list"],
)
async def test_who_cannot_be_asked_is_told(options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UpdateFailed):
        await look(UpdateOptions(**options), CURRENT)  # type: ignore[arg-type]


LISTS = {
    "requirements.lock": "# a list\npackaging==26.3 ; python_version > '3' \\\n    --hash=sha256:aa\n"
    "setuptools==80.9.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\nzope==1.0 \\\n    --hash=sha256:dd\n",
    "torch.lock": "cuda-bindings==13.5.0 \\\n    --hash=sha256:ee\ntorch==2.13.0 \\\n    --hash=sha256:ff\n",
    "tools.lock": "uv==0.13.9 \\\n    --hash=sha256:11\n",
}
BY_HASH = ("--require-hashes", "--no-deps", "--requirement")


@pytest.fixture
def place(environments: Environments) -> Environment:
    """An environment to be, with the lists of its version."""
    place = environment(environments, "0.2.0", whole=False)
    place.lists.mkdir(parents=True)
    for name, text in LISTS.items():
        (place.lists / name).write_text(text)
    return place


@pytest.mark.parametrize("refused", [False, True], ids=["there", "not there"])
@pytest.mark.parametrize("build", [None, "cu130", "cpu", "rocm7.2"])
@pytest.mark.parametrize("index", [None, "https://torch.example/{build}", "/builds/{build}"])
async def test_torch_is_the_build_that_this_machine_has(
    place: Environment, build: str | None, index: str | None, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("FAR_TORCH_INDEX", raising=False)
    if index is not None:
        monkeypatch.setenv("FAR_TORCH_INDEX", index)
    told = list[tuple[str, ...]]()

    async def add(*what: str, how: Sequence[str] = ()) -> None:
        told.append((*[word for word in how if word.startswith("-")], *what))
        if refused and "--torch-backend" in what:
            raise UpdateFailed("nobody has it")

    listed, pins = (*BY_HASH, str(place.lists / "torch.lock")), ("--constraint", str(place.path / "constraints.txt"))
    tools = (*BY_HASH, str(place.lists / "tools.lock"))
    by_uv = ("--python", "--torch-backend", str(build), *pins, "torch==2.13.0")
    failed = False
    try:
        await _add_torch(place, build, add, BY_HASH)
    except UpdateFailed:
        failed = True
    if build in (None, "cu130"):
        assert told == [listed]
    elif index is not None:
        how = "--extra-index-url" if index.startswith("https") else "--find-links"
        assert told == [(*pins, how, index.replace("{build}", str(build)), f"torch==2.13.0+{build}")]
    else:
        assert told == [tools, by_uv, *([listed] if refused and build == "cpu" else [])]
        assert failed == (refused and build != "cpu")  # another device is not what this machine has
    if told not in ([listed], []):
        pinned = (place.path / "constraints.txt").read_text().split()
        assert pinned == ["packaging==26.3", "setuptools==80.9.0", "zope==1.0"]


def test_what_builds_the_others_is_installed_first() -> None:
    text = LISTS["requirements.lock"]
    assert _setuptools_of(text) == "setuptools==80.9.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"
    assert _setuptools_of("zope==1.0 \\\n    --hash=sha256:dd\n") == ""
