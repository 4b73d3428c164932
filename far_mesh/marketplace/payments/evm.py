"""Payments on any chain that speaks the language of Ethereum: its own coin, an ERC-20 token, or a token in our escrow.

With an escrow, users deposit in it and providers are credited in it by netted batches, each of which it takes once.
Without one, users send to the deposit address and payouts are plain transfers, one a transaction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak

from discovery.protocol.errors import InvalidArgument, InvalidWallet
from discovery.protocol.ids import ZERO_ADDRESS, check_wallet
from discovery.web.wallets import signer_of
from far_mesh.marketplace.chain.client import settle_batch_data
from far_mesh.marketplace.chain.node import (
    Call,
    Log,
    MinedTransaction,
    Node,
    SignedCall,
    address_of,
    call_data,
    max_fee_of,
)
from far_mesh.marketplace.errors import BadSignature, ChainMismatch, InvalidSetting, TransactionReverted
from far_mesh.marketplace.payments.errors import (
    DepositPending,
    DepositRefused,
    DepositUnknown,
    PayoutFundsShort,
    PayoutInFlight,
    PayoutInvalid,
)
from far_mesh.marketplace.payments.provider import (
    AddressInfo,
    AddressKind,
    Batch,
    Block,
    Coin,
    Deposit,
    PaymentProvider,
    Payout,
    SignedPayouts,
    State,
    Status,
    check_payouts,
)
from far_mesh.marketplace.settings import Settings

TRANSFER = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
DEPOSITED = "0x" + keccak(text="Deposited(address,address,uint256)").hex()
NATIVE_DECIMALS = 18
POLL_SECONDS = 2.0
_TX_HASH = re.compile(r"0x[0-9a-fA-F]{64}\Z")


def create(settings: Settings) -> EvmPayments:
    """For ``FAR_PAYMENT_PROVIDER=evm``: the token, through the escrow if there is one.

    Raises:
        MissingSetting: the node, the token or the key is not set.
        InvalidSetting: an address or the key is none.
    """
    settings.require("chain_rpc_url", "token_address", "settler_private_key")
    return from_settings(settings, native_symbol="")


def from_settings(settings: Settings, native_symbol: str) -> EvmPayments:
    """The same for chains whose own coin is called ``native_symbol`` and is paid with unless a token is set."""
    key = settings.settler_key()
    try:
        payer = address_of(key)
    except Exception:  # whatever it says could show the key
        raise InvalidSetting(
            "FAR_SETTLER_PRIVATE_KEY is not a private key: 0x and 64 hexadecimal digits are needed",
            setting="FAR_SETTLER_PRIVATE_KEY",
        ) from None
    return EvmPayments(
        Node(settings.chain_rpc_url, settings.chain_id),
        key,
        token=_address(settings.token_address, "FAR_TOKEN_ADDRESS"),
        escrow=_address(settings.escrow_address, "FAR_ESCROW_ADDRESS"),
        deposit_address=_address(settings.deposit_address, "FAR_DEPOSIT_ADDRESS") or payer,
        confirmations=settings.confirmations,
        native_symbol=native_symbol,
        max_fee_wei=round(settings.max_fee_gwei * 10**9) or None,
    )


def _address(text: str, setting: str) -> str | None:
    try:
        return str(check_wallet(text)) if text else None
    except InvalidWallet as error:
        raise InvalidSetting(f"{setting} is not usable: {error.message}", setting=setting) from None


@dataclass(frozen=True)
class Transfer:
    """What an ERC-20 ``Transfer`` event says."""

    sender: str
    to: str
    atoms: int
    place: int


class EvmPayments(PaymentProvider):
    """Owner of the paying key. Everything that is read from the chain is checked against what blocks hold."""

    pays_wallets = True

    def __init__(
        self,
        node: Node,
        private_key: str,
        *,
        token: str | None,
        escrow: str | None,
        deposit_address: str,
        confirmations: int,
        native_symbol: str,
        max_fee_wei: int | None = None,
    ) -> None:
        self._node = node
        self._key = private_key
        self.payer = address_of(private_key)
        self._token = token
        self._escrow = escrow
        self._deposit_address = deposit_address
        self.deposit_address = None if escrow else deposit_address
        self._confirmations = confirmations
        self._native_symbol = native_symbol
        self._max_fee_wei = max_fee_wei
        self.chain = f"eip155:{node.chain_id}"
        self._coin: Coin | None = None
        self.max_payouts = 100 if escrow else 1

    def __repr__(self) -> str:
        return f"EvmPayments({self.chain}, payer={self.payer})"

    async def check(self) -> Coin:
        """See :class:`PaymentProvider`."""
        await self._node.check_id()
        if self._escrow is not None:
            await self._check_escrow(self._escrow)
        self._coin = await self._read_coin()
        return self._coin

    async def _check_escrow(self, escrow: str) -> None:
        try:
            held = await self._node.ask(escrow, "token()", (), "address")
        except TransactionReverted:
            raise ChainMismatch(f"there is no escrow at FAR_ESCROW_ADDRESS ({escrow}) on this chain") from None
        if check_wallet(held) != self._token:
            raise ChainMismatch(f"the escrow at {escrow} holds {held}, FAR_TOKEN_ADDRESS says {self._token}")

    async def _read_coin(self) -> Coin:
        if self._token is None:
            return Coin(self._native_symbol, NATIVE_DECIMALS, self.chain)
        try:
            symbol = await self._node.ask(self._token, "symbol()", (), "string")
            decimals = await self._node.ask(self._token, "decimals()", (), "uint8")
        except TransactionReverted:
            raise ChainMismatch(f"there is no token at FAR_TOKEN_ADDRESS ({self._token}) on this chain") from None
        return Coin(str(symbol), int(decimals), self.chain, self._token)

    async def _known_coin(self) -> Coin:
        return self._coin or await self.check()

    async def close(self) -> None:
        """See :class:`PaymentProvider`."""
        await self._node.close()

    # ---- deposits

    async def verify_deposit(self, tx_id: str) -> tuple[Deposit, ...]:
        """See :class:`PaymentProvider`."""
        if not _TX_HASH.match(tx_id):
            raise InvalidArgument("a transaction hash is 0x and 64 hexadecimal digits")
        coin = await self._known_coin()
        found = await self._settled(tx_id.lower())
        if not found.mined.ok:
            raise DepositRefused(f"{tx_id} was reverted: it paid nothing")
        paid = await self._paid_in(found)
        if await self._node.block_hash(found.mined.block_number) != found.mined.block_hash:
            raise DepositPending("the chain has just changed its mind about this block; ask again", retry_after=2.0)
        block = Block(found.mined.block_number, found.mined.block_hash)
        return tuple(
            Deposit(f"{self.chain}:{tx_id.lower()}:{one.place}", one.sender, one.atoms, coin.units_of(one.atoms), block)
            for one in paid
        )

    async def newest_block(self) -> int:
        """See :class:`PaymentProvider`."""
        return await self._node.block_number()

    def signed_by(self, payer: str, text: str, signature: str) -> bool:
        """See :class:`PaymentProvider`. EIP-191 (``personal_sign``)."""
        try:
            return signer_of(text, signature) == payer
        except BadSignature:
            return False

    async def _settled(self, tx_hash: str) -> MinedTransaction:
        """The transaction, once it is deep enough."""
        found = await self._node.transaction(tx_hash)
        if found is None:
            if await self._node.is_waiting(tx_hash):
                raise self._pending("the transaction is in no block yet", 0)
            raise DepositUnknown(f"the chain knows of no transaction {tx_hash}")
        on_top = await self._node.block_number() - found.mined.block_number
        if on_top < self._confirmations:
            raise self._pending(f"{on_top} of {self._confirmations} blocks are on top", max(on_top, 0))
        return found

    def _pending(self, why: str, confirmations: int) -> DepositPending:
        return DepositPending(
            f"{why}; ask again", confirmations=confirmations, needed=self._confirmations, retry_after=POLL_SECONDS
        )

    async def _paid_in(self, found: MinedTransaction) -> list[Transfer]:
        if self._escrow is not None:
            paid = self._deposited(found)
        elif self._token is not None:
            paid = await self._transferred(found, self._token)
        else:
            paid = self._sent(found)
        if not paid:
            raise DepositRefused(self._why_nothing(found))
        return paid

    def _deposited(self, found: MinedTransaction) -> list[Transfer]:
        # The escrow announces what arrived, not what was sent, and whom it is for: the first topic.
        logs = [log for log in found.logs if log.address == self._escrow and log.topics[:1] == (DEPOSITED,)]
        return [Transfer(_wallet(log.topics[1]), log.address, int.from_bytes(log.data), log.place) for log in logs]

    def _sent(self, found: MinedTransaction) -> list[Transfer]:
        if found.to != self._deposit_address or found.value == 0:
            return []
        return [Transfer(found.sender, self._deposit_address, found.value, 0)]

    async def _transferred(self, found: MinedTransaction, token: str) -> list[Transfer]:
        events = [
            one
            for one in _transfers(found.logs, token)
            if one.to == self._deposit_address and one.sender not in (ZERO_ADDRESS, one.to) and one.atoms
        ]
        if not events:
            return []
        return await self._as_arrived(events, token, found.mined.block_number)

    async def _as_arrived(self, events: list[Transfer], token: str, block: int) -> list[Transfer]:
        """What the balance says of ``events``: tokens that take a fee on the way announce more than arrives."""
        after = await self._balance(token, self._deposit_address, block)
        rise = after - await self._balance(token, self._deposit_address, block - 1)
        came = await self._node.token_transfers(token, TRANSFER, block, sender=None, to=self._deposit_address)
        went = await self._node.token_transfers(token, TRANSFER, block, sender=self._deposit_address, to=None)
        if rise == sum(came) - sum(went):
            return events
        if len(events) == len(came) == 1 and not went and 0 < rise < events[0].atoms:
            return [Transfer(events[0].sender, events[0].to, rise, events[0].place)]
        raise DepositRefused("the token's balances do not bear out what its events say; an operator has to look")

    async def _balance(self, token: str, wallet: str, block: int) -> int:
        return int(await self._node.ask(token, "balanceOf(address)", (wallet,), "uint256", block))

    def _why_nothing(self, found: MinedTransaction) -> str:
        if self._escrow is not None:
            return f"the transaction deposits nothing in the escrow {self._escrow}"
        coin = self._token or self._native_symbol
        others = [one for log in found.logs if log.address != self._token for one in _transfers([log], log.address)]
        if any(one.to == self._deposit_address for one in others):
            return f"the transaction pays another token than {coin}"
        return f"the transaction pays no {coin} to {self._deposit_address}"

    # ---- addresses

    async def explain_address(self, address: str) -> AddressInfo:
        """See :class:`PaymentProvider`."""
        try:
            wallet = str(check_wallet(address))
        except InvalidWallet as error:
            return AddressInfo(address[:100], AddressKind.UNUSABLE, False, error.message)
        if wallet == ZERO_ADDRESS:
            return AddressInfo(wallet, AddressKind.UNUSABLE, False, "nobody has the key of the zero address")
        ours = {
            self._token: "the token itself",
            self._escrow: "the escrow itself",
            self.payer: "the wallet that pays",
            self._deposit_address: "the address that deposits go to",
        }
        if wallet in ours:
            return AddressInfo(wallet, AddressKind.OURS, False, f"this is {ours[wallet]}")
        if not await self._node.has_code(wallet):
            return AddressInfo(wallet, AddressKind.WALLET, True, f"a wallet on {self.chain}")
        return self._explained_contract(wallet)

    def _explained_contract(self, address: str) -> AddressInfo:
        if self._escrow is None and self._token is None:
            why = "a contract: it may have no way to take or to spend what is sent to it"
            return AddressInfo(address, AddressKind.CONTRACT, False, why)
        return AddressInfo(address, AddressKind.CONTRACT, True, f"a contract on {self.chain}, perhaps a smart wallet")

    # ---- payouts

    async def prepare(self, payouts: Sequence[Payout], *, batch: Batch | None = None) -> SignedPayouts:
        """See :class:`PaymentProvider`. With an escrow ``batch`` is needed, and the pool of the escrow pays."""
        check_payouts(payouts, self.max_payouts)
        coin = await self._known_coin()
        await self._check_addresses(payouts)
        atoms = [coin.atoms_of(payout.units) for payout in payouts]
        nonce = await self._free_nonce()
        await self._check_coin(sum(atoms))
        call = await self._call(payouts, atoms, batch, coin)
        await self._check_fee(call)
        return _payouts(await self._node.sign(call, nonce, self._key, self._max_fee_wei))

    async def _check_addresses(self, payouts: Sequence[Payout]) -> None:
        for payout in payouts:
            info = await self.explain_address(payout.to)
            if not info.payable:
                raise PayoutInvalid(f"{info.address} cannot be paid: {info.explanation}", address=info.address)

    async def _free_nonce(self) -> int:
        used = await self._node.transaction_count(self.payer)
        if await self._node.transaction_count(self.payer, waiting=True) > used:
            raise PayoutInFlight(
                f"a transaction of {self.payer} is in no block yet; ask again", retry_after=POLL_SECONDS
            )
        return used

    async def _call(self, payouts: Sequence[Payout], atoms: list[int], batch: Batch | None, coin: Coin) -> Call:
        wallets = [str(check_wallet(payout.to)) for payout in payouts]
        if self._escrow is not None:
            if batch is None:
                raise PayoutInvalid("payouts through the escrow need their batch")
            data = self._settlement(batch, wallets, atoms, coin)
            return await self._node.call(self.payer, self._escrow, data)
        if self._token is not None:
            data = call_data("transfer(address,uint256)", wallets[0], atoms[0])
            await self._check_agrees(self._token, data)
            return await self._node.call(self.payer, self._token, data)
        return await self._node.call(self.payer, wallets[0], value=atoms[0])

    def _settlement(self, batch: Batch, wallets: list[str], atoms: list[int], coin: Coin) -> str:
        charges = {_payable_wallet(user): coin.atoms_of(units) for user, units in batch.charges.items()}
        payouts = dict(zip(wallets, atoms, strict=True))
        if len(charges) < len(batch.charges) or len(payouts) < len(wallets):
            raise PayoutInvalid("two lines of a batch are about one address: add them up first")
        if batch.number < 0 or batch.fee_units < 0 or len(batch.details) != 32 or min(charges.values(), default=1) <= 0:
            raise PayoutInvalid("a batch has a number, charges above nothing, a fee and 32 bytes of details")
        return settle_batch_data(batch.number, batch.details, charges, payouts, coin.atoms_of(batch.fee_units))

    async def _check_agrees(self, token: str, transfer: str) -> None:
        """A token may refuse by answering false. Some answer nothing when they agree."""
        answer = await self._node.simulate(token, transfer, sender=self.payer)
        if answer and not any(answer):
            raise TransactionReverted("the token refuses the transfer", reason="transfer returned false")

    async def _check_coin(self, atoms: int) -> None:
        native = await self._node.native_balance(self.payer)
        if native == 0:
            raise PayoutFundsShort(f"{self.payer} has nothing to pay the fees of {self.chain} with")
        if self._escrow is not None:
            return  # its pool pays, and it says itself when that is too little
        held = native
        if self._token is not None:
            held = int(await self._node.ask(self._token, "balanceOf(address)", (self.payer,), "uint256"))
        if held < atoms:
            raise PayoutFundsShort(f"{self.payer} has {held} of the coin's smallest parts, and {atoms} are to be paid")

    async def _check_fee(self, call: Call) -> None:
        native, fees = await self._node.native_balance(self.payer), await self._node.fees()
        needed = call.value + call.gas * fees["maxFeePerGas"]
        if native < needed:
            raise PayoutFundsShort(f"{self.payer} has {native} wei; with the fee it takes up to {needed}")

    async def hasten(self, signed: SignedPayouts) -> SignedPayouts:
        """See :class:`PaymentProvider`. ``signed`` itself where ``FAR_MAX_FEE_GWEI`` allows no more."""
        before = SignedCall(signed.raw, signed.tx_id, signed.fence)
        dearer = await self._node.sign_dearer(before, self._key)
        if self._max_fee_wei is not None and max_fee_of(dearer.raw) > self._max_fee_wei:
            return signed
        return _payouts(dearer)

    async def send(self, signed: SignedPayouts) -> str | None:
        """See :class:`PaymentProvider`."""
        return await self._node.send_raw(signed.raw)

    async def status(self, signed: SignedPayouts, seen: Block | None = None) -> Status:
        """See :class:`PaymentProvider`."""
        newest = await self._node.block_number()
        # Asked before the receipt: a nonce that is used now, with no receipt after, was used by something else.
        used_for_good = await self._node.transaction_count(self.payer, max(newest - self._confirmations, 0))
        mined = await self._node.mined(signed.tx_id)
        if mined is None:
            if used_for_good > signed.fence:
                return Status(State.DISPLACED)
            return Status(State.PENDING if seen is None else State.VANISHED)
        block, on_top = Block(mined.block_number, mined.block_hash), max(newest - mined.block_number, 0)
        if on_top < self._confirmations:
            return Status(State.CONFIRMING, block, on_top)
        return Status(State.CONFIRMED if mined.ok else State.FAILED, block, on_top)


def _payouts(signed: SignedCall) -> SignedPayouts:
    return SignedPayouts(signed.tx_hash, signed.raw, signed.nonce)


def _payable_wallet(text: str) -> str:
    try:
        return str(check_wallet(text))
    except InvalidWallet as error:
        raise PayoutInvalid(error.message) from None


def _wallet(topic: str) -> str:
    return str(check_wallet("0x" + topic[-40:]))


def _transfers(logs: Sequence[Log], token: str) -> list[Transfer]:
    """The ERC-20 transfers of ``token``; those of NFTs have a fourth topic and no data."""
    return [
        Transfer(_wallet(log.topics[1]), _wallet(log.topics[2]), int.from_bytes(log.data), log.place)
        for log in logs
        if log.address == token and len(log.topics) == 3 and log.topics[0] == TRANSFER and len(log.data) == 32
    ]
