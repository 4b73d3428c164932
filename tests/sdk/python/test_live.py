"""Both clients and the command against one gateway, with a chain, and nodes in memory that sign real receipts."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import farlabs
import pytest
import structlog
from eth_account import Account
from farlabs import Place, PrivateKeySigner, cli, verify_receipts

from discovery.protocol.claim import NodeClaim
from discovery.protocol.ids import check_wallet
from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.payments.vouchers import channel_id_of
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, NODES, STORY, MeshDouble, Turnstile
from tests.far_mesh.marketplace.house import House, User
from tests.sdk.python.doors import Threads
from tests.sdk.python.test_exchange import refused
from tests.support.documents import key_of, peer_of

ASK: dict[str, Any] = {"max_tokens": 12}
TEXT = "".join(STORY)
STEP = 200_000


class Guest:
    """A wallet with money, and its clients."""

    def __init__(self, door: Threads, house: House, user: User) -> None:
        self.door, self.house, self.user = door, house, user

    def client(self, **options: Any) -> Any:
        """One that signs in by itself."""
        return self.door.client(self.house.url, private_key=self.user.key, **options)


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for all tests here."""
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    settings = live.settings(
        database_url=f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('live') / 'm.db'}",
        unsettled_limit_units=10**9,
        settle_seconds=0.05,
        voucher_step_units=STEP,
        voucher_seconds=10.0,
    )
    with House(loop, live, settings, MeshDouble()) as opened:
        yield opened


@pytest.fixture(scope="module")
def user(house: House) -> User:
    """With a deposit."""
    return house.user(10**9)


@pytest.fixture
def guest(door: Threads, house: House, user: User) -> Guest:
    """Each client in turn."""
    return Guest(door, house, user)


