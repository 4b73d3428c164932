"""The TypeScript SDK, as others get it, and its examples, against a gateway that runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.model.tools import FORMATS
from tests.far_mesh.marketplace.channels.payer import Payer
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, NODES, STORY, MeshDouble, Turnstile
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, DEPLOYER, GAS_WEI, PROMPT_PRICE, House, rpc
from tests.far_mesh.marketplace.nodes.owners import owner_of, wallet_key
from tests.far_mesh.marketplace.nodes.test_claims import claim_of
from tests.support.documents import key_of, peer_of

SDK = Path(__file__).parents[3] / "sdk" / "typescript"
MODULES = SDK.parents[1] / "node_modules"
NODE = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")  # examples need 22 or newer
TERMS = {"voucher_step_units": 200_000, "voucher_seconds": 10.0, "unsettled_limit_units": 10**8}


def reads_typescript(program: str) -> bool:
    """Whether this Node runs programs in TypeScript as they are."""
    said = subprocess.check_output([program, "--version"], text=True)
    return tuple(map(int, said.strip()[1:].split(".")[:2])) >= (22, 18)


pytestmark = pytest.mark.skipif(
    NODE is None or not reads_typescript(NODE) or not (MODULES / "typescript").exists(),
    reason="npm ci has not been run, or there is no Node 22.18 or newer",
)


@pytest.fixture(scope="module", autouse=True)
def package() -> None:
    """``dist`` of the sources as they are."""
    made = SDK / "dist" / "index.js"
    if not made.exists() or made.stat().st_mtime < max(path.stat().st_mtime for path in SDK.rglob("src/**/*.ts")):
        run([str(MODULES / "typescript" / "bin" / "tsc"), "--project", "tsconfig.build.json"])


def run(words: list[str], **environment: str) -> str:
    """What a program in the package's folder says, once it has ended well."""
    done = subprocess.run(  # our own programs
        [str(NODE), *words],
        cwd=SDK,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def live(name: str, house: House) -> subprocess.Popen[str]:
    """A program that runs beside what the gateway is made to do."""
    stage = {"url": house.url, "model": MODEL, "key": house.user().key}
    return subprocess.Popen(  # our own program
        [str(NODE), f"tests/live/{name}.ts"],
        cwd=SDK,
        env=os.environ | {"FAR_STAGE": json.dumps(stage)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def next_line(program: subprocess.Popen[str], expected: str) -> str:
    """What it says until it says what is expected of it."""
    assert program.stdout is not None
    said = ""
    for line in program.stdout:
        said += line
        if line == expected:
            return said
    raise AssertionError(said)


def rest_of(program: subprocess.Popen[str]) -> str:
    """What it says after that."""
    assert program.stdout is not None
    return program.stdout.read()


def example(name: str, house: House, **environment: str) -> str:
    """What an example says."""
    return run([f"examples/{name}.ts"], FAR_GATEWAY=house.url, FAR_MODEL=MODEL, **environment)


def fresh_key() -> str:
    return str(Account.create().key.to_0x_hex())


def paid_in(house: House, units: int) -> tuple[str, str]:
    """A wallet that has paid in, of which the gateway was told nothing, and the transaction."""
    key, chain = fresh_key(), house.rooms.chain

    async def pay() -> str:
        await rpc(chain.rpc_url, "anvil_setBalance", address_of(key), hex(GAS_WEI))
        await ChainWallet(chain, DEPLOYER).transfer(address_of(key), units)
        return await ChainWallet(chain, key).deposit(units)

    return key, house.loop.do(pay())


def test_everything_that_an_application_does(open_house: OpenHouse) -> None:
    operator = fresh_key()
    serving = (replace(NODES[0], owner=owner_of("ann")), *NODES[1:])
    house = open_house(MeshDouble(serving=serving), operators=[address_of(operator)], **TERMS)
    payer = Payer(house.user(), 5_000_000)
    deposit_key, transaction = paid_in(house, 3 * 10**8)
    claim = claim_of("kim")
    stage: dict[str, Any] = {
        "url": house.url,
        "model": MODEL,
        "story": "".join(STORY),
        "prices": {"prompt": PROMPT_PRICE, "completion": COMPLETION_PRICE},
        "user_key": payer.user.key,
        "poor_key": fresh_key(),
        "operator_key": operator,
        "provider_key": wallet_key("ann"),
        "deposit": {"key": deposit_key, "tx": transaction, "units": 3 * 10**8},
        "channel": {"id": payer.channel_id, "key": payer.key, "units": payer.deposit_units},
        "claim": {"key": wallet_key("kim"), "fragment": claim.fragment(claim.signed_by_node(key_of("kim")))},
        "worker_id": peer_of("max"),
    }
    assert claim.chain_id == CHAIN_ID
    run(["--test", "tests/live/answers.ts"], FAR_STAGE=json.dumps(stage))


def test_who_hangs_up_pays_for_what_came(open_house: OpenHouse) -> None:
    gate = Turnstile()
    house = open_house(MeshDouble(gate=gate))
    gate.let_through(house.loop.loop, 3)
    with live("abort", house) as program:
        said = next_line(program, "hung up\n")
        while program.poll() is None:
            gate.let_through(house.loop.loop, 1)
            time.sleep(0.2)
        assert program.wait(60) == 0, said + rest_of(program)


def test_who_waits_is_told_where_it_stands(open_house: OpenHouse) -> None:
    gate = Turnstile()
    house = open_house(MeshDouble(gate=gate), model_sessions=1)
    gate.let_through(house.loop.loop, 1)
    with live("queue", house) as program:
        said = next_line(program, "waits at place 1\n")
        gate.let_through(house.loop.loop, 2 * len(STORY))
        assert program.wait(60) == 0, said + rest_of(program)


@pytest.fixture
def house(open_house: OpenHouse) -> House:
    return open_house(**TERMS)


def api_key(house: House) -> tuple[str, Any]:
    user = house.user()
    made = user.http.post("/api/account/keys", json={"name": "example", "scopes": ["inference", "account:read"]})
    assert made.status_code == 201, made.text
    return made.json()["key"], user


def test_the_example_of_an_answer(house: House) -> None:
    key, _ = api_key(house)
    said = example("generate", house, FAR_API_KEY=key)
    assert "".join(STORY) in said
    assert "12 tokens from 3 nodes for 0.0008" in said
    assert "of blocks 0:8" in said


def test_the_example_of_a_wallet(house: House) -> None:
    said = example("wallet", house, WALLET_PRIVATE_KEY=house.user().key)
    assert "has 1 FAR" in said
    assert "revoked, and refused: unauthorized" in said


def test_the_example_of_a_channel(house: House) -> None:
    key, user = api_key(house)
    payer = Payer(user, 5_000_000)
    said = example("channel", house, FAR_API_KEY=key, CHANNEL_ID=payer.channel_id, CHANNEL_KEY=payer.key)
    assert "".join(STORY) in said
    assert "promised so far" in said


def test_the_example_of_a_job_and_its_webhook(open_house: OpenHouse) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = int(door.getsockname()[1])
    house = open_house(outbound_networks=["127.0.0.0/8"], outbound_http=True, outbound_ports=[port])
    said = example("job", house, WALLET_PRIVATE_KEY=house.user().key, PORT=str(port))
    assert "job.completed: job_" in said
    assert f"completed: {''.join(STORY)}" in said


def test_the_example_of_tools(open_house: OpenHouse) -> None:
    call = ("<tool_call>", '{"name": "weather",', ' "arguments": {"city": "Bonn"}}', "</tool_call>")
    house = open_house(MeshDouble(story=call, tool_format=FORMATS[0]))
    key, _ = api_key(house)
    said = example("tools", house, FAR_API_KEY=key)
    assert 'calls weather({"city": "Bonn"})' in said
