"""A user of the marketplace, over HTTP and with a wallet: what an app developer's program would do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct

from discovery.protocol.errors import DeadlineExceeded, FarError, PeerUnavailable, error_from_wire
from far_mesh.marketplace.chain.client import Chain
from far_mesh.marketplace.chain.wallet import ChainWallet

CREDIT_SECONDS = 30.0
SETTLEMENT_SECONDS = 60.0
_POLL_SECONDS = 0.1
_UNSETTLED = ("waiting", "in_batch")


@dataclass(frozen=True)
class Told:
    """A story as it was streamed: the last event of the stream, and times on this side of the wire."""

    text: str
    done: dict[str, Any]
    time_to_first_token_s: float
    seconds: float


class DemoUser:
    """Signs in, pays in, asks, and reads what became of the money."""

    def __init__(self, gateway_url: str, private_key: str, http: httpx.AsyncClient) -> None:
        self._key, self._http = private_key, http
        self._base = gateway_url
        self.address = str(Account.from_key(private_key).address)
        self.token = ""

    async def log_in(self) -> None:
        """Ask with a token from now on."""
        self.token = await self.new_token()

    async def new_token(self) -> str:
        """Nonce, EIP-4361 message, signature, bearer token."""
        challenge = await self._call("POST", "/api/auth/nonce", {"wallet_address": self.address})
        signature = Account.sign_message(encode_defunct(text=challenge["message"]), self._key).signature.to_0x_hex()
        answer = await self._call(
            "POST",
            "/api/auth/login",
            {"wallet_address": self.address, "message": challenge["message"], "signature": signature},
        )
        return str(answer["token"])

    async def pay_in(self, chain: Chain, bank: ChainWallet, units: int) -> int:
        """Deposit ``units`` on chain, allow the marketplace to spend them, wait until it has seen them. The balance."""
        before = await self.balance()
        mine = ChainWallet(chain, self._key)
        await bank.transfer(self.address, units)
        await mine.deposit(units)
        await mine.allow_spending(before + units)
        return await self._until(lambda balance: balance >= before + units)

    async def balance(self) -> int:
        """Units that can be spent."""
        return int((await self._call("GET", "/api/account/balance"))["available_units"])

    async def ask(self, model_id: str, prompt: str, max_tokens: int, show: Callable[[str], None]) -> Told:
        """Stream an answer; ``show`` gets each piece of text."""
        started, first = time.monotonic(), 0.0
        pieces: list[str] = []
        body = {"model_id": model_id, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True}
        async for event in self._events("/api/inference/distributed/generate", body):
            if "error" in event:
                raise _error(event["error"])
            if event.get("done"):
                return Told("".join(pieces), event, first, time.monotonic() - started)
            first = first or time.monotonic() - started
            pieces.append(event["token"])
            show(event["token"])
        raise DeadlineExceeded("the stream ended before the answer did")

    async def settled(self, request_id: str) -> dict[str, Any]:
        """The request once a batch has charged it on chain and paid those who worked on it."""
        deadline = time.monotonic() + SETTLEMENT_SECONDS
        while time.monotonic() < deadline:
            state = await self._call("GET", f"/api/inference/requests/{request_id}")
            if state["settlement"]["status"] not in _UNSETTLED:
                return state
            await asyncio.sleep(_POLL_SECONDS)
        raise DeadlineExceeded(f"{request_id} was not settled in {SETTLEMENT_SECONDS:.0f} s")

    async def _until(self, enough: Callable[[int], bool]) -> int:
        deadline = time.monotonic() + CREDIT_SECONDS
        while time.monotonic() < deadline:
            if enough(balance := await self.balance()):
                return balance
            await asyncio.sleep(_POLL_SECONDS)
        raise DeadlineExceeded(f"the gateway did not see the deposit in {CREDIT_SECONDS:.0f} s")

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = await self._http.request(method, self._base + path, json=body, headers=self._headers())
        except httpx.HTTPError as error:
            raise _unreachable(error) from None
        answer: dict[str, Any] = response.json()
        if response.is_error:
            raise _error(answer["error"])
        return answer

    async def _events(self, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        try:
            async with self._http.stream("POST", self._base + path, json=body, headers=self._headers()) as response:
                if response.is_error:
                    raise _error(json.loads(await response.aread())["error"])
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        yield json.loads(line.removeprefix("data:"))
        except httpx.HTTPError as error:
            raise _unreachable(error) from None

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def _unreachable(error: httpx.HTTPError) -> PeerUnavailable:
    return PeerUnavailable(f"the gateway does not answer ({type(error).__name__})")


def _error(said: dict[str, Any]) -> FarError:
    return error_from_wire(str(said["code"]), str(said["message"]))