def test_an_answer_is_streamed_billed_and_proven(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    generation = client.generate(MODEL, "Tell me a story", **ASK)
    assert guest.door.pieces(generation) == list(STORY)
    answer = do(generation.result())
    assert (answer.text, answer.completion_tokens, answer.finish_reason) == (TEXT, len(STORY), "stop")
    assert [node.node_id for node in answer.nodes_used] == [node.peer_id for node in NODES]
    state = do(client.request(answer.request_id))
    assert (state.cost_units, state.status) == (answer.cost_units, "completed")
    verified = verify_receipts(do(client.receipts(answer.request_id)))
    assert verified.blocks == ((0, 8),)
    assert verified.token_layers == sum(node.token_layers for node in answer.nodes_used)


def test_a_chat_in_one_piece_costs_the_same(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    messages = [{"role": "user", "content": "Tell me a story"}]
    streamed = do(client.chat(MODEL, messages, **ASK).result())
    plain = do(client.chat(MODEL, messages, stream=False, **ASK).result())
    assert (plain.text, plain.cost_units) == (streamed.text, streamed.cost_units)
    both = do(client.chat(MODEL, messages, n=2, **ASK).result())
    assert [choice.text for choice in both.choices] == [TEXT, TEXT]


def test_the_same_name_is_charged_once(guest: Guest) -> None:
    client, do, name = guest.client(), guest.door.do, secrets.token_hex(8)
    do(client.generate(MODEL, "x", idempotency_key=name, **ASK).result())
    before = do(client.usage()).total.requests
    error = refused(guest.door, lambda: client.generate(MODEL, "x", idempotency_key=name, **ASK).result())
    assert isinstance(error, farlabs.ConflictError)
    assert do(client.usage()).total.requests == before


def test_a_quote_is_kept(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    quote = do(client.quote(MODEL, "Tell me a story", 12))
    answer = do(client.generate(MODEL, "Tell me a story", quote_id=quote.quote_id, **ASK).result())
    assert answer.cost_units <= answer.held_units == quote.max_cost_units


def test_what_means_nothing_is_refused_by_name(guest: Guest) -> None:
    client = guest.client()
    error = refused(guest.door, lambda: client.generate("no-such-model", "x").result())
    assert isinstance(error, farlabs.NotFoundError)
    error = refused(guest.door, lambda: client.generate(MODEL, "x", temperature=7).result())
    assert isinstance(error, farlabs.InvalidRequestError)
    assert error.param == "temperature"
    error = refused(guest.door, lambda: client.request("req_of_somebody_else"))
    assert isinstance(error, farlabs.NotFoundError)


def test_without_money_nothing_is_generated_and_it_is_said_how_to_pay(guest: Guest) -> None:
    poor = guest.door.client(guest.house.url, private_key=Account.create().key.hex())
    error = refused(guest.door, lambda: poor.generate(MODEL, "x", **ASK).result())
    assert isinstance(error, farlabs.PaymentRequiredError)
    assert error.accepts


def test_a_key_does_what_it_may_and_counts_until_it_is_revoked(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    made = do(client.create_api_key("mine", limits={"units_per_day": 10**8}))
    with_key = guest.door.client(guest.house.url, api_key=made.key)
    assert do(with_key.generate(MODEL, "x", **ASK).result()).text == TEXT
    error = refused(guest.door, with_key.balance)
    assert isinstance(error, farlabs.ForbiddenError)
    assert made.id in [key.id for key in do(client.api_keys())]
    do(client.revoke_api_key(made.id))
    error = refused(guest.door, lambda: with_key.generate(MODEL, "x", **ASK).result())
    assert isinstance(error, farlabs.AuthenticationError)


def test_the_account_says_what_is_there_and_what_was_used(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    do(client.generate(MODEL, "x", **ASK).result())
    balance = do(client.balance())
    assert (balance.wallet_address, balance.deposited_units) == (guest.user.wallet, 10**9)
    today = datetime.now(UTC).date()
    usage = do(client.usage(date(today.year, 1, 1) if today.month > 1 else today, today, model=MODEL))
    assert usage.total.requests >= 1
    assert usage.usage[0].model_id == MODEL
    assert do(client.usage_csv(last=today)).splitlines()[0].startswith("date,")
    deposits = do(client.deposits(limit=1)).deposits
    assert deposits[0].units == 10**9
    told = do(client.deposit(deposits[0].tx_hash))
    assert isinstance(told, farlabs.models.DepositAnswer)
    assert told.was_booked
    assert do(client.account_tier()).tier == "standard"


def test_who_signs_out_is_out(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    session = do(client.sign_in())
    do(client.sign_out())
    later = guest.door.client(guest.house.url, session=session)
    assert isinstance(refused(guest.door, later.balance), farlabs.AuthenticationError)
    do(client.balance())  # with a wallet one is in again
    assert client.session.token != session.token


def test_a_job_runs_while_nobody_waits(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    job = do(client.submit_job(MODEL, "Tell me a story", 12))
    ended = do(client.wait_for_job(job.job_id))
    assert (ended.status, ended.result.text) == ("completed", TEXT)
    assert job.job_id in [one.job_id for one in do(client.jobs(limit=5)).jobs]
    assert do(client.deliveries(job.job_id)) == []
    assert do(client.webhook_secret()).secret.startswith("whsec_")


def test_what_is_public_needs_nobodys_name(guest: Guest) -> None:
    client, do = guest.door.client(guest.house.url), guest.door.do
    (model,) = do(client.models())
    assert (model.id, model.block_count, model.available) == (MODEL, 8, True)
    assert do(client.health()).status == "alive"
    assert do(client.ready()).models[MODEL] is not None
    assert {tier.name for tier in do(client.tiers()).tiers} >= {"standard"}
    assert len(do(client.active_nodes(MODEL)).nodes) == len(NODES)
    assert do(client.node(NODES[0].peer_id)).node_id == NODES[0].peer_id


def test_a_provider_sees_its_money_and_claims_its_node(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    name = f"node of {type(guest.door).__name__}"
    offer = NodeClaim(
        node=peer_of(name),
        wallet=check_wallet(guest.user.wallet),
        gateway=guest.house.settings.uri,
        chain_id=CHAIN_ID,
        nonce=int(time.time() * 1000),
        deadline=int(time.time()) + 300,
    )
    link = "https://far.test/gpu/claim#" + offer.fragment(offer.signed_by_node(key_of(name)))
    claimed = do(client.claim_node(do(client.sign_node_claim(farlabs.read_node_claim(link)))))
    assert (claimed.node_id, claimed.wallet_address) == (peer_of(name), guest.user.wallet)
    assert peer_of(name) in [node.node_id for node in do(client.provider_nodes())]
    assert do(client.rewards(days=7)).wallet_address == guest.user.wallet
    assert do(client.reward_history(limit=1)).next_cursor is None
    assert do(client.provider_stats()).active_requests >= 0
    assert do(client.node_earnings(guest.user.wallet, days=2)).wallet_address == guest.user.wallet
    assert len(do(client.earnings_history(days=3))) == 3
    assert do(client.claims(limit=1)).next_cursor is None
    error = refused(guest.door, client.cluster_status)
    assert isinstance(error, farlabs.ForbiddenError)


def test_an_answer_is_paid_while_it_is_read(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    session, salt = Account.create(), secrets.token_bytes(32)
    signer = PrivateKeySigner(session.key.hex())
    rooms = guest.house.rooms
    user = guest.house.user(10**9)
    guest.user = user
    client = guest.client()
    wallet = ChainWallet(rooms.chain, user.key)
    guest.house.loop.do(wallet.open_channel(5_000_000, signer=session.address, salt=salt))
    channel_id = channel_id_of(user.wallet, salt)
    do(client.look_at_channel(channel_id))
    quote = do(client.quote(MODEL, "Tell me a story", 12))
    over = {"payment": f"channel:{channel_id}", "quote_id": quote.quote_id, **ASK}
    pay = client.pay_by_voucher(quote, signer=signer)
    answer = do(client.generate(MODEL, "Tell me a story", on_voucher=pay, **over).result())
    assert answer.text == TEXT
    state = do(client.channel(channel_id))
    assert state.earned_units == answer.cost_units <= state.promised_units <= answer.cost_units + STEP + 1
    assert [one.channel_id for one in do(client.channels())] == [channel_id]
    # Within a limit nothing more is promised than that, and what came is not lost.
    short = client.pay_by_voucher(quote, signer=signer, max_units=state.promised_units + 1)
    generation = client.generate(MODEL, "Tell me a story", on_voucher=short, **over)
    assert refused(guest.door, generation.result).code == "voucher_limit"
    assert TEXT.startswith(generation.text)
    by_hand = do(client.sign_voucher(channel_id, state.promised_units + 2, signer=signer))
    assert do(client.send_voucher(by_hand)).promised_units == state.promised_units + 2
    assert do(client.send_voucher(by_hand)).promised_units == state.promised_units + 2  # the same twice is one
    lower = do(client.sign_voucher(channel_id, state.promised_units + 1, signer=signer))
    error = refused(guest.door, lambda: client.send_voucher(lower))
    assert (type(error), error.code) == (farlabs.PaymentRequiredError, "voucher_stale")


def test_leaving_the_loop_ends_the_bill(guest: Guest) -> None:
    client, do = guest.client(), guest.door.do
    before = do(client.usage()).total.completion_tokens
    mesh = guest.house.mesh
    assert isinstance(mesh, MeshDouble)
    generation = client.generate(MODEL, "Tell me a story", **ASK)
    guest.door.first(generation)
    state = None

    def ended() -> bool:
        nonlocal state
        state = do(client.request(generation.request_id))
        return bool(state.status != "running" and state.cost_units is not None)

    User.wait_for(ended)
    assert state is not None
    assert state.completion_tokens <= len(STORY)
    assert do(client.usage()).total.completion_tokens - before == state.completion_tokens


def test_who_waits_is_told_where_it_stands(open_house: OpenHouse, door: Threads) -> None:
    gate = Turnstile()
    house = open_house(MeshDouble(gate=gate), model_sessions=1)
    key = house.user().key
    gate.let_through(house.loop.loop, 1)
    with farlabs.FarLabsClient(house.url, private_key=key) as other, other.generate(MODEL, "x", **ASK) as first:
        pieces = iter(first)
        assert next(pieces) == STORY[0]  # the nodes have room for no more
        places: list[Place] = []

        def wait(place: Place) -> None:
            places.append(place)
            gate.let_through(house.loop.loop, 2 * len(STORY))

        second = door.client(house.url, private_key=key).generate(MODEL, "x", on_wait=wait, **ASK)
        assert door.do(second.result()).text == TEXT
        assert places[0] == Place(1, None)
        assert "".join(pieces) == "".join(STORY[1:])


# ---- the command


@pytest.fixture
def far(house: House, user: User, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Calls it; gives the exit code, and what it wrote here and there. The gateway's log goes elsewhere."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    monkeypatch.setenv("FAR_GATEWAY", house.url)
    monkeypatch.setenv("WALLET_PRIVATE_KEY", user.key)
    monkeypatch.delenv("FAR_API_KEY", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_command_generates_and_says_what_it_cost(far: Any) -> None:
    code, out, err = far("generate", "Tell me a story", "--max-tokens", "12")
    assert (code, out) == (0, TEXT + "\n")
    assert " FAR · " in err
    request_id = err.split(" · ")[-1].strip()
    code, out, _ = far("request", request_id)
    assert (code, out.split()[:2]) == (0, ["request", request_id])
    code, out, _ = far("verify", request_id)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["node", *(node.peer_id for node in NODES)]


def test_the_command_tells_programs_in_json(far: Any) -> None:
    code, out, err = far("generate", "x", "--json", "--model", MODEL, "--temperature", "0", "--seed", "1")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["nodes_used"][0]["node_id"] == NODES[0].peer_id
    for command in (
        ("models",),
        ("balance",),
        ("quote", "x"),
        ("usage",),
        ("keys", "list"),
        ("request", answer["request_id"]),
    ):
        code, out, err = far(*command, "--json")
        assert (code, err) == (0, "")
        for line in out.splitlines():
            assert isinstance(json.loads(line), dict)


def test_the_command_prints_tables(far: Any) -> None:
    assert far("models")[1].splitlines()[1].split()[:3] == [MODEL, "yes", "3"]
    assert far("balance")[1].splitlines()[3].split() == ["deposited", "1", "FAR"]
    assert far("quote", "Tell me", "--max-tokens", "3")[1].startswith("at most")
    assert far("usage")[1].splitlines()[-1].startswith("all")


def test_the_command_makes_and_revokes_keys(far: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = far("keys", "create", "robot", "--scope", "inference", "--per-day", "0.5")
    assert (code, out[:7]) == (0, "sk-far-")
    key_id = err.partition(":")[0]
    assert key_id in far("keys", "list")[1]
    monkeypatch.setenv("FAR_API_KEY", out.strip())
    assert far("generate", "x")[0] == 0
    assert far("balance")[0] == 1  # the key may not
    monkeypatch.delenv("FAR_API_KEY")
    assert far("keys", "revoke", key_id)[0] == 0


def test_the_command_talks(far: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\nTell me more\n\n"))
    code, out, _ = far("chat", "--system", "Be brief", "--max-tokens", "12")
    assert (code, out) == (0, f"{TEXT}\n{TEXT}\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("A prompt of\nseveral lines"))
    assert far("generate")[1] == TEXT + "\n"


def test_the_command_checks_receipts_with_nobodys_help(
    far: Any, house: House, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = json.loads(far("generate", "x", "--json")[1])["request_id"]
    with farlabs.FarLabsClient(house.url, private_key=user.key) as client:
        told = client.receipts(request_id)
    monkeypatch.setenv("FAR_GATEWAY", "http://127.0.0.1:9")
    whole, one, lines, wrong = (tmp_path / name for name in ("whole", "one", "lines", "wrong"))
    whole.write_text(told.model_dump_json())
    one.write_text(json.dumps(json.loads(told.receipts[0].receipt), indent=1))
    lines.write_text("\n".join(receipt.receipt for receipt in told.receipts))
    for file, count in ((whole, 3), (one, 1), (lines, 3)):
        code, out, _ = far("verify", str(file), "--json")
        assert (code, len(out.splitlines())) == (0, count)
    wrong.write_text(
        told.receipts[0].receipt.replace('"first_block', '"last_block').replace("first_block", "xxxxx_block")
    )
    assert far("verify", str(wrong))[0] == cli.EXIT_NOT_PROVEN
    assert far("verify", str(tmp_path / "none"))[0] == 1


def test_the_command_says_what_went_wrong(far: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = far("generate", "x", "--model", "none")
    assert (code, out) == (1, "")
    assert err.startswith("far: ")
    code, _, err = far("request", "req_x", "--json")
    assert (code, json.loads(err)["error"]["status"]) == (1, 404)
    for arguments in (
        ["nonsense"],
        [],
        ["keys"],
        ["keys", "create", "x", "--per-day", "1e3"],
        ["models", "--timeout=-1"],
        ["models", "--timeout", "soon"],
        ["models", "--timeout", "nan"],
    ):
        with pytest.raises(SystemExit) as ended:
            far(*arguments)
        assert ended.value.code == cli.EXIT_USAGE
    monkeypatch.delenv("WALLET_PRIVATE_KEY")
    assert far("balance")[2] == "far: set FAR_API_KEY or WALLET_PRIVATE_KEY\n"
