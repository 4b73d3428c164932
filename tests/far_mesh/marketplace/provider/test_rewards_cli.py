"""``far-node rewards`` against a gateway that answers and a chain that pays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account
from sqlalchemy import delete, select, update
from typer.testing import CliRunner, Result

import far_node.cli
from discovery.protocol.announcement import SignedAnnouncement
from discovery.protocol.receipt import sign_receipt
from far_mesh.contributions import Contribution
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.sessions.schemas import Share
from far_mesh.marketplace.tables import chain_outbox, inference_sessions, node_contributions, payout_leaves
from far_node.rewards.kept import ReceiptShelf
from tests.far_mesh.marketplace.doubles import MeshDouble, Node
from tests.far_mesh.marketplace.house import GAS_WEI, House, LiveChain, Loop, rpc, sign_in
from tests.far_mesh.marketplace.provider.works import settle, share, work
from tests.support.documents import key_of, receipt, signed_announcement, wallet_of

DAY = 86_400
ANN_KEY, BOB_KEY = "0x" + "a1" * 32, "0x" + "b2" * 32
ANN, BOB = address_of(ANN_KEY), address_of(BOB_KEY)
HOME = wallet_of("where the money goes")

Mistakes = tuple[tuple[tuple[str, ...], str, str], ...]
"""Options that are added, the code of the error, and words of it."""


@dataclass(frozen=True)
class OwnedNode(Node):
    """A node that is paid to a wallet whose key we have."""

    owner: str = ANN

    @property
    def wallet(self) -> str:
        return self.owner

    def announcement(self) -> SignedAnnouncement:
        first, end = self.blocks
        return signed_announcement(self.name, wallet=self.owner, first_block=first, end_block=end)

    def proof(self, positions: int, cached: int = 0, **_: int) -> Contribution:
        first, end = self.blocks
        layers = positions * (end - first)
        facts = {"wallet": self.owner, "first_block": first, "end_block": end}
        signed = sign_receipt(receipt(self.name, positions=positions, token_layers=layers, **facts), key_of(self.name))
        return Contribution(self.peer_id, self.owner, self.blocks, "none", positions, layers, signed)


MESH = MeshDouble(serving=(OwnedNode("ann 1", (0, 3)), OwnedNode("bob", (3, 6), owner=BOB), OwnedNode("ann 2", (6, 8))))


class Place:
    """A marketplace on a chain of its own, and those who ask it what they earned."""

    def __init__(self, house: House) -> None:
        self.house = house

    def rewards(self, command: str, *more: str, key: str | None = ANN_KEY) -> Result:
        """Run a command as the owner of ``key``."""
        usual = ["--gateway", self.house.url, "--domain", "far.test", "--rpc", self.house.live.rpc_url]
        return CliRunner().invoke(
            far_node.cli.app, ["rewards", command, *usual, *more], env={"FAR_WALLET_KEY": key or ""}
        )

    def told(self, command: str, *more: str, key: str = ANN_KEY, exit_code: int = 0) -> list[dict[str, Any]]:
        """What it tells programs."""
        ended = self.rewards(command, "--json", *more, key=key)
        assert ended.exit_code == exit_code, ended.output
        return [json.loads(line) for line in ended.stdout.splitlines()]

    def refused(self, command: str, *more: str, key: str | None = ANN_KEY) -> tuple[str, str]:
        """The code and the sentence of an error."""
        ended = self.rewards(command, "--json", *more, key=key)
        assert (ended.exit_code, ended.stderr) == (1, ""), ended.output
        event = json.loads(ended.stdout)
        return event["code"], event["message"]

    def balance(self, key: str = ANN_KEY) -> dict[str, Any]:
        (event,) = self.told("balance", key=key)
        return event

    def states(self, key: str = ANN_KEY) -> set[str]:
        return {line["state"] for line in self.told("history", key=key) if line["event"] == "line"}

    def settle(self) -> None:
        """Until everything that has ended is paid."""

        self.house.loop.do(settle(self.house.rooms.database))
        assert self.states() == {"paid"}

    def ask_chain(self, method: str, *parameters: Any) -> Any:
        return self.house.loop.do(rpc(self.house.live.rpc_url, method, *parameters))

    def give_gas(self, wallet: str = ANN) -> None:
        self.ask_chain("anvil_setBalance", wallet, hex(GAS_WEI))

    def tokens(self, wallet: str) -> int:
        return int(self.house.loop.do(self.house.rooms.chain.token_balance_wei(wallet)))

    def credit(self, wallet: str) -> int:
        return int(self.house.loop.do(self.house.rooms.chain.credit_of_wei(wallet)))

    def write(self, statement: Any) -> None:
        """Change what the gateway says."""

        async def act() -> None:
            async with self.house.rooms.database.writing() as connection:
                await connection.execute(statement)

        self.house.loop.do(act())


@pytest.fixture
def place(loop_thread: Loop, quiet_chain: LiveChain, sqlite_url: str) -> Iterator[Place]:
    """A marketplace that settles in batches, when it is told to."""
    yield from _place(loop_thread, quiet_chain, sqlite_url, unsettled_limit_units=10**9)


@pytest.fixture
def place_of_escrows(loop_thread: Loop, quiet_chain: LiveChain, sqlite_url: str) -> Iterator[Place]:
    """One in which each request has an escrow of its own."""
    yield from _place(loop_thread, quiet_chain, sqlite_url, unsettled_limit_units=0)


def _place(loop: Loop, chain: LiveChain, url: str, **changes: Any) -> Iterator[Place]:
    before = loop.do(rpc(chain.rpc_url, "evm_snapshot"))
    settings = chain.settings(database_url=url, reconcile_seconds=0, **changes)
    with House(loop, chain, settings, MESH) as house:
        yield Place(house)
    assert loop.do(rpc(chain.rpc_url, "evm_revert", before))


def earned(answers: list[httpx.Response], wallet: str) -> int:
    """Units of a wallet in the bills."""
    nodes = [node for answer in answers for node in answer.json()["nodes_used"]]
    return sum(node["paid_units"] for node in nodes if node["wallet_address"] == wallet)


def test_what_was_earned_is_seen_proven_and_taken_out_to_the_unit(place: Place, tmp_path: Path) -> None:
    user = place.house.user()
    answers = [user.generate() for _ in range(3)]
    anns, bobs = earned(answers, ANN), earned(answers, BOB)
    assert anns > bobs > 0
    assert place.states() == {"waiting"}
    found = place.balance()
    assert (found["earned_units"], found["waiting_units"], found["credit_units"]) == (anns, anns, 0)
    place.settle()
    found = place.balance()
    assert (found["waiting_units"], found["paid_units"], found["credit_units"]) == (0, anns, anns)
    assert place.balance(BOB_KEY)["credit_units"] == bobs
    assert sum(node["earned_units"] for node in found["per_node"]) == found["per_day"][-1]["earned_units"] == anns

    # ann has not kept one session of which the gateway knows nothing
    shelf = ReceiptShelf(tmp_path)
    for session_id, price in (("ab" * 16, 7), ("cd" * 16, 0)):
        shelf.keep(
            sign_receipt(receipt("ann 1", wallet=ANN, session_id=session_id, price_units=price), key_of("ann 1"))
        )
    *lines, checked, missing, receipts = place.told("history", "--check", "--receipts", str(tmp_path))
    assert len(lines) == 6
    assert {line["verdict"] for line in lines} == {"proven"}
    assert checked["proven"] == {"lines": 6, "units": anns}
    assert (missing["session_id"], missing["why"]) == ("cd" * 16, "no marketplace offered anything for it")
    assert (receipts["kept"], receipts["not_in_history"]) == (2, 1)

    place.give_gas()
    (dry,) = place.told("withdraw", "--to", HOME, "--dry-run")
    assert (dry["event"], dry["would"], dry["units"]) == ("dry_run", "withdrawn", anns)
    assert (place.tokens(HOME), place.credit(ANN)) == (0, anns * 10**9)
    (taken,) = place.told("withdraw", "--to", HOME)
    assert (taken["units"], taken["to"], taken["wallet"]) == (anns, HOME, ANN)
    assert place.ask_chain("eth_getTransactionReceipt", taken["tx_hash"])["status"] == "0x1"
    assert (place.tokens(HOME), place.credit(ANN), place.credit(BOB)) == (anns * 10**9, 0, bobs * 10**9)
    found = place.balance()
    assert (found["credit_units"], found["withdrawn_units"], found["paid_units"]) == (0, anns, anns)
    (nothing,) = place.told("withdraw", "--to", HOME)
    assert nothing["event"] == "nothing"


def test_an_api_key_looks_and_cannot_take(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [place.house.user().generate()]
    place.settle()
    with httpx.Client(base_url=place.house.url, timeout=20) as http:
        http.headers["authorization"] = f"Bearer {sign_in(http, ANN_KEY)['token']}"
        made = http.post("/api/account/keys", json={"name": "looker", "scopes": ["provider"]})
    monkeypatch.setenv("FAR_API_KEY", made.json()["key"])
    (found,) = place.told("balance", key="")
    assert (found["wallet_address"], found["paid_units"]) == (ANN, earned(answers, ANN))
    *_, checked = place.told("history", "--check", "--wallet", ANN, key="")
    assert checked["proven"]["lines"] == 2
    assert place.refused("history", "--check", key="")[0] == "invalid_argument"
    assert place.refused("balance", "--wallet", BOB, key="") == (
        "wallet_key_unusable",
        f"this is an API key of {ANN}, not one of {BOB}",
    )
    assert place.refused("withdraw", key="")[0] == "wallet_key_unusable"
    monkeypatch.setenv("FAR_API_KEY", "far_" + "0" * 40)
    assert place.refused("balance", key="")[0] == "unauthorized"
    monkeypatch.setenv("FAR_API_KEY", "no\nkey at all")
    assert place.refused("balance", key="") == ("wallet_key_unusable", "FAR_API_KEY is not an API key")


def test_people_get_tables_and_bars(place: Place) -> None:
    answers = [place.house.user().generate()]
    place.settle()
    shown = place.rewards("balance", "--days", "3").stdout
    assert f"{earned(answers, ANN) / 1e9:.9f} FAR" in shown
    assert "  █  " in shown
    shown = place.rewards("history", "--check").stdout
    assert answers[0].json()["request_id"] in shown
    assert "proven" in shown
    assert BOB not in shown


def test_a_release_is_proven_by_its_transaction_and_serves_one_request_only(place_of_escrows: Place) -> None:
    place = place_of_escrows
    user = place.house.user()
    answers = [user.generate() for _ in range(2)]
    place.settle()
    *lines, checked = place.told("history", "--check")
    assert checked["proven"] == {"lines": 4, "units": earned(answers, ANN)}
    assert {line["batch_number"] for line in lines} == {None}
    place.write(update(chain_outbox).values(tx_hash=lines[0]["tx_hash"]))
    *lines, checked = place.told("history", "--check", exit_code=3)
    assert checked["unproven"]["lines"] == 2
    assert lines[-1]["why"] == f"its release is that of {lines[0]['request_id']}"


def test_a_gateway_that_lies_is_found_out(place: Place) -> None:
    user = place.house.user()
    names = [user.generate().json()["request_id"] for _ in range(2)]
    place.settle()
    line, added = node_contributions.c, {names[0]: 1, names[1]: -1}
    for name, units in added.items():  # the sum stays, so only the proofs can tell
        of_request = line.session_id.in_(select(inference_sessions.c.id).where(inference_sessions.c.request_id == name))
        hers = of_request & (line.wallet_address == ANN) & (line.first_block == 0)
        place.write(update(node_contributions).where(hers).values(payment_units=line.payment_units + units))
    *lines, checked = place.told("history", "--check", exit_code=3)
    assert {line["why"] for line in lines} == {"batch 1 holds no line that proves it"}
    assert checked["unproven"]["lines"] == 4


def test_a_line_that_was_left_out_is_missed(place: Place) -> None:
    user = place.house.user()
    for _ in range(2):
        user.generate()
    place.settle()
    hers = node_contributions.c.wallet_address == ANN
    newest = select(node_contributions.c.id).where(hers).order_by(node_contributions.c.id.desc()).limit(1)
    place.write(delete(node_contributions).where(node_contributions.c.id.in_(newest.scalar_subquery())))
    *lines, _ = place.told("history", "--check", exit_code=3)
    assert len(lines) == 3
    assert all("batch 1 credited" in line["why"] and "its lines are" in line["why"] for line in lines)


def test_paid_is_not_believed_before_the_chain_says_so(place: Place) -> None:
    user = place.house.user()
    user.generate()
    place.write(update(node_contributions).values(paid_at=now()))
    *lines, _ = place.told("history", "--check", exit_code=3)
    assert {line["why"] for line in lines} == {"no block of the chain holds its release"}
    newest = node_contributions.c.first_block == 6  # a line without money does not speak for the others
    place.write(update(node_contributions).where(newest).values(payment_units=0))
    *lines, _ = place.told("history", "--check", exit_code=3)
    assert [line["verdict"] for line in lines] == ["unpaid", "unproven"]
    plain = place.rewards("history", "--check")
    assert plain.exit_code == 3
    assert "unproven" in plain.stdout


def test_what_is_not_paid_yet_is_told_apart_from_what_is_not_proven(place: Place) -> None:
    place.house.user().generate()
    *lines, checked = place.told("history", "--check", "--limit", "1")
    assert [line["why"] for line in lines] == ["waits for a batch"]
    assert checked["unpaid"]["lines"] == 2  # all of a request is checked


def test_payout_roots_are_claimed_when_they_can_be(place: Place) -> None:
    """More providers than a batch takes."""
    user = place.house.user(deposit=10**6)
    everybody: list[Share] = [share(f"n{index}", wallet_of(f"n{index}"), 80) for index in range(100)]
    for name in ("big 1", "big 2"):
        place.house.loop.do(
            work(place.house.rooms.database, name, [*everybody, share("ann 1", ANN, 8_000)], user=user.wallet)
        )
    place.settle()
    found = place.balance()
    assert found["credit_units"] == 0
    owed = found["unclaimed_units"]
    assert owed == found["paid_units"] > 300
    place.give_gas()
    (nothing,) = place.told("claim")
    assert nothing["event"] == "nothing"
    assert nothing["claimable_at"] is not None
    *_, checked = place.told("history", "--check")
    assert checked["proven"] == {"lines": 2, "units": owed}

    place.ask_chain("evm_increaseTime", DAY)
    place.ask_chain("evm_mine")
    (dry,) = place.told("claim", "--dry-run")
    assert (dry["would"], dry["units"]) == ("claimed", owed)
    (claimed,) = place.told("claim")
    assert (claimed["units"], place.credit(ANN)) == (owed, owed * 10**9)
    (nothing,) = place.told("claim")
    assert (nothing["event"], nothing["claimable_at"]) == ("nothing", None)
    found = place.balance()
    assert (found["credit_units"], found["unclaimed_units"], found["withdrawn_units"]) == (owed, 0, 0)


def test_a_damaged_proof_is_never_sent(place: Place) -> None:
    user = place.house.user(deposit=10**6)
    everybody = [share(f"n{index}", wallet_of(f"n{index}"), 80) for index in range(100)]
    place.house.loop.do(
        work(place.house.rooms.database, "big", [*everybody, share("ann 1", ANN, 8_000)], user=user.wallet)
    )
    place.settle()
    place.give_gas()
    place.ask_chain("evm_increaseTime", DAY)
    place.ask_chain("evm_mine")
    place.write(delete(payout_leaves).where(payout_leaves.c.wallet_address == wallet_of("n1")))
    code, message = place.refused("claim")
    assert (code, "epoch 1" in message) == ("not_proven", True)
    *lines, _ = place.told("history", "--check", exit_code=3)
    assert "does not prove" in lines[0]["why"]
    assert place.ask_chain("eth_getTransactionCount", ANN, "latest") == "0x0"


def test_the_chain_alone_tells_a_balance_and_lets_it_be_taken_out(place: Place) -> None:
    answers = [place.house.user().generate()]
    place.settle()
    place.give_gas()
    chain = ["--rpc", place.house.live.rpc_url, "--escrow", place.house.live.deployment.escrow]
    run = CliRunner()
    ended = run.invoke(far_node.cli.app, ["rewards", "balance", "--wallet", ANN, *chain, "--json"])
    told = json.loads(ended.stdout)
    assert (told["event"], told["credit_units"], told["claimed_units"]) == ("chain_balance", earned(answers, ANN), 0)
    assert "to be withdrawn" in run.invoke(far_node.cli.app, ["rewards", "balance", "--wallet", ANN, *chain]).stdout
    keyed = {"FAR_WALLET_KEY": ANN_KEY}
    ended = run.invoke(far_node.cli.app, ["rewards", "withdraw", *chain], env=keyed)
    assert ended.exit_code == 0, ended.output
    assert place.tokens(ANN) == earned(answers, ANN) * 10**9


def test_what_stands_in_the_way_is_said(place: Place, tmp_path: Path) -> None:
    """Everything that a person can get wrong."""
    place.house.user().generate()
    place.settle()
    url, chain = place.house.url, place.house.live.rpc_url
    keystore, password = tmp_path / "wallet.json", tmp_path / "password"
    keystore.write_text(json.dumps(Account.encrypt(bytes.fromhex(ANN_KEY[2:]), "right", kdf="pbkdf2", iterations=2)))
    password.write_text("wrong\n")
    opened = ("--keystore", str(keystore), "--password-file", str(password))
    balances: Mistakes = (
        (opened, "wallet_key_unusable", "password does not open"),
        (("--keystore", str(keystore)), "wallet_key_unusable", "--password-file"),
        ((*opened[:2], "--password-file", str(tmp_path / "none")), "wallet_key_unusable", "cannot read the password"),
        (("--wallet", BOB), "wallet_key_unusable", f"key of {ANN}"),
        (("--gateway", "http://127.0.0.1:9"), "gateway_unavailable", "does not answer"),
        (("--gateway", chain), "gateway_unintelligible", "not as a gateway"),
        (("--gateway", "nowhere"), "invalid_argument", "not the address"),
        (("--domain", "bank.example"), "gateway_unintelligible", "far.test"),
    )
    for more, code, words in balances:
        found, message = place.refused("balance", *more)
        assert (found, words in message) == (code, True), message
    assert place.refused("balance", key=None)[0] == "wallet_key_unusable"
    withdrawals: Mistakes = (
        ((), "rpc_refused", "nsufficient funds"),
        (("--rpc", "http://127.0.0.1:9"), "rpc_unavailable", "does not answer"),
        (("--rpc", url), "rpc_refused", "no node of an EVM chain"),
        (("--rpc", "nowhere"), "invalid_argument", "http(s)"),
        (("--escrow", wallet_of("nothing")), "other_chain", "no contract"),
        (("--escrow", place.house.live.deployment.token), "contract_refused", "the escrow refuses"),
        (("--to", "0x" + "00" * 20), "contract_refused", "EscrowInvalidAddress"),
        (("--to", HOME[:-1]), "invalid_wallet", "40 hexadecimal digits"),
    )
    for more, code, words in withdrawals:
        found, message = place.refused("withdraw", *more)
        assert (found, words in message) == (code, True), (more, message)
    password.write_text("right\n")
    assert place.told("balance", *opened, key="")[0]["wallet_address"] == ANN
    place.ask_chain("anvil_setChainId", 5)
    try:
        code, message = place.refused("withdraw")
    finally:
        place.ask_chain("anvil_setChainId", 31337)
    assert (code, "chain 5, the gateway on chain 31337" in message) == ("other_chain", True)
    assert place.credit(ANN) > 0


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["balance"], "--gateway"),
        (["balance", "--wallet", ANN], "--rpc"),
        (["balance", "--wallet", ANN, "--rpc", "http://127.0.0.1:9"], "--escrow"),
        (["history"], "--gateway"),
        (["claim"], "--gateway"),
        (["withdraw"], "--rpc"),
    ],
)
def test_what_is_needed_is_asked_for(words: list[str], missing: str) -> None:
    ended = CliRunner().invoke(far_node.cli.app, ["rewards", *words], env={"FAR_WALLET_KEY": ANN_KEY})
    assert ended.exit_code == 1
    assert missing in ended.stderr
