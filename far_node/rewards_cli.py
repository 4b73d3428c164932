"""``far-node rewards``: what was earned, whether it was paid, and taking it out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import EXIT_FOUND, EXIT_INTERRUPTED, Console, fail, quiet_libraries

if TYPE_CHECKING:
    from far_node.rewards.answers import Line, Place, TransferTo
    from far_node.rewards.chain import Escrow, Prepared
    from far_node.rewards.gateway import Gateway
    from far_node.rewards.wallet import WalletKey

app = typer.Typer(
    help="Your money: balance, history, claim, withdraw, address.", no_args_is_help=True, pretty_exceptions_enable=False
)

address = typer.Typer(help="Where a marketplace without an escrow pays you.", no_args_is_help=True)
app.add_typer(address, name="address")


_GATEWAY, _WALLET, _CHAIN = "Marketplace", "Wallet", "Chain"

GatewayOption = Annotated[
    str | None,
    typer.Option(envvar="FAR_GATEWAY_URL", help="Address of the marketplace's gateway.", rich_help_panel=_GATEWAY),
]
DomainOption = Annotated[
    str | None,
    typer.Option(help="Domain that its sign-in message names, if not that of --gateway.", rich_help_panel=_GATEWAY),
]
KeystoreOption = Annotated[
    Path | None,
    typer.Option(
        envvar="FAR_KEYSTORE",
        help="Keystore file of the wallet; default: the key in FAR_WALLET_KEY.",
        rich_help_panel=_WALLET,
    ),
]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        envvar="FAR_KEYSTORE_PASSWORD_FILE",
        help="File with the keystore's password; default: asked for.",
        rich_help_panel=_WALLET,
    ),
]
WalletOption = Annotated[
    str | None,
    typer.Option(help="The wallet that you mean: another key is refused.", rich_help_panel=_WALLET),
]
RpcOption = Annotated[
    str | None,
    typer.Option(envvar="FAR_CHAIN_RPC_URL", help="Address of a node of the chain.", rich_help_panel=_CHAIN),
]
EscrowOption = Annotated[
    str | None,
    typer.Option(
        envvar="FAR_ESCROW_ADDRESS", help="The escrow contract; default: as the gateway says.", rich_help_panel=_CHAIN
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


@app.command()
def balance(
    gateway: GatewayOption = None,
    domain: DomainOption = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="Show so many days.")] = 30,
    wallet: WalletOption = None,
    keystore: KeystoreOption = None,
    password_file: PasswordFileOption = None,
    rpc: RpcOption = None,
    escrow: EscrowOption = None,
    json: JsonOption = False,
) -> None:
    """Show what was earned and where it is. With --wallet, --rpc and --escrow alone: what the chain says."""
    with command(json) as console:
        from far_node.rewards.display import show_balance

        if gateway is None:
            _chain_balance(console, wallet, rpc, escrow)
            return
        with _looking(gateway, domain, keystore, password_file, wallet) as (market, _):
            found = market.rewards(days)
        if json:
            console.event("balance", **found.model_dump(mode="json"))
        else:
            show_balance(found)


@app.command()
def history(
    gateway: GatewayOption = None,
    domain: DomainOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many contributions.")] = 50,
    check: Annotated[
        bool, typer.Option("--check", help="Prove every paid line against the chain. Exit code 3: not all are proven.")
    ] = False,
    receipts: Annotated[
        Path | None, typer.Option(help="Where far-node start --receipts keeps them: look for each in the history.")
    ] = None,
    wallet: WalletOption = None,
    keystore: KeystoreOption = None,
    password_file: PasswordFileOption = None,
    rpc: RpcOption = None,
    escrow: EscrowOption = None,
    json: JsonOption = False,
) -> None:
    """List what your nodes did and what became of the money, newest first."""
    with command(json) as console:
        from discovery.protocol.errors import InvalidArgument
        from far_node.rewards.check import Check, not_in_history
        from far_node.rewards.display import tell_history, tell_missing
        from far_node.rewards.kept import read_kept

        kept = None if receipts is None else read_kept(receipts)
        if check and wallet is None and _looks_only(keystore):
            raise InvalidArgument("pass --wallet: with an API key alone the gateway would say whose lines are proven")
        with _looking(gateway, domain, keystore, password_file, wallet) as (market, owner):
            told = market.history(receipts=check or kept is not None)
            lines = list(told if kept is not None else _first(told, limit))
            checked = None
            if check:
                with _escrow(rpc, escrow, market.rewards(1)) as contract:
                    checked = list(Check(owner, market, contract).lines(lines))
        is_good = tell_history(console, lines, checked, limit)
        if kept is not None:
            tell_missing(console, len(kept), not_in_history(kept, lines))
        if not is_good:
            raise typer.Exit(EXIT_FOUND)


@app.command()
def claim(
    gateway: GatewayOption = None,
    domain: DomainOption = None,
    wallet: WalletOption = None,
    keystore: KeystoreOption = None,
    password_file: PasswordFileOption = None,
    rpc: RpcOption = None,
    escrow: EscrowOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Turn what payout roots promise into credit. One transaction takes all that can be claimed."""
    with command(json) as console:
        from far_node.rewards.claims import Nothing, best_claim

        key = open_wallet(keystore, password_file, wallet)
        with _signed_in(gateway, domain, key) as market:
            place, claims = market.claims()
        with _escrow(rpc, escrow, place) as contract:
            found = best_claim(contract, key.wallet, claims)
            if isinstance(found, Nothing):
                console.event("nothing", found.sentence, units=0, claimable_at=found.claimable_at)
                return
            prepared = contract.claim(key.wallet, found.claim.epoch, found.cumulative_wei, found.proof)
            facts = {"epoch": found.claim.epoch, "units": found.units, "wei": str(found.wei), "wallet": key.wallet}
            _send(console, "claimed", f"the root of epoch {found.claim.epoch}", contract, prepared, key, dry_run, facts)


