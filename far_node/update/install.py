"""Looking for a newer version, and installing it beside the one that runs: by pip, in processes of its own."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from packaging.version import Version

from far_node.update.environments import Environment, Environments
from far_node.update.errors import UpdateFailed, UpdateRefused
from far_node.update.options import UpdateOptions, is_address
from far_node.update.releases import MAX_LIST_BYTES, PACKAGE, Release, newest, read_releases

LOOK_SECONDS = 300.0
INSTALL_SECONDS = 2 * 3600.0
TRY_SECONDS = 300.0
FETCH_SECONDS = 30.0

_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables that would let an interpreter see another environment than its own."""
TORCH_INDEX_VARIABLE = "FAR_TORCH_INDEX"
"""Where builds of torch are, for the installer and for us."""
LISTED_BUILD = "cu130"
"""The build that the default index has for Linux, and ``torch.lock`` the hashes of."""

Add = Callable[..., Awaitable[None]]

_PINNED = re.compile(r"^[A-Za-z0-9_.-]+==[^\s;\\]+", re.MULTILINE)
_NOTHING_NEWER = re.compile(r"\(from versions: (?!none\))")
_PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


def own_environment() -> dict[str, str]:
    """The variables of this process, without those that lead into other environments."""
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN}


async def look(options: UpdateOptions, current: Version, failed: Collection[Version] = ()) -> Release | None:
    """The version to go to; None: there is none that is newer.

    Raises:
        UpdateFailed: nobody could be asked.
        UpdateRefused: the list of releases is not what its publisher signed.
    """
    if options.releases is not None and options.publisher is not None:
        data = await asyncio.to_thread(_fetch, options.releases)
        return newest(read_releases(data, options.publisher), current, options.channel, failed)
    return await _ask_index(options, current, failed)


async def prepare(environments: Environments, release: Release, options: UpdateOptions) -> Environment:
    """Install a release into an environment of its own. The link is as it was.

    Raises:
        UpdateFailed: it could not be downloaded or installed; nothing is left of it.
        UpdateRefused: a file is not the one that was announced, or the program does not even explain itself.
    """
    with environments.locked() as lock:
        if release.version in {one.version for one in environments.complete()}:
            return environments.place_of(release.version)
        place = environments.clear(release.version)
        try:
            build = await _make(environments, place, release, options, lock)
        except BaseException:
            shutil.rmtree(place.path, ignore_errors=True)
            raise
        environments.mark_installed(place, build)
    return place


