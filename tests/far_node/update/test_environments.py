"""The environments of a machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

from far_node.update.environments import BY_HAND, KEPT, Environments
from far_node.update.errors import NotUpdatable, UpdateFailed
from tests.support.standin import environment

V1, V2 = Version("0.1.0"), Version("0.2.0")


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    """A first version, which the link names."""
    made = Environments(tmp_path)
    made.switch(environment(made, "0.1.0"))
    return made


def versions(environments: Environments) -> list[str]:
    return [str(one.version) for one in environments.complete()]


def test_the_link_names_another_in_one_step_and_by_a_path_of_its_own(environments: Environments) -> None:
    environments.switch(environment(environments, "0.2.0"))
    current = environments.current()
    assert current is not None
    assert current.version == V2
    assert environments.link.readlink() == Path("venvs/0.2.0")
    assert [file.name for file in environments.home.iterdir() if file.name.startswith(".venv")] == []


def test_what_is_not_whole_does_not_count_and_is_cleared(environments: Environments) -> None:
    half = environment(environments, "0.2.0", whole=False)
    (environments.root / "not a version").mkdir()
    assert versions(environments) == ["0.1.0"]
    environments.clear(V2)
    assert not half.path.exists()


def test_what_the_installer_made_counts(environments: Environments) -> None:
    current = environments.current()
    assert current is not None
    assert current.torch_build == "cpu"
    (current.path / "installed").unlink()  # an installer that left no mark
    assert versions(environments) == ["0.1.0"]
    environment(environments, "0.1.0+1a2b3c4d")
    assert versions(environments) == ["0.1.0", "0.1.0"]


def test_a_program_from_elsewhere_is_not_updated(environments: Environments, tmp_path: Path) -> None:
    with pytest.raises(NotUpdatable, match="update it the way it was installed"):
        environments.running(tmp_path / "elsewhere")
    running = environments.running(environments.root / "0.1.0")
    assert running.version == V1
    assert environments.running(environments.link) == running


def test_a_home_that_is_a_link_is_a_home(environments: Environments, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere"
    link.symlink_to(environments.home)
    there = Environments(link)
    environment(there, "0.2.0")
    assert versions(there) == ["0.1.0", "0.2.0"]
    assert there.current() == there.running(environments.root / "0.1.0") == there.complete()[0]


def test_old_ones_are_kept_but_not_all_and_none_that_runs(environments: Environments) -> None:
    used = environments.current()
    assert used is not None
    process = subprocess.Popen([used.program, "start"], cwd=environments.home)  # its log is there
    try:
        for minor in range(2, 3 + KEPT + 1):
            environments.switch(environment(environments, f"0.{minor}.0"))
        assert environments.prune() == [V2]
        assert versions(environments) == ["0.1.0", "0.3.0", "0.4.0", "0.5.0"]
    finally:
        process.kill()
        process.wait()
    assert environments.prune() == [V1]


def test_one_at_a_time(environments: Environments) -> None:
    with environments.locked(), pytest.raises(UpdateFailed, match="another update"), environments.locked():
        pass
    installer = environments.home / ".installing"
    installer.mkdir()
    (installer / "owner").write_text("1")
    with pytest.raises(UpdateFailed, match="the installer is at work"), environments.locked():
        pass
    (installer / "owner").write_text("")
    with environments.locked():
        pass


def test_a_version_that_failed_is_known_for_the_node_it_failed_for(environments: Environments) -> None:
    environments.begin_trial("", V2)
    environments.end_trial("", V2, "was not ready")
    assert environments.failed("") == {V2: "was not ready"}
    assert environments.failed("second") == {}
    environments.end_trial(BY_HAND, Version("0.3.0"), "its owner went back")
    assert environments.failed("second") == {Version("0.3.0"): "its owner went back"}


def test_a_trial_that_was_broken_off_twice_is_not_begun_again(environments: Environments) -> None:
    environments.begin_trial("", V2)
    assert environments.failed("") == {}
    environments.begin_trial("", V2)
    assert environments.failed("").keys() == {V2}
    environments.end_trial("", V2, None)
    assert environments.failed("") == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"": {"next": {}}}', '{"": []}', '{"": {"0.2.0": 7}}'])
def test_what_cannot_be_read_lets_nothing_be_tried(environments: Environments, content: str) -> None:
    (environments.root / ".tried.json").write_text(content)
    with pytest.raises(UpdateFailed, match=r"tried\.json cannot be read; remove it"):
        environments.failed("")