@app.command()
def withdraw(
    to: Annotated[str | None, typer.Option(help="Where the money goes, 0x…; default: the wallet itself.")] = None,
    gateway: GatewayOption = None,
    domain: DomainOption = None,
    wallet: WalletOption = None,
    keystore: KeystoreOption = None,
    password_file: PasswordFileOption = None,
    rpc: RpcOption = None,
    escrow: EscrowOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Take out of the escrow all that you are credited with. With --escrow no marketplace is asked."""
    with command(json) as console:
        from discovery.protocol.ids import check_wallet
        from far_node.rewards.amounts import WEI_PER_UNIT

        key = open_wallet(keystore, password_file, wallet)
        target = key.wallet if to is None else check_wallet(to)
        place = None
        if gateway is not None:
            with _signed_in(gateway, domain, key) as market:
                place = market.rewards(1)
        with _escrow(rpc, escrow, place) as contract:
            wei = contract.credit_of(key.wallet)
            if not wei:
                console.event("nothing", f"there is nothing to withdraw for {key.wallet}", units=0)
                return
            prepared = contract.withdraw(key.wallet, target)
            facts = {"units": wei // WEI_PER_UNIT, "wei": str(wei), "wallet": key.wallet, "to": target}
            _send(console, "withdrawn", f"the credit to {target}", contract, prepared, key, dry_run, facts)


@address.command("show")
def show_address(
    gateway: GatewayOption = None,
    domain: DomainOption = None,
    wallet: WalletOption = None,
    keystore: KeystoreOption = None,
    password_file: PasswordFileOption = None,
    json: JsonOption = False,
) -> None:
    """Show where a marketplace without an escrow pays you, and what stands in the way."""
    with command(json) as console:
        with _looking(gateway, domain, keystore, password_file, wallet) as (market, _):
            found = market.payout_address()
        _tell_address(console, found)


@address.command("set")
def set_address(
    to: Annotated[str, typer.Argument(metavar="ADDRESS", help="Your address on the marketplace's chain.")],
    gateway: GatewayOption = None,
    domain: DomainOption = None,
    wallet: WalletOption = None,
    keystore: KeystoreOption = None,
    password_file: PasswordFileOption = None,
    json: JsonOption = False,
) -> None:
    """Say where you want to be paid. It counts after a day or so; saying the old one again takes it back."""
    with command(json) as console:
        with _signed_in(gateway, domain, open_wallet(keystore, password_file, wallet)) as market:
            found = market.change_payout_address(to)
        _tell_address(console, found)


def _tell_address(console: Console, found: TransferTo) -> None:
    from far_node.rewards.display import transfer_in_words

    console.event("payout_address", transfer_in_words(found), **found.model_dump(mode="json"))


def _send(
    console: Console,
    event: str,
    what: str,
    contract: Escrow,
    prepared: Prepared,
    key: WalletKey,
    dry_run: bool,
    facts: dict[str, object],
) -> None:
    from far_node.rewards.amounts import far

    amount = far(int(str(facts["units"])))
    if dry_run:
        cost = f"gas at most {prepared.max_fee_wei / 1e18:.9f} of the chain's coin"
        sentence = f"would send: {amount}, {what}; {cost}"
        console.event("dry_run", sentence, would=event, max_fee_wei=str(prepared.max_fee_wei), **facts)
        return
    sent = contract.send(prepared, key)
    where = {"tx_hash": sent.tx_hash, "block_number": sent.block_number, "fee_wei": str(sent.fee_wei)}
    console.event(event, f"{event} {amount}, {what}\ntransaction {sent.tx_hash}", **facts, **where)


def _chain_balance(console: Console, wallet: str | None, rpc: str | None, escrow: str | None) -> None:
    from discovery.protocol.errors import InvalidArgument
    from discovery.protocol.ids import check_wallet
    from far_node.rewards.amounts import WEI_PER_UNIT, far

    if wallet is None:
        raise InvalidArgument(
            "pass --gateway for all of your money, or --wallet, --rpc and --escrow for the chain alone"
        )
    whose = check_wallet(wallet)
    with _escrow(rpc, escrow, None) as contract:
        credit, claimed = contract.credit_of(whose), contract.claimed_of(whose)
    sentence = f"to be withdrawn  {far(credit // WEI_PER_UNIT)}\never claimed     {far(claimed // WEI_PER_UNIT)}"
    facts = {"credit_units": credit // WEI_PER_UNIT, "claimed_units": claimed // WEI_PER_UNIT}
    console.event("chain_balance", sentence, wallet_address=whose, chain_id=contract.chain_id, **facts)


@contextmanager
def command(json: bool) -> Iterator[Console]:
    """What every command begins with, and how it fails."""
    from discovery.protocol.errors import FarError

    console = Console(json)
    quiet_libraries()
    try:
        yield console
    except FarError as error:
        fail(console, error)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def open_wallet(keystore: Path | None, password_file: Path | None, wallet: str | None) -> WalletKey:
    """The key of the wallet that is paid: from the keystore, or from the environment.

    Raises:
        WalletKeyUnusable: neither is there, it cannot be opened, or it is that of another ``wallet``.
    """
    from discovery.protocol.ids import check_wallet
    from far_node.rewards.errors import WalletKeyUnusable
    from far_node.rewards.wallet import open_key

    key = open_key(keystore, lambda: _password(password_file))
    if wallet is not None and check_wallet(wallet) != key.wallet:
        raise WalletKeyUnusable(f"this is the key of {key.wallet}, not that of {check_wallet(wallet)}")
    return key


def _looks_only(keystore: Path | None) -> bool:
    """Whether there is an API key and no key of the wallet."""
    from far_node.rewards.wallet import KEY_VARIABLE, api_key

    return keystore is None and not os.environ.get(KEY_VARIABLE) and api_key() is not None


@contextmanager
def _looking(
    gateway: str | None, domain: str | None, keystore: Path | None, password_file: Path | None, wallet: str | None
) -> Iterator[tuple[Gateway, str]]:
    """A gateway that tells us everything, and about which wallet: by the wallet's key, or by an API key."""
    from discovery.protocol.ids import check_wallet
    from far_node.rewards.errors import WalletKeyUnusable
    from far_node.rewards.gateway import Gateway
    from far_node.rewards.wallet import api_key

    if not _looks_only(keystore):
        key = open_wallet(keystore, password_file, wallet)
        with _signed_in(gateway, domain, key) as market:
            yield market, key.wallet
        return
    with Gateway(_needed(gateway), domain) as market:
        market.use_key(api_key() or "")
        owner = check_wallet(market.rewards(1).wallet_address)
        if wallet is not None and check_wallet(wallet) != owner:
            raise WalletKeyUnusable(f"this is an API key of {owner}, not one of {check_wallet(wallet)}")
        yield market, owner


def _password(file: Path | None) -> str:
    from far_node.rewards.errors import WalletKeyUnusable

    if file is None:
        if not sys.stdin.isatty():
            raise WalletKeyUnusable("the keystore's password is needed: pass --password-file FILE")
        return str(typer.prompt("Password of the keystore", hide_input=True, err=True))
    try:
        return file.expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise WalletKeyUnusable(f"cannot read the password file {file}") from None


@contextmanager
def _signed_in(gateway: str | None, domain: str | None, key: WalletKey) -> Iterator[Gateway]:
    from far_node.rewards.gateway import Gateway

    with Gateway(_needed(gateway), domain) as market:
        market.sign_in(key)
        yield market


def _needed(gateway: str | None) -> str:
    from discovery.protocol.errors import InvalidArgument

    if gateway is None:
        raise InvalidArgument("pass --gateway: the address of the marketplace that pays you")
    return gateway


@contextmanager
def _escrow(rpc: str | None, address: str | None, place: Place | None) -> Iterator[Escrow]:
    """The escrow at ``address``, or the one that a marketplace names; on the marketplace's chain."""
    from discovery.protocol.errors import InvalidArgument
    from far_node.rewards.chain import Escrow

    if address is None and place is not None and place.escrow_address is None:
        raise InvalidArgument(
            "this marketplace has no escrow: what you earn comes by transfer, and there is nothing to claim, to "
            "withdraw or to check in it. far-node rewards address show says where it goes"
        )
    if rpc is None:
        raise InvalidArgument("pass --rpc: the address of a node of the chain, http(s)://…")
    found = address or (place.escrow_address if place is not None else None)
    if found is None:
        raise InvalidArgument("pass --escrow, or --gateway, which knows it")
    with Escrow(rpc, found) as contract:
        contract.check(None if place is None else place.chain_id)
        yield contract


def _first(lines: Iterator[Line], limit: int | None) -> Iterator[Line]:
    """So many lines, and the rest of the last one's request, which can only be checked as a whole."""
    last = ""
    for index, line in enumerate(lines):
        if limit is not None and index >= limit and line.request_id != last:
            return
        last = line.request_id
        yield line
