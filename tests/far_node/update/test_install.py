"""Newer versions from a directory of wheels, by the real pip."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from packaging.version import Version

from far_node.update.environments import Environments
from far_node.update.errors import UpdateFailed, UpdateRefused
from far_node.update.install import look, own_environment, prepare
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