async def _ask_index(options: UpdateOptions, current: Version, failed: Collection[Version]) -> Release | None:
    await _need_pip()
    wanted = ",".join([f">{current}", *(f"!={version}" for version in sorted(failed))])
    pre = ["--pre"] if options.channel == "pre" else []
    # a wheel, which says what it is without running anything
    argv = ["install", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary", PACKAGE, "--quiet"]
    argv += ["--report", "-", *pre, *_index(options), PACKAGE + wanted]
    code, out, err = await _run([sys.executable, *_PIP, *argv], LOOK_SECONDS)
    if code and _NOTHING_NEWER.search(err):
        return None
    if code:
        raise UpdateFailed(f"the index did not say which version is the newest: {_last_line(err)}")
    try:
        (found,) = json.loads(out)["install"]
        version = Version(found["metadata"]["version"])
        digest = _sha256_of(found["download_info"]["archive_info"])
    except (ValueError, KeyError, TypeError):
        raise UpdateFailed("the index names no SHA-256 of the newest version") from None
    if version.is_prerelease and options.channel != "pre":  # pip gives those to whoever runs one
        return None
    if version <= current or version in failed:
        raise UpdateRefused(f"the index answered with {version}, which was not asked for")
    return Release(version, (digest,))


def _sha256_of(archive: dict[str, Any]) -> str:
    """What pip's report says of a file; before version 23.1, which Debian 12 has, in the older form of PEP 610."""
    if "hashes" in archive:
        return str(archive["hashes"]["sha256"])
    kind, _, digest = str(archive["hash"]).partition("=")
    return {kind: digest}["sha256"]


async def _make(
    environments: Environments, place: Environment, release: Release, options: UpdateOptions, lock: int
) -> str | None:
    """All steps of the installer, in its order but for our own file: that comes first, since it says what the others
    must be. Returns for which devices torch is."""
    await _need_pip()
    await _must([sys.executable, "-m", "venv", "--without-pip", str(place.path)], TRY_SECONDS, lock)
    install = [sys.executable, *_PIP, "--python", str(place.python), "install", "--quiet", *_index(options)]

    async def add(*what: str, how: Sequence[str] = install) -> None:
        await _must([*how, *what], INSTALL_SECONDS, lock)

    ours = f"{PACKAGE}=={release.version}"
    file = place.path / "requirements.txt"
    file.write_text(" ".join([ours, *(f"--hash=sha256:{digest}" for digest in release.hashes)]) + "\n")
    # nothing of a wheel runs before its hash fits
    await add("--no-deps", "--only-binary", PACKAGE, "--require-hashes", "--requirement", str(file))
    current = environments.current()
    build = None if current is None else current.torch_build
    packages = place.lists / "requirements.lock"
    if packages.is_file():
        by_hash = ("--require-hashes", "--no-deps", "--requirement")
        builds = _setuptools_of(packages.read_text())
        if builds:
            file.write_text(builds)
            await add(*by_hash, str(file))
        await add("--no-build-isolation", "--use-pep517", *by_hash, str(packages))
        await _add_torch(place, build, add, by_hash)
    else:
        await add(ours)
    await _must([sys.executable, *_PIP, "--python", str(place.python), "check"], TRY_SECONDS, lock)
    code, _, err = await _run([str(place.program), "start", "--help"], TRY_SECONDS, lock)
    if code:
        raise UpdateRefused(f"{release.version} does not run here: {_last_line(err)}", version=str(release.version))
    return build


async def _add_torch(place: Environment, build: str | None, add: Add, by_hash: Sequence[str]) -> None:
    """The torch that this machine has until now, in the version that is listed."""
    listed = place.lists / "torch.lock"
    index = os.environ.get(TORCH_INDEX_VARIABLE)
    exact = re.search(r"^torch==([0-9.]+)", listed.read_text(), re.MULTILINE)
    if exact is None:
        raise UpdateRefused("the list of packages names no torch")
    pins = place.path / "constraints.txt"
    pins.write_text("\n".join(_PINNED.findall((place.lists / "requirements.lock").read_text())) + "\n")
    local = "" if sys.platform == "darwin" else f"+{build}"
    if build is None or build == LISTED_BUILD or (sys.platform == "darwin" and not index):
        await add(*by_hash, str(listed))
    elif index:
        where = index.replace("{build}", build)
        how = "--extra-index-url" if is_address(where) else "--find-links"
        await add("--constraint", str(pins), how, where, f"torch=={exact[1]}{local}")
    else:
        await add(*by_hash, str(place.lists / "tools.lock"))
        uv = [str(place.path / "bin" / "uv"), "pip", "install", "--python", str(place.python)]
        try:
            await add("--torch-backend", build, "--constraint", str(pins), f"torch=={exact[1]}", how=uv)
        except UpdateFailed:
            if build != "cpu":
                raise
            await add(*by_hash, str(listed))  # larger, and runs on a CPU too


def _setuptools_of(text: str) -> str:
    """The lines of a list that pin setuptools, which builds what there is in sources alone."""
    found = re.search(r"^setuptools==.*(?:\n[ \t].*)*", text, re.MULTILINE)
    return f"{found[0]}\n" if found else ""


async def _need_pip() -> None:
    if importlib.util.find_spec("pip") is None:
        await _must([sys.executable, "-m", "ensurepip", "--default-pip"], TRY_SECONDS)


def _index(options: UpdateOptions) -> list[str]:
    if options.index is None:
        return []
    if is_address(options.index):
        return ["--index-url", options.index]
    return ["--no-index", "--find-links", str(Path(options.index).expanduser())]


async def _must(argv: Sequence[str], seconds: float, lock: int | None = None) -> None:
    code, _, err = await _run(argv, seconds, lock)
    if code and "DO NOT MATCH THE HASHES" in err:
        raise UpdateRefused("a file is not the one that was announced: its SHA-256 is another")
    if code:
        raise UpdateFailed(f"it could not be installed: {_last_line(err)}")


async def _run(argv: Sequence[str], seconds: float, lock: int | None = None) -> tuple[int, str, str]:
    """Exit status and what it said. Nobody is left behind; whoever is, because this process was killed, keeps ``lock``
    until it has ended."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=own_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )
    except OSError as error:
        raise UpdateFailed(f"{argv[0]} cannot be run: {error.strerror or error}") from None
    async with _ended(process):
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate()
        except TimeoutError:
            raise UpdateFailed(f"{Path(argv[0]).name} was not done after {seconds:.0f} s") from None
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


@contextlib.asynccontextmanager
async def _ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()


def _fetch(source: str) -> bytes:
    import httpx

    try:
        if not is_address(source):
            with Path(source).expanduser().open("rb") as file:
                data = file.read(MAX_LIST_BYTES + 1)
        else:
            data = b""
            with httpx.stream("GET", source, timeout=FETCH_SECONDS) as answer:
                if answer.status_code != 200:
                    raise UpdateFailed(f"the list of releases is not there: {source} answers {answer.status_code}")
                for piece in answer.iter_bytes():
                    data += piece
                    if len(data) > MAX_LIST_BYTES:
                        break
    except (OSError, httpx.HTTPError) as error:
        raise UpdateFailed(f"the list of releases cannot be read from {source}: {error}") from None
    return data


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    worst = [line for line in lines if line.startswith("ERROR")]
    return (worst or lines or ["it said nothing"])[-1][:400]
