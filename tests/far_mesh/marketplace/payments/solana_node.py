"""A node of Solana for tests: the real virtual machine (LiteSVM, in process) behind the part of the JSON-RPC that is
used. Balances, errors and statuses are those of the machine; blocks, finality and forgetting are told by the test."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account
from solders.token.associated import get_associated_token_address
from solders.token.state import TokenAccount
from solders.transaction import Transaction, VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from far_mesh.marketplace.payments.solana import ASSOCIATED_PROGRAM, SYSTEM_PROGRAM, TOKEN_PROGRAM

FINAL_AFTER = 32
BLOCKHASH_BLOCKS = 150
SOL = 10**9


@dataclass
class Landed:
    """A transaction in a block."""

    slot: int
    err: str | None
    before: dict[Pubkey, Account | None]
    after: dict[Pubkey, Account | None]
    keys: list[Pubkey]


class _Apart:
    """The machine in a thread of its own. After it had run in a test's thread, the next query of SQLite there lost its
    first row: it probably leaves the thread's floating-point unit as no caller expects it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "litesvm")
        self._machine = self._thread.submit(lambda: LiteSVM().with_transaction_history(0)).result()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            return self._thread.submit(getattr(self._machine, name), *arguments).result()

        return call


class SolanaNode:
    """Owner of the machine. ``height`` is both slot and block height: no slot is skipped here."""

    def __init__(self) -> None:
        # Without its history the machine lets a transaction that was rolled back happen again; who sends one twice is
        # answered here.
        self.svm = _Apart()
        self.height = 1_000
        self.first = 1
        self.landed: dict[str, Landed] = {}
        self.blockhashes: dict[str, int] = {}
        self._runner: web.AppRunner | None = None
        self.url = ""

    # ---- what a test does

    def advance(self, blocks: int) -> None:
        """More blocks; after 150 the blockhash is forgotten."""
        self.height += blocks
        if blocks > BLOCKHASH_BLOCKS:
            self.svm.expire_blockhash()

    def roll_back(self, signature: str) -> None:
        """The cluster gives up the block of a transaction."""
        lost = self.landed.pop(signature)
        for key, account in lost.before.items():
            self.svm.set_account(key, account or Account(0, b"", SYSTEM_PROGRAM))

    def send(self, instructions: list[Any], payer: Keypair, *others: Keypair) -> str:
        """Somebody's transaction, which may fail. Its signature."""
        hash_ = self.svm.latest_blockhash()
        transaction = Transaction([payer, *others], Message(instructions, payer.pubkey()), hash_)
        self._execute(VersionedTransaction.from_bytes(bytes(transaction)))
        return str(transaction.signatures[0])

    def wallet(self, lamports: int = 100 * SOL) -> Keypair:
        """A fresh one with SOL."""
        keypair = Keypair()
        if lamports:
            self.svm.airdrop(keypair.pubkey(), lamports)
        return keypair

    def mint(self, authority: Keypair, decimals: int = 9, program: Pubkey = TOKEN_PROGRAM) -> Pubkey:
        """A token whose supply ``authority`` makes."""
        mint = Keypair()
        rent = self.svm.minimum_balance_for_rent_exemption(82)
        made = CreateAccountParams(
            from_pubkey=authority.pubkey(), to_pubkey=mint.pubkey(), lamports=rent, space=82, owner=program
        )
        initialize = bytes([20, decimals]) + bytes(authority.pubkey()) + bytes([0])
        signature = self.send(
            [create_account(made), _instruction(program, initialize, (mint.pubkey(), False, True))], authority, mint
        )
        assert self.landed[signature].err is None
        return mint.pubkey()

    def tokens(self, account: Pubkey) -> int:
        """How many atoms of its token are in a token account; none if there is no such account."""
        found = self.svm.get_account(account)
        return 0 if found is None or not found.data else TokenAccount.from_bytes(bytes(found.data)).amount

    # ---- what it answers

    async def start(self) -> None:
        """Listen on a free port of this machine."""
        app = web.Application()
        app.router.add_post("/", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close the port."""
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        question = await request.json()
        try:
            result = getattr(self, _name(question["method"]))(*question["params"])
        except _Refused as error:
            return web.json_response({"jsonrpc": "2.0", "id": 1, "error": {"code": -32002, "message": str(error)}})
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": result})

    def get_genesis_hash(self) -> str:
        return "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"

    def get_block_height(self, options: dict[str, Any]) -> int:
        return max(self.height - FINAL_AFTER, 0) if options["commitment"] == "finalized" else self.height

    def get_first_available_block(self) -> int:
        return self.first

    def get_block(self, slot: int, _options: dict[str, Any]) -> dict[str, Any]:
        return {"blockHeight": slot}

    def get_account_info(self, address: str, _options: dict[str, Any]) -> dict[str, Any]:
        found = self.svm.get_account(Pubkey.from_string(address))
        if found is None or found.lamports == 0:
            return {"value": None}
        data = [base64.b64encode(bytes(found.data)).decode(), "base64"]
        return {"value": {"owner": str(found.owner), "data": data, "executable": found.executable}}

    def get_latest_blockhash(self, _options: dict[str, Any]) -> dict[str, Any]:
        value = {"blockhash": str(self.svm.latest_blockhash()), "lastValidBlockHeight": self.height + BLOCKHASH_BLOCKS}
        return {"value": value}

    def simulate_transaction(self, raw: str, _options: dict[str, Any]) -> dict[str, Any]:
        result = self.svm.simulate_transaction(VersionedTransaction.from_bytes(base64.b64decode(raw)))
        err = str(result.err()) if isinstance(result, FailedTransactionMetadata) else None
        return {"value": {"err": err, "logs": result.meta().logs()}}

    def send_transaction(self, raw: str, _options: dict[str, Any]) -> str:
        transaction = VersionedTransaction.from_bytes(base64.b64decode(raw))
        signature = str(transaction.signatures[0])
        if signature not in self.landed:
            self._execute(transaction)
        return signature

    def get_signature_statuses(self, signatures: list[str], options: dict[str, Any]) -> dict[str, Any]:
        assert options["searchTransactionHistory"]
        return {"value": [self._status(signature) for signature in signatures]}

    def get_transaction(self, signature: str, options: dict[str, Any]) -> dict[str, Any] | None:
        found = self.landed.get(signature)
        if found is None or (options["commitment"] == "finalized" and self.height - found.slot < FINAL_AFTER):
            return None
        return {
            "slot": found.slot,
            "transaction": {"message": {"accountKeys": [str(key) for key in found.keys]}},
            "meta": {
                "err": found.err,
                "preTokenBalances": _balances(found.keys, found.before),
                "postTokenBalances": _balances(found.keys, found.after),
                "loadedAddresses": {"writable": [], "readonly": []},
            },
        }

    def _status(self, signature: str) -> dict[str, Any] | None:
        found = self.landed.get(signature)
        if found is None:
            return None
        on_top = self.height - found.slot
        final = on_top >= FINAL_AFTER
        level = "finalized" if final else "confirmed" if on_top else "processed"
        confirmations = None if final else on_top
        return {"slot": found.slot, "confirmations": confirmations, "err": found.err, "confirmationStatus": level}

    def _execute(self, transaction: VersionedTransaction) -> None:
        keys = list(transaction.message.account_keys)
        before = {key: self.svm.get_account(key) for key in keys}
        result = self.svm.send_transaction(transaction)
        err = str(result.err()) if isinstance(result, FailedTransactionMetadata) else None
        if err is not None and "InstructionError" not in err:
            raise _Refused(f"Transaction simulation failed: {err}")
        after = {key: self.svm.get_account(key) for key in keys}
        self.landed[str(transaction.signatures[0])] = Landed(self.height, err, before, after, keys)


def _name(method: str) -> str:
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", method)


class _Refused(Exception):
    """The cluster does not take it at all."""


def _instruction(program: Pubkey, data: bytes, *accounts: tuple[Pubkey, bool, bool]) -> Any:
    return Instruction(program, data, [AccountMeta(*one) for one in accounts])


def _balances(keys: list[Pubkey], accounts: dict[Pubkey, Account | None]) -> list[dict[str, Any]]:
    found = []
    for index, key in enumerate(keys):
        account = accounts[key]
        if account is not None and account.owner == TOKEN_PROGRAM and len(account.data) == 165:
            token = TokenAccount.from_bytes(bytes(account.data))
            amount = {"amount": str(token.amount)}
            found.append(
                {"accountIndex": index, "mint": str(token.mint), "owner": str(token.owner), "uiTokenAmount": amount}
            )
    return found


def create_ata(payer: Pubkey, owner: Pubkey, mint: Pubkey) -> Any:
    """Make the associated account of ``owner``, if it is not there."""
    account = get_associated_token_address(owner, mint)
    return _instruction(
        ASSOCIATED_PROGRAM,
        bytes([1]),
        (payer, True, True),
        (account, False, True),
        (owner, False, False),
        (mint, False, False),
        (SYSTEM_PROGRAM, False, False),
        (TOKEN_PROGRAM, False, False),
    )


def mint_to(mint: Pubkey, account: Pubkey, authority: Pubkey, atoms: int) -> Any:
    """Make ``atoms`` of the token."""
    data = bytes([7]) + atoms.to_bytes(8, "little")
    return _instruction(TOKEN_PROGRAM, data, (mint, False, True), (account, False, True), (authority, True, False))


def transfer(source: Pubkey, account: Pubkey, owner: Pubkey, atoms: int) -> Any:
    """The plain transfer of old wallets."""
    data = bytes([3]) + atoms.to_bytes(8, "little")
    return _instruction(TOKEN_PROGRAM, data, (source, False, True), (account, False, True), (owner, True, False))
