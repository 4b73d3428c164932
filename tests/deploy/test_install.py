"""``deploy/install.sh``: what it finds, what it refuses, and that nothing is ever half there."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.machine import (
    SCRIPT,
    Machine,
    end,
    make_checkout,
    make_program,
    make_wheel,
    real_python,
    sha256,
    stand_in,
)

SMI = '#!/bin/sh\nprintf "%s\\n" '
ROCM = """#!/bin/sh
echo "Agent 1"; echo "  Name:                    AMD Ryzen 9 7950X"
echo "Agent 2"; echo "  Name:                    gfx1100"; echo "  Marketing Name:          Radeon RX 7900 XTX"
"""


def until(condition: object, process: subprocess.Popen[Any] | None = None) -> None:
    """Wait for it; a process that ends before it comes has failed."""
    assert callable(condition)
    for _ in range(12_000):
        if condition():
            return
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    raise AssertionError("it did not come")


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frm", "x"], "--frm is not known"),
        (["far"], "far is not known"),
        (["--from"], "--from needs a value"),
        (["--from", "--dry-run"], "--from needs a value"),
        (["--purge"], "--purge goes with --uninstall"),
        (["--from", "{checkout}", "--torch", "cu999"], "--torch cu999 is none of"),
        (["--from", "{checkout}", "--sha256", "00"], "not for a folder"),
        (["--from", "https://127.0.0.1/far_mesh-1-py3-none-any.whl"], "must be verified"),
        (["--from", "https://127.0.0.1/far"], "write git+https"),
        (["--from", "https://127.0.0.1/far_mesh-1.tar.gz", "--sha256", "xyz"], "not 64 hexadecimal digits"),
    ],
    ids=str,
)
def test_what_is_not_understood_is_said_and_nothing_is_done(
    machine: Machine, checkout: Path, arguments: list[str], words: str
) -> None:
    ended = machine.install(*(word.format(checkout=checkout) for word in arguments))
    assert (ended.returncode, words in ended.stderr, "--help" in ended.stderr) == (2, True, True), ended.stderr
    assert not list(machine.home.iterdir())


def test_a_source_that_is_none_is_refused(machine: Machine, tmp_path: Path) -> None:
    assert "there is nothing at" in machine.install("--from", str(tmp_path / "absent")).stderr
    (tmp_path / "empty").mkdir()
    assert "is no checkout" in machine.install("--from", str(tmp_path / "empty")).stderr
    (tmp_path / "far_mesh-0.1.0-py3-none-any.whl").write_text("no zip")
    ended = machine.install("--from", str(tmp_path / "far_mesh-0.1.0-py3-none-any.whl"))
    assert "is no wheel" in ended.stderr
    assert not (machine.far / "venv").exists()


def test_without_a_home_there_is_no_place(machine: Machine, checkout: Path, tmp_path: Path) -> None:
    for home in ("", str(tmp_path / "absent")):
        ended = machine.install("--from", str(checkout), HOME=home)
        assert (ended.returncode, "HOME is" in ended.stderr) == (1, True), ended.stderr


def test_root_in_the_home_of_somebody_else_is_sent_away(machine: Machine, checkout: Path) -> None:
    machine.has("id", "#!/bin/sh\necho 0")
    if os.getuid() == 0:
        os.chown(machine.home, 1, 1)
    ended = machine.install("--from", str(checkout))
    assert (ended.returncode, "without sudo" in ended.stderr) == (1, True)
    assert not list(machine.home.iterdir())


def test_of_a_download_that_was_cut_off_nothing_is_run(machine: Machine) -> None:
    text = SCRIPT.read_text()
    for part in range(1, 10):
        cut = text[: len(text) * part // 10]
        subprocess.run(
            ["/bin/sh", "-s", "--", "--from", str(SCRIPT.parents[1])],
            input=cut,
            env=machine.variables(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert not list(machine.home.iterdir())
    assert not machine.asked()


# ---- what it finds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "capabilities", "build"),
    [
        ("580.65.06", "8.6", "cu130"),
        ("595.10", "12.0", "cu130"),
        ("580.65.06", "7.5 6.1", "cu130"),
        ("580.65.06", "6.1", "cu126"),
        ("550.54.14", "8.9", "cu126"),
        ("525.60.13", "5.0", "cu126"),
        ("570.26", "12.0", "none"),
        ("470.42", "8.6", "none"),
        ("580.65.06", "3.5", "none"),
        ("580.65.06", "[N/A]", "none"),
        ("garbage", "8.6", "none"),
    ],
    ids=str,
)
def test_a_gpu_gets_the_build_that_its_driver_and_age_allow(
    machine: Machine, driver: str, capabilities: str, build: str
) -> None:
    ended = machine.call(f"cuda_build '{driver}' {capabilities}")
    assert ended.stdout.split(":")[0].strip() == build
    assert not ended.stderr


@pytest.mark.parametrize(
    ("name", "program", "plan", "note"),
    [
        ("nvidia-smi", SMI + "'580.65.06, 8.6, NVIDIA GeForce RTX 3060'", "cu130 (NVIDIA GeForce RTX 3060, driver", ""),
        ("nvidia-smi", SMI + "'470.42, 8.6, NVIDIA A10'", "torch   cpu", "driver 470 is too old"),
        ("nvidia-smi", SMI + "'Failed to initialize NVML'; exit 9", "torch   cpu", "Failed to initialize NVML"),
        ("nvidia-smi", "#!/bin/sh\nexit 0", "torch   cpu", "nvidia-smi does not answer"),
        ("rocminfo", ROCM, "rocm7.2 (AMD gfx1100)", ""),
        ("rocminfo", '#!/bin/sh\necho "Unable to open /dev/kfd"; exit 1', "torch   cpu", "groups render and video"),
        ("rocminfo", "#!/bin/sh\necho 'Name:  AMD Ryzen'", "torch   cpu", ""),
    ],
    ids=["rtx", "old driver", "broken driver", "says nothing", "radeon", "no permission", "no radeon"],
)
def test_gpus_are_looked_at(machine: Machine, checkout: Path, name: str, program: str, plan: str, note: str) -> None:
    machine.has(name, program)
    machine.has("uname", '#!/bin/sh\n[ "$1" = -m ] && echo x86_64 || echo Linux')
    ended = machine.install("--from", str(checkout), "--dry-run")
    assert plan in ended.stdout
    assert note in ended.stderr
    assert bool(note) == bool(ended.stderr)
    assert not list(machine.home.iterdir())


def test_a_card_without_its_driver_is_noticed(machine: Machine, tmp_path: Path) -> None:
    for vendor, words in (("0x10de", "NVIDIA's driver"), ("0x1002", "install ROCm"), ("0x8086", "")):
        card = tmp_path / vendor / "0000:01:00.0"
        card.mkdir(parents=True)
        (card / "vendor").write_text(vendor + "\n")
        (card / "class").write_text("0x030000\n")
        ended = machine.call(f"SYSTEM='Linux x86_64' PCI_DEVICES={card.parent}\nlook_at_gpus; echo $BUILD")
        assert ended.stdout == "cpu\n"
        assert (words in ended.stderr, bool(ended.stderr)) == (True, bool(words))


def test_other_systems_are_refused(machine: Machine, checkout: Path) -> None:
    machine.has("uname", '#!/bin/sh\n[ "$1" = -m ] && echo riscv64 || echo Linux')
    assert "no builds of torch for Linux riscv64" in machine.install("--from", str(checkout)).stderr
    machine.has("uname", '#!/bin/sh\n[ "$1" = -m ] && echo x86_64 || echo Linux')
    machine.has("ldd", "#!/bin/sh\necho 'musl libc (x86_64)' >&2; exit 1")
    assert "musl" in machine.install("--from", str(checkout)).stderr


def test_a_python_that_does_not_fit_is_passed_by(machine: Machine, checkout: Path) -> None:
    (machine.programs / "python3").rename(machine.programs / "python3.12")
    machine.has("python3", "#!/bin/sh\nexit 1")
    assert f"{machine.programs}/python3.12" in machine.install("--from", str(checkout), "--dry-run").stdout
    (machine.programs / "python3.12").unlink()
    assert "which is brought" in machine.install("--from", str(checkout), "--dry-run").stdout
    refused = machine.install("--from", str(checkout), "--python", str(machine.programs / "python3"))
    assert "is not a Python 3.11" in refused.stderr


def test_a_python_of_our_own_is_brought_and_verified(machine: Machine, checkout: Path, tmp_path: Path) -> None:
    (machine.programs / "python3").unlink()
    source = tmp_path / "python"
    make_program(source / "bin" / "python3", stand_in())
    name = machine.call("look_at_system; echo $FAR_PYTHON_VERSION+$FAR_PYTHON_RELEASE-$TRIPLE").stdout.strip()
    archive = tmp_path / "mirror" / f"cpython-{name}-install_only_stripped.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.add(source, "python")
    arguments = f"--from {checkout} --torch cu130 --python-mirror {archive.parent}"

    refused = machine.install(*arguments.split())
    assert (refused.returncode, "was refused" in refused.stderr) == (1, True), refused.stderr
    assert not list((machine.far / "python").iterdir())

    ended = machine.call(f"own_python_sha256() {{ echo {sha256(archive)}; }}\nmain {arguments}")
    assert ended.returncode == 0, ended.stderr
    (own,) = (machine.far / "python").iterdir()
    assert f"-I -m venv {machine.far}/venvs/0.1.0" in machine.asked()
    assert f"({own}/bin/python3)" in machine.install("--from", str(checkout), "--dry-run").stdout


# ---- what it does ----------------------------------------------------------------------------------------------------


def test_it_installs_by_hashes_alone_and_says_what_comes_next(machine: Machine, checkout: Path) -> None:
    ended = machine.install("--from", str(checkout), "--torch", "cu130")
    assert ended.returncode == 0, ended.stderr
    assert machine.link.resolve() == machine.far / "venvs" / "0.1.0" / "bin" / "far-node"
    assert os.readlink(machine.far / "venv") == "venvs/0.1.0"
    assert "is not in your PATH" in ended.stdout
    assert "far-node init" in ended.stdout
    installs = [words for words in machine.asked() if "pip" in words and " install " in words]
    *listed, ourselves = installs
    assert [words.rsplit("/")[-1] for words in listed] == ["setuptools.lock", "requirements.lock", "torch.lock"]
    assert all("--require-hashes --no-deps" in words for words in listed)
    assert "--no-deps --no-index" in ourselves
    assert {path.name for path in machine.far.iterdir()} == {"venv", "venvs", "install.log"}
    assert not (checkout / "build").exists()


def test_a_commit_of_a_repository_is_installed(machine: Machine, checkout: Path) -> None:
    (machine.programs / "git").symlink_to(shutil.which("git") or "")
    me = ("-c", "user.name=me", "-c", "user.email=me@far.test", "-c", "commit.gpgsign=false")

    def git(*words: str) -> str:
        ended = subprocess.run(["git", "-C", checkout, *me, *words], capture_output=True, text=True, check=True)
        return ended.stdout.strip()

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "one")
    first = git("rev-parse", "HEAD")
    (checkout / "pyproject.toml").write_text('version = "0.2.0"\n')
    git("commit", "--quiet", "--all", "--message", "two")
    ended = machine.install("--from", f"git+file://{checkout}@{first}")
    assert (ended.returncode, f"commit {first}" in ended.stdout) == (0, True), ended.stderr
    assert machine.link.resolve().parts[-3] == "0.1.0"
    assert machine.install("--from", f"git+file://{checkout}").returncode == 0
    assert machine.link.resolve().parts[-3] == "0.2.0"
    ended = machine.install("--from", f"git+file://{checkout}@nowhere")
    assert (ended.returncode, "nowhere is not in" in ended.stderr) == (1, True)
    ended = machine.install("--from", f"git+file://{checkout}/absent")
    assert (ended.returncode, "could not be cloned" in ended.stderr) == (1, True)


def test_an_sdist_is_installed_if_it_is_what_it_should_be(machine: Machine, checkout: Path, tmp_path: Path) -> None:
    sdist = tmp_path / "far_mesh-0.1.0.tar.gz"
    with tarfile.open(sdist, "w:gz") as file:
        file.add(checkout, "far_mesh-0.1.0")
    assert "was refused" in machine.install("--from", str(sdist), "--sha256", "a" * 64).stderr
    assert machine.install("--from", str(sdist), "--sha256", sha256(sdist).upper()).returncode == 0
    assert machine.link.resolve().parts[-3] == "0.1.0"
    sdist.write_text("no archive")
    assert "is no archive" in machine.install("--from", str(sdist)).stderr


@pytest.mark.parametrize(
    ("build", "variables", "words"),
    [
        ("cpu", {}, "--torch-backend cpu"),
        ("rocm7.2", {}, "--torch-backend rocm7.2"),
        (
            "cu126",
            {"FAR_TORCH_INDEX": "https://torch.invalid/{build}"},
            "--extra-index-url https://torch.invalid/cu126 torch==2.13.0+cu126",
        ),
    ],
    ids=["cpu", "rocm", "index"],
)
def test_torch_comes_from_where_its_build_is(
    machine: Machine, checkout: Path, build: str, variables: dict[str, str], words: str
) -> None:
    assert machine.install("--from", str(checkout), "--torch", build, **variables).returncode == 0
    assert any(words in asked for asked in machine.asked())
    assert not any("torch.lock" in asked for asked in machine.asked())


def test_without_the_small_build_a_cpu_takes_the_large_one_and_a_gpu_none(machine: Machine, checkout: Path) -> None:
    away = {"FAILS_AT": "--torch-backend", "SAYS": "dns error: failed to lookup address"}
    ended = machine.install("--from", str(checkout), "--torch", "rocm7.2", **away)
    assert (ended.returncode, "the network cannot be reached" in ended.stderr) == (1, True), ended.stderr
    assert not machine.link.exists()
    ended = machine.install("--from", str(checkout), "--torch", "cpu", **away)
    assert (ended.returncode, "taking the large one" in ended.stderr) == (0, True), ended.stderr
    assert any("--require-hashes" in asked and asked.endswith("torch.lock") for asked in machine.asked())


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("NewConnectionError: [Errno -3] Temporary failure in name resolution", "the network cannot be reached"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "so it was refused"),
        ("SSLError(SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED", "a certificate is not trusted"),
        ("ERROR: No matching distribution found for torch==2.13.0", "there is no build for this machine"),
        ("ERROR: Failed building wheel for netaddr", "Install a compiler"),
        ("something never seen", "something never seen"),
    ],
    ids=["disk", "network", "hash", "certificate", "build", "compiler", "else"],
)
def test_what_fails_is_explained(machine: Machine, checkout: Path, says: str, words: str) -> None:
    ended = machine.install("--from", str(checkout), "--torch", "cu130", FAILS_AT="requirements.lock", SAYS=says)
    assert (ended.returncode, words in ended.stderr) == (1, True), ended.stderr
    assert not machine.link.exists()
    assert not (machine.far / ".installing").exists()


def test_too_little_room_is_said_before_anything_is_done(machine: Machine, checkout: Path) -> None:
    machine.has("df", "#!/bin/sh\necho Filesystem; echo '/dev/x 9 9 102400 9% /'")
    ended = machine.install("--from", str(checkout))
    assert "there is not enough room: 100 MiB are free" in ended.stderr
    assert not list(machine.home.iterdir())


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_a_download_without_a_network_is_explained(machine: Machine) -> None:
    (machine.programs / "curl").symlink_to(shutil.which("curl") or "")
    wheel = "https://127.0.0.1:9/far_mesh-0.1.0-py3-none-any.whl"
    ended = machine.install("--from", wheel, "--sha256", "0" * 64)
    assert (ended.returncode, "the network cannot be reached" in ended.stderr) == (1, True), ended.stderr


def test_a_second_time_there_is_nothing_to_do(machine: Machine, checkout: Path) -> None:
    assert machine.install("--from", str(checkout)).returncode == 0
    (machine.far / "config.toml").write_text("price = 7\n")
    machine.notes.unlink()
    ended = machine.install("--from", str(checkout))
    assert (ended.returncode, "is installed already" in ended.stdout) == (0, True)
    assert "Your settings are as they were" in ended.stdout
    assert not any("-m pip" in asked for asked in machine.asked())


def test_an_upgrade_leaves_the_old_environment_as_it_is_and_keeps_two(machine: Machine, tmp_path: Path) -> None:
    for number, version in enumerate(("0.1.0", "0.1.0", "0.2.0", "0.3.0")):
        checkout = make_checkout(tmp_path / str(number), version)
        (checkout / "far_node" / "cli.py").write_text(f"app = {number}\n")
        assert machine.install("--from", str(checkout)).returncode == 0
        if number == 1:
            again = Path(os.readlink(machine.far / "venv")).name
            assert again.startswith("0.1.0+")
            assert (machine.far / "venvs" / "0.1.0" / "installed").exists()
        for older, name in enumerate(sorted(os.listdir(machine.far / "venvs")), start=1):
            if name != Path(os.readlink(machine.far / "venv")).name:
                os.utime(machine.far / "venvs" / name, (older, older))
    assert set(os.listdir(machine.far / "venvs")) == {again, "0.2.0", "0.3.0"}
    assert machine.link.resolve().parts[-3] == "0.3.0"


def test_what_a_node_still_runs_in_is_kept(machine: Machine, tmp_path: Path) -> None:
    assert machine.install("--from", str(make_checkout(tmp_path / "0.1.0"))).returncode == 0
    program = machine.link.resolve()
    with subprocess.Popen([program, "start"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as node:
        until(lambda: str(program).encode() in Path(f"/proc/{node.pid}/cmdline").read_bytes(), node)
        for version in ("0.2.0", "0.3.0", "0.4.0"):
            assert machine.install("--from", str(make_checkout(tmp_path / version, version))).returncode == 0
            os.utime(machine.far / "venvs" / "0.1.0", (1, 1))
        assert program.exists()
    assert machine.install("--from", str(make_checkout(tmp_path / "0.5.0", "0.5.0"))).returncode == 0
    assert set(os.listdir(machine.far / "venvs")) == {"0.3.0", "0.4.0", "0.5.0"}


def test_it_gives_way_to_a_node_that_updates_itself(machine: Machine, checkout: Path) -> None:
    (machine.far / "venvs").mkdir(parents=True)
    with (machine.far / "venvs" / ".lock").open("w") as lock:
        assert machine.install("--from", str(checkout)).returncode == 0
        fcntl.flock(lock, fcntl.LOCK_EX)
        for arguments in (("--from", str(checkout)), ("--uninstall",)):
            assert "far-node is updating itself" in machine.install(*arguments).stderr
    assert machine.link.exists()
    assert machine.install("--uninstall").returncode == 0


def test_an_upgrade_that_fails_leaves_the_old_version_and_can_be_run_again(machine: Machine, tmp_path: Path) -> None:
    assert machine.install("--from", str(make_checkout(tmp_path / "old"))).returncode == 0
    new = str(make_checkout(tmp_path / "new", "0.2.0"))
    assert machine.install("--from", new, FAILS_AT="-m pip --disable-pip-version-check check").returncode == 1
    assert machine.link.resolve().parts[-3] == "0.1.0"
    assert machine.install("--from", new).returncode == 0
    assert machine.link.resolve().parts[-3] == "0.2.0"


def test_a_killed_installer_is_taken_over_once_nothing_of_it_runs(machine: Machine, checkout: Path) -> None:
    killed = machine.begin("--from", str(checkout), HANGS_AT="requirements.lock")
    hanging = Path(f"{machine.notes}.hanging")
    until(lambda: hanging.exists() and hanging.read_text().strip(), killed)
    killed.kill()
    killed.wait()
    assert killed.stdout is not None
    killed.stdout.close()
    child = int(hanging.read_text())
    try:
        refused = machine.install("--from", str(checkout))
        assert f"another installer is at work (process {child})" in refused.stderr
    finally:
        end(child)
    until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])
    until(lambda: machine.install("--from", str(checkout)).returncode == 0)
    assert machine.link.exists()
    assert not (machine.far / ".installing").exists()


def test_one_that_is_interrupted_stops_what_it_has_started(machine: Machine, checkout: Path) -> None:
    stopped = machine.begin("--from", str(checkout), HANGS_AT="requirements.lock")
    hanging = Path(f"{machine.notes}.hanging")
    until(lambda: hanging.exists() and hanging.read_text().strip(), stopped)
    stopped.send_signal(signal.SIGTERM)
    out, _ = stopped.communicate(timeout=280)
    assert (stopped.returncode, "The same command goes on" in out) == (143, True)
    assert not Path(f"/proc/{int(hanging.read_text())}").exists()
    assert not (machine.far / ".installing").exists()
    assert not machine.link.exists()


def test_what_is_not_ours_stays(machine: Machine, checkout: Path) -> None:
    machine.link.parent.mkdir(parents=True)
    machine.link.write_text("somebody else's\n")
    ended = machine.install("--from", str(checkout))
    assert (ended.returncode, "is not ours and stays" in ended.stderr) == (0, True)
    assert machine.install("--uninstall").returncode == 0
    assert machine.link.read_text() == "somebody else's\n"
    (machine.far / "venv").mkdir(parents=True)
    ended = machine.install("--from", str(checkout))
    assert (ended.returncode, "Move it away" in ended.stderr) == (1, True), ended.stderr


# ---- uninstalling ----------------------------------------------------------------------------------------------------


def test_uninstalling_keeps_what_earns_unless_told_otherwise(machine: Machine, checkout: Path) -> None:
    assert machine.install("--from", str(checkout)).returncode == 0
    (machine.far / "identity").write_text("precious\n")
    ended = machine.install("--uninstall")
    assert (ended.returncode, "stay in" in ended.stdout) == (0, True)
    assert [path.name for path in machine.far.iterdir()] == ["identity"]
    assert not list(machine.link.parent.iterdir())
    assert machine.install("--uninstall", "--purge").returncode == 0
    assert not machine.far.exists()
    assert machine.install("--uninstall").returncode == 0


def test_a_node_or_a_service_that_runs_is_not_pulled_away(machine: Machine, checkout: Path) -> None:
    assert machine.install("--from", str(checkout)).returncode == 0
    ended = machine.install("--uninstall", NODE_STATUS="0")
    assert (ended.returncode, "First: far-node stop" in ended.stderr) == (1, True)
    unit = machine.home / ".config/systemd/user/far-node.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")
    ended = machine.install("--uninstall")
    assert (ended.returncode, "First: far-node service uninstall" in ended.stderr) == (1, True)
    assert machine.link.exists()


# ---- with the real pip -----------------------------------------------------------------------------------------------


def test_a_wheel_is_installed_by_the_real_pip_and_a_wrong_hash_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.has("python3", real_python())
    shelf = tmp_path / "shelf"
    leaf = make_wheel(shelf, "leaf", "1.0", {"leaf.py": "GREEN = True\n"})
    make_wheel(
        tmp_path / "torch",
        "torch",
        "2.13.0+cpu",
        {
            "torch/__init__.py": "__version__ = '2.13.0+cpu'\nfrom torch import cuda\n",
            "torch/cuda.py": "def is_available(): return False\n",
        },
    )

    def ours(hash_of_leaf: str) -> Path:
        locks = "far_mesh-0.1.0.data/data/share/far-mesh"
        program = "import sys, leaf\ndef app(): print('0.1.0' if sys.argv[1:] == ['--version'] else leaf.GREEN)\n"
        commands = "".join(f"{name} = far_node:app\n" for name in ("far-node", "far-mesh"))
        files = {
            "far_node.py": program,
            "far_mesh-0.1.0.dist-info/entry_points.txt": "[console_scripts]\n" + commands,
            f"{locks}/requirements.lock": f"leaf==1.0 \\\n    --hash=sha256:{hash_of_leaf}\n",
            f"{locks}/torch.lock": f"torch==2.13.0 \\\n    --hash=sha256:{'0' * 64}\n",
            f"{locks}/tools.lock": "",
        }
        return make_wheel(tmp_path / hash_of_leaf[:4], "far_mesh", "0.1.0", files, ("leaf==1.0", "torch>=2.13"))

    machine.environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf), "PIP_CONFIG_FILE": os.devnull}
    arguments = ("--torch", "cpu", "--torch-index", str(tmp_path / "torch"))
    refused = machine.install("--from", str(ours("0" * 64)), *arguments)
    assert (refused.returncode, "so it was refused" in refused.stderr) == (1, True), refused.stderr
    assert not machine.link.exists()

    wheel = ours(sha256(leaf))
    refused = machine.install("--from", str(wheel), "--sha256", "1" * 64, *arguments)
    assert "the package is not what it should be" in refused.stderr
    assert wheel.exists()
    ended = machine.install("--from", str(wheel), "--sha256", sha256(wheel), *arguments)
    assert ended.returncode == 0, ended.stderr + (machine.far / "install.log").read_text()
    told = subprocess.run([machine.link, "--version"], capture_output=True, text=True, check=True, env={})
    assert told.stdout == "0.1.0\n"
