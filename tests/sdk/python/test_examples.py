"""The examples do what they say, against a gateway that runs; the README calls what exists."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from farlabs.cli import _parser

from far_mesh.model.tools import FORMATS
from tests.docs.pages import blocks, links, table
from tests.far_mesh.marketplace.channels.payer import Payer
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import House, User

SDK = Path(__file__).parents[3] / "sdk" / "python"
README = SDK / "README.md"
TEXT = "".join(STORY)


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for all examples that need nothing of their own."""
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('examples') / 'm.db'}"
    terms = {"voucher_step_units": 200_000, "voucher_seconds": 10.0, "unsettled_limit_units": 10**9}
    with House(loop, live, live.settings(database_url=url, **terms), MeshDouble()) as opened:
        yield opened


def key_of(user: User) -> str:
    """An API key."""
    made = user.http.post("/api/account/keys", json={"name": "example", "scopes": ["inference", "account:read"]})
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


def example(name: str, house: House, **environment: str) -> str:
    """What an example says."""
    ended = subprocess.run(
        [sys.executable, str(SDK / "examples" / f"{name}.py")],
        env=os.environ | {"PYTHONPATH": str(SDK / "src"), "FAR_GATEWAY": house.url, "FAR_MODEL": MODEL} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_an_answer(house: House) -> None:
    said = example("generate", house, FAR_API_KEY=key_of(house.user()))
    assert TEXT in said
    assert "12 tokens from 3 nodes for 0.0008" in said
    assert "of blocks 0:8" in said


def test_many_answers(house: House) -> None:
    said = example("many", house, FAR_API_KEY=key_of(house.user()))
    assert {f"{animal}: {TEXT}" for animal in ("rabbit", "whale", "owl")} <= set(said.splitlines())


def test_a_wallet(house: House) -> None:
    said = example("wallet", house, WALLET_PRIVATE_KEY=house.user().key)
    assert "has 1 FAR" in said
    assert "revoked, and refused: unauthorized" in said


def test_a_channel(house: House) -> None:
    payer = Payer(house.user(), 5_000_000)
    key = key_of(payer.user)
    said = example("channel", house, FAR_API_KEY=key, FAR_CHANNEL=payer.channel_id, CHANNEL_KEY=payer.key)
    assert TEXT in said
    assert "promised so far" in said


def test_a_job(house: House) -> None:
    said = example("job", house, FAR_API_KEY=key_of(house.user()))
    assert f"completed: {TEXT}" in said


def test_tools(open_house: OpenHouse) -> None:
    call = ("<tool_call>", '{"name": "weather",', ' "arguments": {"city": "Bonn"}}', "</tool_call>")
    house = open_house(MeshDouble(story=call, tool_format=FORMATS[0]))
    assert 'calls weather({"city": "Bonn"})' in example("tools", house, FAR_API_KEY=key_of(house.user()))


def test_every_example_is_tried() -> None:
    tried = {"generate", "many", "wallet", "channel", "job", "tools"}
    assert {path.stem for path in (SDK / "examples").glob("*.py")} == tried


# ---- the README


def test_what_the_readme_imports_is_there() -> None:
    for block in blocks(README, "python"):
        tree = ast.parse(block.text)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_what_the_readme_points_to_is_there() -> None:
    assert all((README.parent / link).exists() for link in links(README) if "://" not in link)


def test_the_commands_of_the_readme_are_understood() -> None:
    lines = [line for block in blocks(README, "bash") for line in block.text.splitlines() if line.startswith("far ")]
    told = {shlex.split(re.sub(r"\s[>#].*", "", line))[1] for line in lines}
    for line in lines:
        _parser().parse_args(shlex.split(re.sub(r"\s[>#].*", "", line))[1:])
    assert told >= {"models", "chat", "generate", "quote", "balance", "usage", "keys", "request", "verify"}


def test_the_exit_codes_of_the_readme_are_those_of_the_command() -> None:
    from farlabs import cli

    codes = {0, cli.EXIT_FAILED, cli.EXIT_USAGE, cli.EXIT_NOT_PROVEN, cli.EXIT_INTERRUPTED}
    assert {int(row[0]) for row in table(README, "| exit code | means")} == codes
