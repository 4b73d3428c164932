"""A marketplace's gateway, asked by the wallet that it pays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from discovery.protocol.errors import FarError, InvalidArgument, error_from_wire
from discovery.protocol.registration import HEADER
from far_node.rewards.answers import (
    Answer,
    BatchLine,
    BatchPage,
    Claim,
    Claimed,
    ClaimsPage,
    HistoryPage,
    Line,
    OnSale,
    OnSaleList,
    Registered,
    Rewards,
    SignedIn,
    SignInOffer,
    TransferTo,
)
from far_node.rewards.errors import GatewayUnavailable, GatewayUnintelligible
from far_node.rewards.wallet import WalletKey

TIMEOUT_SECONDS = 30.0
MAX_ANSWER_BYTES = 16 << 20
PAGE = 200

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z"

AnswerT = TypeVar("AnswerT", bound=Answer)


class Gateway:
    """A connection to a gateway. ``domain`` is the one that its sign-in message must name; by default that of ``url``,
    as in a browser (EIP-4361)."""

    def __init__(self, url: str, domain: str | None = None) -> None:
        """Raises :class:`InvalidArgument` for what is no address of a gateway."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidArgument(f"{url!r} is not the address of a gateway, such as https://far.example")
        self.url = url.rstrip("/")
        self._domain = domain or parts.netloc.rpartition("@")[2]
        self._http = httpx.Client(base_url=self.url, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._http.close()

    def sign_in(self, key: WalletKey) -> None:
        """Prove that the wallet is ours. Only a signature of the message leaves this machine.

        Raises:
            GatewayUnavailable, GatewayUnintelligible: no answer, or one that means nothing.
            FarError: the gateway refuses, in its own words.
        """
        offer = self._get("/api/auth/nonce", SignInOffer, wallet_address=key.wallet)
        check_message(offer.message, self._domain, key.wallet)
        login = {"wallet_address": key.wallet, "message": offer.message, "signature": key.sign_text(offer.message)}
        token = self._ask("POST", "/api/auth/login", SignedIn, json=login).token
        self._http.headers["authorization"] = f"Bearer {token}"

    def use_key(self, api_key: str) -> None:
        """Ask with an API key of the scope ``provider``, which can see everything and take out nothing."""
        self._http.headers["authorization"] = f"Bearer {api_key}"

    def rewards(self, days: int) -> Rewards:
        """All of the wallet's money. Raises as :meth:`sign_in`."""
        return self._get("/api/provider/rewards", Rewards, days=days)

    def history(self, *, receipts: bool = False) -> Iterator[Line]:
        """What the wallet's nodes did, newest first, as long as one asks for more. Raises as :meth:`sign_in`."""
        page = self._get("/api/provider/history", HistoryPage, limit=PAGE, receipts=receipts)
        yield from page.lines
        while page.next_cursor is not None:
            more = {"limit": PAGE, "receipts": receipts, "cursor": page.next_cursor}
            page = self._get("/api/provider/history", HistoryPage, **more)
            yield from page.lines

    def batch(self, number: int) -> tuple[BatchPage, list[BatchLine]]:
        """A batch, and all of the wallet's lines in it. Raises as :meth:`sign_in`."""
        path = f"/api/provider/batches/{number}"
        first = page = self._get(path, BatchPage, limit=PAGE)
        lines = list(page.lines)
        while page.next_cursor is not None:
            page = self._get(path, BatchPage, limit=PAGE, cursor=page.next_cursor)
            lines += page.lines
        return first, lines

    def claims(self) -> tuple[ClaimsPage, list[Claim]]:
        """The payout roots in which the wallet is, newest first. Raises as :meth:`sign_in`."""
        first = page = self._get("/api/provider/claims", ClaimsPage)
        claims = list(page.claims)
        while page.next_cursor is not None:
            page = self._get("/api/provider/claims", ClaimsPage, cursor=page.next_cursor)
            claims += page.claims
        return first, claims

    def payout_address(self) -> TransferTo:
        """Where the wallet is paid by transfer. Raises as :meth:`sign_in`."""
        return self._get("/api/provider/payout-address", TransferTo)

    def change_payout_address(self, address: str) -> TransferTo:
        """Say where the wallet is to be paid. Raises as :meth:`sign_in`."""
        return self._ask("PUT", "/api/provider/payout-address", TransferTo, json={"address": address})

    def uri(self, wallet: str) -> str:
        """What it calls itself, which signatures for it have to name: nothing else than the address it was asked at, or
        that of --domain. Raises as :meth:`sign_in`."""
        return self.place(wallet)[0]

    def place(self, wallet: str) -> tuple[str, int]:
        """Its :meth:`uri` and the id of its chain, both of which typed data for it has to name."""
        offer = self._get("/api/auth/nonce", SignInOffer, wallet_address=wallet)
        uri = check_message(offer.message, self._domain, wallet)
        return uri, int(offer.message.partition("\nChain ID: ")[2].partition("\n")[0])

    def register(self, body: bytes, signature: str) -> Registered:
        """Say what a node runs on, signed by the node. Raises as :meth:`sign_in`."""
        headers = {"content-type": "application/json", HEADER: signature}
        return self._ask("POST", "/api/nodes/register-distributed", Registered, content=body, headers=headers)

    def on_sale(self) -> list[OnSale]:
        """The models that are sold there, with prices and demand. Raises as :meth:`sign_in`."""
        return self._get("/api/inference/models", OnSaleList).models

    def claim(self, body: dict[str, Any]) -> Claimed:
        """Say that a node earns for a wallet, signed by both. Raises as :meth:`sign_in`."""
        return self._ask("POST", "/api/provider/nodes", Claimed, json=body)

    def _get(self, path: str, kind: type[AnswerT], **query: Any) -> AnswerT:
        return self._ask("GET", path, kind, params=query)

    def _ask(self, method: str, path: str, kind: type[AnswerT], **more: Any) -> AnswerT:
        status, body = self._answer(method, path, **more)
        if status != 200:
            raise _refusal(self.url, status, body)
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise GatewayUnintelligible(f"what {self.url} answers is not understood: {where}: {first['msg']}") from None

    def _answer(self, method: str, path: str, **more: Any) -> tuple[int, bytes]:
        try:
            with self._http.stream(method, path, **more) as answer:
                body = bytearray()
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise GatewayUnintelligible(f"{self.url} answers with more than {MAX_ANSWER_BYTES} bytes")
                return answer.status_code, bytes(body)
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise GatewayUnavailable(f"the gateway at {self.url} does not answer: {why}", retry_after=5.0) from None


def check_message(message: str, domain: str, wallet: str) -> str:
    """See that this is a sign-in message (EIP-4361) for ``wallet`` at ``domain`` and nothing else. The URI in it.

    A gateway that hands out the message of another place could sign in there as us.

    Raises:
        GatewayUnintelligible: it is not.
    """
    found = re.fullmatch(
        r"(?P<domain>[^\s]{1,255}) wants you to sign in with your Ethereum account:\n"
        rf"{wallet}\n\n(?:[\x20-\x7e]{{1,1024}}\n)?\n"
        r"URI: (?P<uri>[a-z]+://(?P<host>[^\s/?#]{1,255})[^\s]{0,1800})\n"
        r"Version: 1\nChain ID: [1-9]\d{0,17}\nNonce: [A-Za-z0-9]{8,64}\n"
        rf"Issued At: {_TIME}\nExpiration Time: {_TIME}",
        message,
    )
    if found is None:
        raise GatewayUnintelligible("what the gateway wants to have signed is no sign-in message for this wallet")
    if found["domain"] != domain or found["host"] != domain:
        raise GatewayUnintelligible(
            f"the gateway signs in for {found['domain']}, and was asked as {domain}: pass --domain "
            f"{found['domain']} if that is where it belongs"
        )
    return found["uri"]


def _refusal(url: str, status: int, body: bytes) -> FarError:
    """What the gateway refuses, in its own words."""
    try:
        error = _ErrorBody.model_validate_json(body).error
    except ValidationError:
        return GatewayUnintelligible(f"{url} answers with status {status}, and not as a gateway of Far Mesh")
    return error_from_wire(error.code, error.message)


class _ErrorFacts(Answer):
    message: str
    code: str


class _ErrorBody(Answer):
    error: _ErrorFacts
