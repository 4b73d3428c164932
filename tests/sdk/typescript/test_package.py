"""What is published: nothing is missing in it, nothing else is in it, and the oldest Node that is promised runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, STORY
from tests.sdk.typescript.test_live import MODULES, NODE, SDK, api_key

ROOT = SDK.parents[1]
PROGRAM = """
import assert from "node:assert/strict";
import * as sdk from "farlabs";
const client = new sdk.FarLabsClient({ url: process.env.FAR_GATEWAY, apiKey: process.env.FAR_API_KEY });
const story = client.generate({ model: process.env.FAR_MODEL, prompt: "Tell me a story", maxTokens: 12 });
for await (const text of story) process.stdout.write(text);
const proved = await sdk.verifyReceipts(await client.receipts((await story.result()).request_id));
assert.equal(proved.blocks.length, 1);
await assert.rejects(import("farlabs/viem"), /viem/); // which is for those who have it
"""
TYPED = """
import { FarLabsClient, type Place } from "farlabs";
const places: Place[] = [];
const client = new FarLabsClient({ url: "http://127.0.0.1:8000" });
const onWait = (place: Place) => void places.push(place);
const story = client.chat({ model: "m", messages: [{ role: "user", content: "x" }], onWait });
const cost: number = (await story.result()).cost_units;
console.log(cost);
"""
STRICT = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2023,dom,dom.iterable"]

pytestmark = pytest.mark.skipif(
    NODE is None or not (MODULES / "typescript").exists(), reason="npm ci has not been run, or there is no node"
)


def nodes() -> dict[str, str]:
    """Each Node of this machine by its version."""
    found: dict[str, str] = {}
    for folder in os.get_exec_path():
        if program := shutil.which("node", path=folder):
            found.setdefault(subprocess.check_output([program, "--version"], text=True).strip(), program)
    return found


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's folder, in which the package was installed and nothing else."""
    directory = tmp_path_factory.mktemp("package")
    copy = directory / "sdk" / "typescript"
    shutil.copytree(SDK, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (directory / "node_modules").symlink_to(MODULES)
    (copy / "dist").mkdir()
    (copy / "dist" / "of-an-older-version.js").touch()
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(str(NODE)).parent), *os.get_exec_path()])}
    subprocess.run(["npm", "pack", "--silent"], cwd=copy, env=environment, check=True, timeout=240)
    (made,) = copy.glob("*.tgz")
    with tarfile.open(made) as archive:
        archive.extractall(directory / "unpacked")  # npm has just written it
    app = tmp_path_factory.mktemp("app")
    (app / "node_modules").mkdir()
    (directory / "unpacked" / "package").rename(app / "node_modules" / "farlabs")
    return app


def test_it_has_what_was_compiled_what_that_was_made_of_and_the_licence(app: Path) -> None:
    package = app / "node_modules" / "farlabs"
    sources = {str(path.relative_to(package / "src"))[:-3] for path in package.rglob("src/**/*.ts")}
    assert {"index", "viem", "actions/generate", "generated/openapi"} <= sources
    expected = {"package.json", "README.md", "LICENSE"} | {f"src/{name}.ts" for name in sources}
    expected |= {f"dist/{name}.{end}" for name in sources for end in ("js", "js.map", "d.ts")}
    assert {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()} == expected
    for folder in (SDK, ROOT / "sdk" / "python"):
        assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_it_depends_on_nothing(app: Path) -> None:
    told: dict[str, Any] = json.loads((app / "node_modules" / "farlabs" / "package.json").read_text())
    assert "dependencies" not in told
    optional = told["peerDependenciesMeta"]
    assert all(optional[name]["optional"] for name in told["peerDependencies"])
    code = "".join(path.read_text() for path in app.rglob("farlabs/dist/**/*.js") if path.name != "viem.js")
    assert not re.findall(r"""(?:from|import\()\s*["'](?!\.)""", code)


def test_its_types_need_nothing_else(app: Path) -> None:
    (app / "program.mts").write_text(TYPED)
    compiler = [str(NODE), str(MODULES / "typescript" / "bin" / "tsc"), *STRICT, "program.mts"]
    done = subprocess.run(compiler, cwd=app, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout


def test_every_node_from_20_on_runs_it(app: Path, open_house: OpenHouse) -> None:
    house = open_house()
    key, _ = api_key(house)
    (app / "program.mjs").write_text(PROGRAM)
    environment = {"FAR_GATEWAY": house.url, "FAR_API_KEY": key, "FAR_MODEL": MODEL}
    able = [program for version, program in nodes().items() if int(version[1:].partition(".")[0]) >= 20]
    assert able
    for program in able:
        words = [program, "program.mjs"]
        done = subprocess.run(  # our own program
            words, cwd=app, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode, done.stdout) == (0, "".join(STORY)), done.stderr
