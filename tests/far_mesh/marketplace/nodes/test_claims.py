"""Claims of nodes: through the door, and by ``far-node claim``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from typer.testing import CliRunner

import far_node.cli
from discovery.dht.identity import load_identity
from discovery.protocol.claim import NodeClaim
from discovery.protocol.ids import check_wallet
from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.clock import now
from far_node.claim_cli import document
from tests.far_mesh.marketplace.auth.contracts import deploy_wallet
from tests.far_mesh.marketplace.doubles import MODEL, NODES, MeshDouble
from tests.far_mesh.marketplace.house import House, sign_in
from tests.far_mesh.marketplace.nodes.owners import AUDIENCE, owner_of, registration, send, wallet_key
from tests.far_mesh.marketplace.test_http import error
from tests.support.documents import key_of, peer_of
from tests.support.models import make_model

PATH = "/api/provider/nodes"
ANN = NODES[0]


@pytest.fixture(scope="module")
def swarm() -> MeshDouble:
    return MeshDouble()


@pytest.fixture(scope="module")
def house(
    request: pytest.FixtureRequest, swarm: MeshDouble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('claims') / 'm.db'}"
    with House(loop, live, live.settings(database_url=url), swarm) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(house: House) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.url, timeout=20) as client:
        yield client


def claim_of(node: str, owner: str | None = None, at: datetime | None = None, **changes: Any) -> NodeClaim:
    """A claim of the node ``node`` for the wallet of ``owner``."""
    at = at or now()
    usual = NodeClaim(
        peer_of(node),
        check_wallet(owner_of(owner or node)),
        AUDIENCE,
        CHAIN_ID,
        int(at.timestamp() * 1000),
        int(at.timestamp()) + 600,
    )
    return replace(usual, **changes)


def wallets_half(claim: NodeClaim, owner: str) -> str:
    signed = Account.sign_message(encode_typed_data(full_message=claim.typed_data()), wallet_key(owner))
    return str(signed.signature.to_0x_hex())


def body_of(claim: NodeClaim, *, node: str, owner: str) -> dict[str, Any]:
    """What is sent when the node ``node`` and the wallet of ``owner`` sign."""
    return document(claim, claim.signed_by_node(key_of(node)), wallets_half(claim, owner))


def claimed(http: httpx.Client, owner: str) -> list[dict[str, Any]]:
    headers = {"Authorization": f"Bearer {sign_in(http, wallet_key(owner))['token']}"}
    found: list[dict[str, Any]] = http.get(PATH, headers=headers).json()["nodes"]
    return found


def test_a_claim_counts_once_and_shows_the_node_to_its_owner(http: httpx.Client) -> None:
    body = body_of(claim_of("kim"), node="kim", owner="kim")
    answer = http.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["node_id"], told["wallet_address"]) == (peer_of("kim"), owner_of("kim"))
    assert told["announced"] is False
    assert [node["node_id"] for node in claimed(http, "kim")] == [peer_of("kim")]
    public = http.get(f"/api/nodes/{peer_of('kim')}").json()
    assert (public["state"], public["registered"], public["wallet_address"]) == ("registered", True, owner_of("kim"))
    assert claimed(http, "eve") == []
    error(http.post(PATH, json=body), 409, "proof_stale")  # a replay
    assert http.get(PATH).status_code == 401


def test_what_is_not_signed_by_both_for_here_and_now_is_refused(http: httpx.Client) -> None:
    wrong = {
        "another chain": (claim_of("lea", chain_id=1), (400, "invalid_argument")),
        "another gateway": (claim_of("lea", gateway="https://elsewhere.test"), (400, "invalid_argument")),
        "expired": (claim_of("lea", at=now() - timedelta(hours=1)), (409, "proof_stale")),
        "from the future": (claim_of("lea", at=now() + timedelta(hours=1)), (409, "proof_stale")),
    }
    for claim, refusal in wrong.values():
        error(http.post(PATH, json=body_of(claim, node="lea", owner="lea")), *refusal)
    claim = claim_of("lea")
    good = body_of(claim, node="lea", owner="lea")
    forged = {
        "another node signed": body_of(claim, node="eve", owner="lea"),
        "another wallet signed": body_of(claim, node="lea", owner="eve"),
        "of another node": good | {"node_id": peer_of("eve")},
        "for another wallet": good | {"wallet_address": owner_of("eve")},
        "another nonce": good | {"nonce": claim.nonce + 1},
        "another deadline": good | {"deadline": claim.deadline + 1},
        "no signature": good | {"signature": "0x"},
        "nonsense": good | {"signature": "0x" + "ff" * 65},
        "no half": good | {"node_signature": ""},
    }
    for body in forged.values():
        error(http.post(PATH, json=body), 401, "bad_signature")
    shapes: list[dict[str, Any]] = [
        {"nonce": "1"},
        {"nonce": 0},
        {"deadline": -1},
        {"deadline": 2**60},
        {"node_id": "x"},
        {"wallet_address": "0x12"},
        {"more": 1},
        {"node_signature": "a" * 129},
    ]
    for shape in shapes:
        assert http.post(PATH, json=good | shape).status_code == 400, shape
    assert http.get(f"/api/nodes/{peer_of('lea')}").status_code == 404, "nothing of this was kept"
    assert http.post(PATH, json=good).status_code == 200


def test_the_announcement_of_a_node_comes_before_a_claim(http: httpx.Client, swarm: MeshDouble) -> None:
    claim = claim_of(ANN.name, "eve")
    body = document(claim, claim.signed_by_node(key_of(ANN.name)), wallets_half(claim, "eve"))
    error(http.post(PATH, json=body), 409, "announced_for_another_wallet")


def test_of_registrations_and_claims_the_latest_counts(http: httpx.Client) -> None:
    at = now()
    first = registration("mia", at=at - timedelta(seconds=10))
    assert send(http, "/api/nodes/register", first, signer="mia").status_code == 200
    later = claim_of("mia", "zoe", at)
    assert http.post(PATH, json=body_of(later, node="mia", owner="zoe")).status_code == 200
    found = http.get(f"/api/nodes/{peer_of('mia')}").json()
    assert found["wallet_address"] == owner_of("zoe")
    assert found["gpu_model"] == "NVIDIA RTX 4090", "a claim says nothing of the machine"
    second = registration("mia", at=at - timedelta(seconds=5))
    error(send(http, "/api/nodes/register", second, signer="mia"), 409, "proof_stale")
    assert claimed(http, "mia") == []


def test_a_wallet_that_is_a_contract_claims_by_its_owners_signature(house: House, http: httpx.Client) -> None:
    deployed = house.loop.do(deploy_wallet(house.live.rpc_url, owner_of("ben")))
    claim = claim_of("ben", wallet=check_wallet(deployed))
    error(http.post(PATH, json=body_of(claim, node="ben", owner="eve")), 401, "bad_signature")
    assert http.post(PATH, json=body_of(claim, node="ben", owner="ben")).status_code == 200
    assert http.get(f"/api/nodes/{peer_of('ben')}").json()["wallet_address"] == check_wallet(deployed)


# ---- far-node claim


def run(house: House, identity: Path, *more: str, exit_code: int = 0, **environment: str) -> dict[str, Any]:
    words = ["claim", "--gateway", house.url, "--domain", "far.test", "--identity", str(identity), "--json", *more]
    ended = CliRunner().invoke(far_node.cli.app, words, env=environment)
    assert ended.exit_code == exit_code, ended.output
    told: dict[str, Any] = json.loads(ended.output)
    return told


def test_a_link_is_signed_where_the_wallet_is(house: House, http: httpx.Client, tmp_path: Path) -> None:
    node = load_identity(tmp_path / "identity").peer_id
    more = ("--wallet", owner_of("dan"), "--dashboard", "https://dash.test/")
    told = run(house, tmp_path / "identity", *more, FAR_WALLET_KEY=wallet_key("dan"))
    page, _, fragment = told["link"].partition("#")
    assert (told["event"], page) == ("link", "https://dash.test/claim")
    claim, half = NodeClaim.from_fragment(fragment)
    assert (claim.node, claim.wallet, claim.gateway, claim.chain_id) == (node, owner_of("dan"), AUDIENCE, CHAIN_ID)
    assert told["typed_data"] == claim.typed_data()
    assert http.get(f"/api/nodes/{node}").status_code == 404, "nothing counts before the wallet has signed"
    assert http.post(PATH, json=document(claim, half, wallets_half(claim, "dan"))).status_code == 200


def test_a_keystore_signs_here(house: House, http: httpx.Client, tmp_path: Path) -> None:
    node = load_identity(tmp_path / "identity").peer_id
    keystore, password = tmp_path / "keystore.json", tmp_path / "password"
    keystore.write_text(json.dumps(Account.encrypt(bytes.fromhex(wallet_key("dan")[2:]), "secret", iterations=2)))
    password.write_text("secret\n")
    more = ("--keystore", str(keystore), "--password-file", str(password))
    told = run(house, tmp_path / "identity", *more)
    assert (told["event"], told["wallet"], told["announced"]) == ("claimed", owner_of("dan"), False)
    assert http.get(f"/api/nodes/{node}").json()["wallet_address"] == owner_of("dan")
    assert run(house, tmp_path / "identity", *more, "--wallet", owner_of("eve"), exit_code=1)["code"] == (
        "wallet_key_unusable"
    )


def test_one_of_several_nodes_is_claimed_by_its_name_for_the_wallet_of_its_settings(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FAR_NODE_CONFIG")
    homes = {"dan": tmp_path / ".far", "eve": tmp_path / ".far" / "nodes" / "second"}
    for owner, home in homes.items():
        load_identity(home / "identity")
        (home / "config.toml").write_text(f'wallet = "{owner_of(owner)}"')
    words = ["claim", "--gateway", house.url, "--domain", "far.test", "--json"]
    for owner, more in (("dan", []), ("eve", ["--name", "second"])):
        told = json.loads(CliRunner().invoke(far_node.cli.app, [*words, *more]).stdout)
        assert (told["peer_id"], told["wallet"]) == (
            load_identity(homes[owner] / "identity").peer_id,
            owner_of(owner),
        )


def test_a_key_in_the_environment_is_refused_and_why(house: House, tmp_path: Path) -> None:
    load_identity(tmp_path / "identity")
    told = run(house, tmp_path / "identity", "--private-key-env", "KEY", exit_code=1, KEY=wallet_key("dan"))
    assert told["code"] == "invalid_argument"
    assert "every program" in told["message"]
    assert wallet_key("dan") not in json.dumps(told)


def test_mistakes_have_names(house: House, tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    load_identity(identity)
    mistakes = {
        (): "invalid_argument",
        ("--wallet", "0x12"): "invalid_wallet",
        ("--wallet", owner_of("dan"), "--domain", "elsewhere.test"): "gateway_unintelligible",
        ("--wallet", owner_of("dan"), "--identity", str(tmp_path / "nothing")): "invalid_identity",
        ("--wallet", owner_of("dan"), "--gateway", "http://127.0.0.1:9"): "gateway_unavailable",
    }
    for mistake, code in mistakes.items():
        assert run(house, identity, *mistake, exit_code=1)["code"] == code
    assert not (tmp_path / "nothing").exists()


def test_people_see_a_code_that_a_camera_reads(house: House, tmp_path: Path) -> None:
    load_identity(tmp_path / "identity")
    words = ["claim", "--gateway", house.url, "--domain", "far.test", "--identity", str(tmp_path / "identity")]
    words += ["--wallet", owner_of("dan")]
    drawn = CliRunner().invoke(far_node.cli.app, words).output
    assert "/claim#n=12D3" in drawn
    assert drawn.count("█") > 100
    assert "█" not in CliRunner().invoke(far_node.cli.app, [*words, "--no-qr"]).output


# ---- far-node info hardware


def test_earnings_are_reckoned_from_the_prices_the_fee_and_the_demand_of_a_real_gateway(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_MODELS_DIR", str(tmp_path / "models"))
    model = make_model(tmp_path / MODEL)
    words = ["info", "hardware", "--device", "cpu", "--reserve-gb", "0", "--cache-mb", "1", "--gateway", house.url]
    ended = CliRunner().invoke(far_node.cli.app, [*words, "--model", str(model), "--json"])
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert told["network"]["round_trip_ms"] > 0
    assert told["network"]["download_bytes_per_second"] > 0
    (whole,) = (one for one in told["could_serve"] if (one["model_id"], one["quantization"]) == (MODEL, "none"))
    assert whole["blocks"] == whole["block_count"]
    listed = httpx.get(f"{house.url}/api/inference/models").json()["models"][0]
    assert listed["fee_bps"] == 2_000
    hourly = whole["tokens_per_second"] * 3600 * listed["completion_price_units"] * 0.8
    assert whole["earnings"]["busy_units"] == pytest.approx(hourly, rel=1e-6)
    assert whole["earnings"]["now_units"] == 0, "nobody asks for anything now"
    unsold = [one for one in told["could_serve"] if one["model_id"] == "far-demo"]
    assert {one["earnings"]["reason"] for one in unsold} == {"no gateway that was asked sells it"}
