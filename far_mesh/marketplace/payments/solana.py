"""Payments in an SPL token on Solana. Needs ``solders``, which the extra ``solana`` brings.

Users send to the associated token account of the deposit address. Payouts are checked transfers to the associated
accounts of providers, which are made where they are missing; their rent is paid by us.

Nothing counts before it is finalized. A payout that was signed cannot happen after the last block height at which its
blockhash is known (https://solana.com/docs/core/transactions): that height is its fence.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from solders.compute_budget import set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.token.associated import get_associated_token_address
from solders.token.state import Mint, TokenAccount
from solders.transaction import Transaction

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.errors import ChainMismatch, ChainUnavailable, InvalidSetting, TransactionReverted
from far_mesh.marketplace.payments.errors import (
    DepositPending,
    DepositRefused,
    DepositUnknown,
    PayoutFundsShort,
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

SYSTEM_PROGRAM = Pubkey.from_string("11111111111111111111111111111111")
TOKEN_PROGRAM = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED_PROGRAM = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
CREATE_IDEMPOTENT, TRANSFER_CHECKED = 1, 12
MINT_BYTES, TOKEN_ACCOUNT_BYTES = 82, 165
MAX_PAYOUTS = 9
"""What fits into the 1,232 bytes of a transaction."""
PRICE_MICRO_LAMPORTS = 10_000
"""What is offered per compute unit, so that a busy chain takes the transaction: about 0.00002 SOL for nine payouts."""
TIMEOUT_SECONDS = 20.0
POLL_SECONDS = 5.0
BLOCKHASH_BLOCKS = 150
"""For how many blocks a blockhash is known."""
FINALIZED = {"commitment": "finalized"}
GENESIS_CHARACTERS = 32


def create(settings: Settings) -> SolanaPayments:
    """For ``FAR_PAYMENT_PROVIDER=solana``.

    Raises:
        MissingSetting: the node, the mint or the key pair is not set.
        InvalidSetting: one of them, or the deposit address, is none.
    """
    settings.require("solana_rpc_url", "solana_mint", "solana_private_key")
    payer = read_keypair(settings.solana_key())
    return SolanaPayments(
        settings.solana_rpc_url,
        payer,
        mint=_setting(settings.solana_mint, "FAR_SOLANA_MINT"),
        deposit_owner=_setting(settings.deposit_address, "FAR_DEPOSIT_ADDRESS")
        if settings.deposit_address
        else payer.pubkey(),
    )


def read_keypair(text: str) -> Keypair:
    """A key pair as wallets export it (base58) or as ``solana-keygen`` writes it (a JSON list of 64 numbers).

    Raises:
        InvalidSetting: it is neither. The text is not shown.
    """
    try:
        if text.lstrip().startswith("["):
            return Keypair.from_bytes(bytes(json.loads(text)))
        return Keypair.from_base58_string(text.strip())
    except (ValueError, TypeError):
        raise InvalidSetting(
            "FAR_SOLANA_PRIVATE_KEY is not a key pair: 64 bytes in base58 or as a JSON list are needed",
            setting="FAR_SOLANA_PRIVATE_KEY",
        ) from None


def _setting(text: str, name: str) -> Pubkey:
    found = _pubkey(text)
    if found is None:
        raise InvalidSetting(f"{name} is not an address of Solana: 32 bytes in base58 are needed", setting=name)
    return found


def _pubkey(text: str) -> Pubkey | None:
    try:
        return Pubkey.from_string(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class _Account:
    owner: Pubkey
    data: bytes
    executable: bool


class Rpc:
    """A node's JSON-RPC (https://solana.com/docs/rpc)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, method: str, *parameters: Any) -> Any:
        """What the node answers.

        Raises:
            ChainUnavailable: nothing, or an error; ``objection`` says which.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        try:
            async with self._session.post(self._url, json=question) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ChainUnavailable("the chain does not answer; try again in a moment", retry_after=2.0) from error
        if not isinstance(answer, dict) or "result" not in answer:
            said = str((answer.get("error") or {}).get("message") if isinstance(answer, dict) else answer)[:200]
            raise ChainUnavailable(f"the chain's node refused: {said}", retry_after=2.0, objection=said)
        return answer["result"]

    async def account(self, address: Pubkey) -> _Account | None:
        """What lies at an address."""
        options = {"encoding": "base64", "commitment": "confirmed"}
        value = (await self.ask("getAccountInfo", str(address), options))["value"]
        if value is None:
            return None
        owner = Pubkey.from_string(value["owner"])
        return _Account(owner, base64.b64decode(value["data"][0]), bool(value["executable"]))

    async def close(self) -> None:
        """Close the connections to the node."""
        if self._session is not None:
            await self._session.close()


class SolanaPayments(PaymentProvider):
    """Owner of the paying key pair."""

    max_payouts = MAX_PAYOUTS

    def __init__(self, rpc_url: str, payer: Keypair, *, mint: Pubkey, deposit_owner: Pubkey) -> None:
        self._rpc = Rpc(rpc_url)
        self._keypair = payer
        self.payer = payer.pubkey()
        self._mint = mint
        self._deposit_owner = deposit_owner
        self.deposit_address = str(deposit_owner)
        self._deposit_account = get_associated_token_address(deposit_owner, mint)
        self._coin: Coin | None = None

    def __repr__(self) -> str:
        return f"SolanaPayments(mint={self._mint}, payer={self.payer})"

    async def check(self) -> Coin:
        """See :class:`PaymentProvider`. The mint must be of the token program: those of its successor may take a fee
        from what is sent, or call foreign programs."""
        genesis = str(await self._rpc.ask("getGenesisHash"))
        account = await self._rpc.account(self._mint)
        if account is None or account.owner != TOKEN_PROGRAM or len(account.data) != MINT_BYTES:
            raise ChainMismatch(f"there is no mint of the SPL token program at FAR_SOLANA_MINT ({self._mint})")
        decimals = Mint.from_bytes(account.data).decimals
        chain = f"solana:{genesis[:GENESIS_CHARACTERS]}"
        self._coin = Coin(str(self._mint)[:6], decimals, chain, str(self._mint))
        return self._coin

    async def _known_coin(self) -> Coin:
        return self._coin or await self.check()

    async def close(self) -> None:
        """See :class:`PaymentProvider`."""
        await self._rpc.close()

    # ---- deposits

    async def verify_deposit(self, tx_id: str) -> tuple[Deposit, ...]:
        """See :class:`PaymentProvider`. Who paid is whose balance of the token fell; there must be one such owner."""
        signature = _signature(tx_id)
        coin = await self._known_coin()
        options = {"encoding": "json", "maxSupportedTransactionVersion": 0, **FINALIZED}
        found = await self._rpc.ask("getTransaction", str(signature), options)
        if found is None:
            await self._explain_absence(signature)
        meta = found["meta"]
        if meta["err"] is not None:
            raise DepositRefused(f"{signature} has failed: it paid nothing")
        changes = self._changes(found)
        atoms = changes.pop(str(self._deposit_account), (None, 0))[1]
        if atoms <= 0:
            raise DepositRefused(f"the transaction pays no {self._mint} to {self._deposit_account}")
        payers = {owner for owner, change in changes.values() if change < 0 and owner is not None}
        if len(payers) != 1:
            raise DepositRefused("it is not clear who paid: the transaction takes the token from nobody, or from many")
        return (
            Deposit(
                f"{coin.chain}:{signature}:0", payers.pop(), atoms, coin.units_of(atoms), Block(int(found["slot"]))
            ),
        )

    def signed_by(self, payer: str, text: str, signature: str) -> bool:
        """See :class:`PaymentProvider`. Ed25519 over the text itself, in base58: ``signMessage`` of wallets."""
        key = _pubkey(payer)
        try:
            return key is not None and Signature.from_string(signature).verify(key, text.encode())
        except ValueError:
            return False

    async def _explain_absence(self, signature: Signature) -> None:
        """Raises:
        DepositPending, DepositUnknown: why a transaction is not among the finalized ones.
        """
        status = await self._signature_status(str(signature))
        if status is None:
            raise DepositUnknown(f"the chain knows of no transaction {signature}")
        raise DepositPending(
            "the transaction is not finalized yet; ask again",
            confirmations=status["confirmations"],
            needed="finalized",
            retry_after=POLL_SECONDS,
        )

    def _changes(self, found: Mapping[str, Any]) -> dict[str, tuple[str | None, int]]:
        """Of each account of the mint: its owner, and by how many atoms the transaction has changed it."""
        keys = list(found["transaction"]["message"]["accountKeys"])
        loaded = found["meta"].get("loadedAddresses") or {}
        keys += [*loaded.get("writable", []), *loaded.get("readonly", [])]
        changes: dict[str, tuple[str | None, int]] = {}
        for sign, name in ((-1, "preTokenBalances"), (1, "postTokenBalances")):
            for balance in found["meta"].get(name) or []:
                if balance["mint"] == str(self._mint):
                    account = keys[balance["accountIndex"]]
                    before = changes.get(account, (None, 0))[1]
                    amount = sign * int(balance["uiTokenAmount"]["amount"])
                    changes[account] = (balance.get("owner"), before + amount)
        return changes

    async def _signature_status(self, signature: str) -> Mapping[str, Any] | None:
        answer = await self._rpc.ask("getSignatureStatuses", [signature], {"searchTransactionHistory": True})
        status: Mapping[str, Any] | None = answer["value"][0]
        return status

    # ---- addresses

    async def explain_address(self, address: str) -> AddressInfo:
        """See :class:`PaymentProvider`. An address off the curve has no key: programs own it."""
        found = _pubkey(address)
        if found is None:
            why = "not an address of Solana: 32 bytes in base58 are expected"
            return AddressInfo(address[:100], AddressKind.UNUSABLE, False, why)
        text = str(found)
        ours = {
            self._mint: "the mint itself",
            self.payer: "the wallet that pays",
            self._deposit_owner: "the wallet that deposits go to",
            self._deposit_account: "the account that deposits go to",
        }
        if found in ours:
            return AddressInfo(text, AddressKind.OURS, False, f"this is {ours[found]}")
        account = await self._rpc.account(found)
        if account is not None and account.owner == TOKEN_PROGRAM:
            return AddressInfo(text, AddressKind.TOKEN_ACCOUNT, False, _explained(account))
        if account is not None and (account.executable or account.owner != SYSTEM_PROGRAM):
            return AddressInfo(text, AddressKind.CONTRACT, False, "an account of a program, not a wallet")
        if not found.is_on_curve():
            return AddressInfo(text, AddressKind.CONTRACT, False, "an address that only a program can sign for")
        return AddressInfo(text, AddressKind.WALLET, True, "a wallet")

    # ---- payouts

    async def prepare(self, payouts: Sequence[Payout], *, batch: Batch | None = None) -> SignedPayouts:
        """See :class:`PaymentProvider`."""
        check_payouts(payouts, self.max_payouts)
        coin = await self._known_coin()
        for payout in payouts:
            info = await self.explain_address(payout.to)
            if not info.payable:
                raise PayoutInvalid(f"{info.address} cannot be paid: {info.explanation}", address=info.address)
        atoms = [coin.atoms_of(payout.units) for payout in payouts]
        source = get_associated_token_address(self.payer, self._mint)
        await self._check_funds(source, sum(atoms))
        steps = [set_compute_unit_price(PRICE_MICRO_LAMPORTS)]
        for payout, amount in zip(payouts, atoms, strict=True):
            steps += self._transfer(source, Pubkey.from_string(payout.to), amount, coin.decimals)
        latest = (await self._rpc.ask("getLatestBlockhash", FINALIZED))["value"]
        blockhash = Hash.from_string(latest["blockhash"])
        transaction = Transaction([self._keypair], Message(steps, self.payer), blockhash)
        raw = base64.b64encode(bytes(transaction)).decode()
        await self._check_accepted(raw)
        return SignedPayouts(str(transaction.signatures[0]), raw, int(latest["lastValidBlockHeight"]))

    def _transfer(self, source: Pubkey, owner: Pubkey, atoms: int, decimals: int) -> list[Instruction]:
        account = get_associated_token_address(owner, self._mint)
        create = [
            AccountMeta(self.payer, is_signer=True, is_writable=True),
            AccountMeta(account, is_signer=False, is_writable=True),
            AccountMeta(owner, is_signer=False, is_writable=False),
            AccountMeta(self._mint, is_signer=False, is_writable=False),
            AccountMeta(SYSTEM_PROGRAM, is_signer=False, is_writable=False),
            AccountMeta(TOKEN_PROGRAM, is_signer=False, is_writable=False),
        ]
        transfer = [
            AccountMeta(source, is_signer=False, is_writable=True),
            AccountMeta(self._mint, is_signer=False, is_writable=False),
            AccountMeta(account, is_signer=False, is_writable=True),
            AccountMeta(self.payer, is_signer=True, is_writable=False),
        ]
        data = bytes([TRANSFER_CHECKED]) + atoms.to_bytes(8, "little") + bytes([decimals])
        return [
            Instruction(ASSOCIATED_PROGRAM, bytes([CREATE_IDEMPOTENT]), create),
            Instruction(TOKEN_PROGRAM, data, transfer),
        ]

    async def _check_funds(self, source: Pubkey, atoms: int) -> None:
        if atoms >= 2**64:
            raise PayoutInvalid("an amount on Solana is less than 2^64 of the token's smallest parts")
        account = await self._rpc.account(source)
        held = TokenAccount.from_bytes(account.data).amount if account is not None else 0
        if held < atoms:
            raise PayoutFundsShort(f"{self.payer} has {held} of the token's smallest parts, and {atoms} are to be paid")

    async def _check_accepted(self, raw: str) -> None:
        """Would the chain accept it now?

        Raises:
            PayoutFundsShort: too few SOL for the fee and for the rent of new accounts.
            TransactionReverted: no, for another reason.
        """
        options = {"encoding": "base64", "sigVerify": True, "commitment": "confirmed"}
        answer = (await self._rpc.ask("simulateTransaction", raw, options))["value"]
        if answer["err"] is None:
            return
        said = json.dumps(answer["err"])[:200]
        logs = " ".join(answer.get("logs") or [])
        if any(words in said + logs for words in ("InsufficientFunds", "AccountNotFound", "insufficient lamports")):
            raise PayoutFundsShort(f"{self.payer} has too few SOL for the fee and the rent of new accounts")
        raise TransactionReverted(f"the chain refuses the payout: {said}", reason=said)

    async def hasten(self, signed: SignedPayouts) -> SignedPayouts:
        """``signed`` itself: it is over within two minutes, one way or the other."""
        return signed

    async def send(self, signed: SignedPayouts) -> str | None:
        """See :class:`PaymentProvider`."""
        options = {"encoding": "base64", "skipPreflight": True, "maxRetries": 5}
        try:
            await self._rpc.ask("sendTransaction", signed.raw, options)
        except ChainUnavailable as error:
            if "objection" not in error.facts:
                raise
            return str(error.facts["objection"])
        return None

    async def status(self, signed: SignedPayouts, seen: Block | None = None) -> Status:
        """See :class:`PaymentProvider`."""
        # Asked before the status: at a height beyond the fence, what is not known after was never in a block.
        height = int(await self._rpc.ask("getBlockHeight", FINALIZED))
        found = await self._signature_status(signed.tx_id)
        if found is None:
            if height > signed.fence:
                await self._check_memory(signed.fence)
                return Status(State.DISPLACED)
            return Status(State.PENDING if seen is None else State.VANISHED)
        block, confirmations = Block(int(found["slot"])), int(found["confirmations"] or 0)
        if found["confirmationStatus"] != "finalized":
            return Status(State.CONFIRMING, block, confirmations)
        return Status(State.CONFIRMED if found["err"] is None else State.FAILED, block, confirmations)

    async def _check_memory(self, fence: int) -> None:
        """Does the node remember the whole time in which a transaction with this fence could have happened?

        Raises:
            ChainUnavailable: no. Then that it knows nothing of it means nothing, and it could be paid twice.
        """
        first = await self._rpc.ask("getFirstAvailableBlock")
        options = {"transactionDetails": "none", "rewards": False, **FINALIZED}
        block = await self._rpc.ask("getBlock", first, options)
        if int(block["blockHeight"]) > max(fence - BLOCKHASH_BLOCKS, 0):
            raise ChainUnavailable(
                "the chain's node has forgotten the time in which this payout may have happened: "
                "set FAR_SOLANA_RPC_URL to one with a longer history"
            )


def _signature(text: str) -> Signature:
    try:
        return Signature.from_string(text)
    except ValueError:
        raise InvalidArgument("a transaction on Solana is named by its signature: 64 bytes in base58") from None


def _explained(account: _Account) -> str:
    if len(account.data) != TOKEN_ACCOUNT_BYTES:
        return "a mint of a token, not a wallet"
    return f"a token account: give the wallet that owns it, {TokenAccount.from_bytes(account.data).owner}"
