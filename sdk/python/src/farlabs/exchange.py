"""What is sent, waited for and asked again: decided here for both clients, done by each in its own way.

A plan is a generator. It yields steps (:data:`Step`), is given what came of each, and returns its result. It touches no
network, no clock and no wallet; :mod:`.client` and :mod:`.aio` drive it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import BaseModel, TypeAdapter, ValidationError

from farlabs.claims import UnsignedClaim, claim_data
from farlabs.errors import (
    CAN_RETRY,
    AuthenticationError,
    ConnectionError,
    FarLabsError,
    error_of,
)
from farlabs.json_text import parsed
from farlabs.models import BalanceAnswer, ChannelState, LoginAnswer, NonceAnswer, QuoteAnswer, VoucherEvent
from farlabs.parameters import ClaimRequest
from farlabs.signing import EscrowDomain, Signer, TypedData, Voucher, check_sign_in, due, voucher_data

_RENEW_BEFORE = timedelta(seconds=60)
_FIRST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 30.0

_API_KEY = re.compile(r"[!-~]+\Z")

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Plan = Generator["Step", Any, T]
Query = Mapping[str, "str | int | float | bool | None"]


# ---- what a client knows


@dataclass(frozen=True)
class Session:
    """A bearer token and how long it counts."""

    token: str = field(repr=False)
    expires_at: datetime
    wallet_address: str


@dataclass(frozen=True)
class Settings:
    """How a client asks. ``url`` has no slash at its end; ``timeout`` is in seconds."""

    url: str
    timeout: float
    max_retries: int
    sign_in_domain: str | None


class Credentials:
    """Who asks. The one place that keeps the token. A session of another wallet than the signer's is not used.

    Raises:
        FarLabsError: ``invalid_key``.
    """

    def __init__(
        self,
        api_key: str | None,
        signer: Signer | None,
        session: Session | None,
        on_session: Callable[[Session | None], None] | None,
    ) -> None:
        if api_key is not None and not _API_KEY.match(api_key):
            raise FarLabsError("this is no API key: they are letters, digits and dashes", code="invalid_key")
        is_others = (
            session is not None and signer is not None and session.wallet_address.lower() != signer.address.lower()
        )
        self.api_key, self.signer, self.session = api_key, signer, None if is_others else session
        self._on_session = on_session

    @property
    def can_renew(self) -> bool:
        """Whether a token that was refused can be replaced."""
        return self.api_key is None and self.signer is not None

    def fresh(self, refused: str | None) -> Session | None:
        """A session to ask with, or None when one has to sign in first. ``refused``: the token that counts no more.

        Raises:
            AuthenticationError: ``no_credential``.
        """
        session = self.session
        if session is not None and session.token != refused:
            is_fresh = session.expires_at - datetime.now(timezone.utc) > _RENEW_BEFORE
            if is_fresh or self.signer is None:  # without a wallet: until the gateway says that it counts no more
                return session
        if self.signer is None:
            raise AuthenticationError(
                "this needs an API key or a wallet: give api_key, private_key or signer", code="no_credential"
            )
        return None

    def forget(self, token: str) -> None:
        """It counts no more."""
        if self.session is not None and self.session.token == token:
            self.use(None)

    def use(self, session: Session | None) -> None:
        """From now on."""
        self.session = session
        if self._on_session is not None:
            self._on_session(session)


# ---- what is asked


@dataclass(frozen=True)
class Reply:
    """An answer of the gateway's. Names of ``headers`` are in lower case. ``stream`` is what the client reads a stream
    from, if that was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    stream: Any = None

    @property
    def request_id(self) -> str | None:
        """The request's name at the gateway."""
        return self.headers.get("x-far-request-id") or self.headers.get("x-request-id")

    def json(self) -> object:
        """The body, or None where it is no JSON."""
        return parsed(self.body)


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its answer is read.

    ``is_public``: nobody needs to know who asks. ``token``: what proves who asks, in place of the client's own.
    ``key``: the name under which the gateway charges it once, however often it arrives; True for a new one.
    ``is_repeatable``: it comes to the same if it arrives twice, though it is a POST. ``also``: statuses that are
    answers and no failures.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    read: Callable[[Reply], T]
    query: Query = field(default_factory=dict)
    body: object = None
    is_public: bool = False
    token: str | None = field(default=None, repr=False)
    key: str | Literal[True] | None = None
    is_repeatable: bool = False
    is_stream: bool = False
    accept: str = "application/json"
    also: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Limits:
    """How long and how often, for one call; None: as the client does."""

    timeout: float | None = None
    max_retries: int | None = None


# ---- steps


@dataclass(frozen=True)
class Send:
    """Send this; gives a :class:`Reply`, raises ConnectionError or TimeoutError."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None
    timeout: float
    is_stream: bool


@dataclass(frozen=True)
class Pause:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class NeedToken:
    """Gives a token to ask with: the one there is, unless it is ``refused`` or about to end, or a new one."""

    refused: str | None


@dataclass(frozen=True)
class SignMessage:
    """Gives the wallet's signature of a text."""

    message: str


@dataclass(frozen=True)
class SignTypedData:
    """Gives a wallet's signature of typed data; None: the client's own."""

    data: TypedData
    signer: Signer | None


Step = Send | Pause | NeedToken | SignMessage | SignTypedData


# ---- plans


def exchange(call: Call[T], settings: Settings, credentials: Credentials, limits: Limits) -> Plan[Reply]:
    """One answer that is none of failure.

    Asked again is what was certainly not begun (429, 503 and the like, as ``Retry-After`` says), and what got no answer
    where it can be named by an idempotency key or comes to the same twice. Never a stream whose answer had begun.
    """
    timeout = settings.timeout if limits.timeout is None else limits.timeout
    tries = 1 + (settings.max_retries if limits.max_retries is None else limits.max_retries)
    key = _new_key() if call.key is True else call.key
    is_repeatable = call.is_repeatable or call.method != "POST" or key is not None
    content = None if call.body is None else _json_of(call.body)
    refused: str | None = None
    attempt = 1
    while True:
        headers = {"accept": "text/event-stream" if call.is_stream else call.accept}
        token = call.token
        if token is None and not call.is_public:
            token = yield NeedToken(refused)
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if key is not None:
            headers["idempotency-key"] = key
        if content is not None:
            headers["content-type"] = "application/json"
        url = url_of(settings.url, call.path, call.query)
        try:
            reply: Reply = yield Send(call.method, url, headers, content, timeout, call.is_stream)
        except ConnectionError as lost:
            if not is_repeatable:
                raise
            error: FarLabsError = lost
        else:
            if 200 <= reply.status < 300 or reply.status in call.also:
                return reply
            error = _refusal(url, reply)
            if call.key is True and _is_ours(reply):
                key = _new_key()  # under the old one nothing runs, and nothing can
            if isinstance(error, AuthenticationError) and call.token is None and token is not None:
                if refused is None and credentials.can_renew:
                    refused = token  # once: a fresh token that is refused stays refused
                    continue
                credentials.forget(token)
        can_help = isinstance(error, ConnectionError) or (error.status in CAN_RETRY and error.code != "request_timeout")
        wait = _FIRST_WAIT_SECONDS * 2 ** (attempt - 1) if error.retry_after is None else error.retry_after
        if not can_help or attempt >= tries or wait > _LONGEST_WAIT_SECONDS:
            raise error  # whoever asked decides whether to wait for so long
        yield Pause(wait)
        attempt += 1


def _refusal(url: str, reply: Reply) -> FarLabsError:
    if 300 <= reply.status < 400:
        to = reply.headers.get("location")
        message = f"{url} sends elsewhere{f', to {to}' if to else ''}: give the gateway's own address"
        return FarLabsError(message, code="redirected", status=reply.status)
    return error_of(reply.status, reply.json(), retry_after=retry_after_of(reply.headers), request_id=reply.request_id)


def _is_ours(reply: Reply) -> bool:
    """Whether it was a gateway that refused, or somebody on the way to it."""
    told = reply.json()
    return isinstance(told, dict) and isinstance(told.get("error"), dict)


def _new_key() -> str:
    return uuid.uuid4().hex


def _json_of(body: object) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as wrong:
        raise FarLabsError(f"this cannot be written as JSON: {wrong}", code="invalid_argument") from None


def ask(call: Call[T], settings: Settings, credentials: Credentials, limits: Limits) -> Plan[T]:
    """What is read from the answer."""
    return call.read((yield from exchange(call, settings, credentials, limits)))


def sign_in(settings: Settings, credentials: Credentials, limits: Limits) -> Plan[Session]:
    """Sign in with the wallet (EIP-4361, https://eips.ethereum.org/EIPS/eip-4361): the gateway writes the message, the
    wallet signs it.

    Raises:
        AuthenticationError: no wallet, the gateway wants something else signed, or does not take the signature.
    """
    if credentials.signer is None:
        raise AuthenticationError("to sign in takes a wallet: give private_key or signer", code="no_signer")
    wallet = credentials.signer.address
    nonce: Call[NonceAnswer] = Call(
        "POST",
        "/api/auth/nonce",
        reading(NonceAnswer),
        body={"wallet_address": wallet},
        is_public=True,
        is_repeatable=True,
    )
    offer = yield from ask(nonce, settings, credentials, limits)
    message = check_sign_in(offer.message, wallet, settings.url, settings.sign_in_domain)
    signature = yield SignMessage(message)
    signed = {"wallet_address": wallet, "message": message, "signature": signature}
    login: Call[LoginAnswer] = Call("POST", "/api/auth/login", reading(LoginAnswer), body=signed, is_public=True)
    answer = yield from ask(login, settings, credentials, limits)
    session = Session(answer.token, answer.expires_at, answer.wallet_address)
    credentials.use(session)
    return session


def sign(data: TypedData, signer: Signer | None) -> Plan[str]:
    """A signature of typed data, by this wallet."""
    signature: str = yield SignTypedData(data, signer)
    return signature


def sign_voucher(domain: EscrowDomain, channel_id: str, units: int, signer: Signer | None) -> Plan[Voucher]:
    """Promise so many units in all over a channel."""
    data = voucher_data(domain, channel_id, units)
    signature = yield from sign(data, signer)
    return Voucher(channel_id, int(data.message["maxClaimableAmount"]), signature)


def sign_claim(claim: UnsignedClaim, signer: Signer | None) -> Plan[ClaimRequest]:
    """The whole claim.

    Raises:
        FarLabsError: ``wrong_wallet``; it is for another.
    """
    if signer is not None and signer.address.lower() != claim["wallet_address"].lower():
        raise FarLabsError(f"the claim is for {claim['wallet_address']}: change to that wallet", code="wrong_wallet")
    signature = yield from sign(claim_data(claim), signer)
    return {**claim, "signature": signature}


def send_voucher(voucher: Voucher) -> Call[ChannelState]:
    """Hand a voucher in."""
    path = f"/api/channels/{quote(voucher.channel_id, safe='')}/vouchers"
    return Call("POST", path, reading(ChannelState), body=voucher.document(), is_repeatable=True)


def escrow_domain(settings: Settings, credentials: Credentials, limits: Limits) -> Plan[EscrowDomain]:
    """The escrow of the marketplace.

    Raises:
        FarLabsError: ``no_escrow``.
    """
    balance: Call[BalanceAnswer] = Call("GET", "/api/account/balance", reading(BalanceAnswer))
    told = yield from ask(balance, settings, credentials, limits)
    if told.escrow_address is None:
        raise FarLabsError("this marketplace has no channels", code="no_escrow")
    return EscrowDomain(told.chain_id, told.escrow_address)


@dataclass(frozen=True)
class Terms:
    """How an answer is paid over a channel."""

    quote: QuoteAnswer
    signer: Signer | None
    step_units: int | None
    max_units: int | None


@dataclass(frozen=True)
class Account:
    """Which escrow vouchers are for, and what other answers have cost over the channel."""

    domain: EscrowDomain
    charged_units: int


def open_account(channel_id: str, settings: Settings, credentials: Credentials) -> Plan[Account]:
    """What the gateway says was charged, as far as it was signed for."""
    domain = yield from escrow_domain(settings, credentials, Limits())
    path = f"/api/channels/{quote(channel_id, safe='')}"
    channel: Call[ChannelState] = Call("GET", path, reading(ChannelState))
    told = yield from ask(channel, settings, credentials, Limits())
    return Account(domain, min(told.captured_units, told.promised_units))


def pay(
    needed: VoucherEvent,
    tokens: int,
    terms: Terms,
    account: Account | None,
    settings: Settings,
    credentials: Credentials,
) -> Plan[Account]:
    """Sign and send what a stream waits for; gives the account, for the next time.

    Raises:
        FarLabsError: ``voucher_limit``, ``no_signer``, ``no_escrow``, ``cannot_sign``.
    """
    known = account or (yield from open_account(needed.channel_id, settings, credentials))
    promise = due(terms.quote, needed, tokens, known.charged_units, terms.step_units, terms.max_units)
    voucher = yield from sign_voucher(known.domain, needed.channel_id, promise, terms.signer)
    try:
        yield from ask(send_voucher(voucher), settings, credentials, Limits())
    except FarLabsError as error:
        # As much was promised before, for another answer.
        if error.code != "voucher_stale":
            raise
    return known


# ---- reading


def reading(kind: type[M]) -> Callable[[Reply], M]:
    """Reads a body as a shape.

    Raises:
        FarLabsError: ``not_understood``; it is another.
    """

    def read(reply: Reply) -> M:
        try:
            return kind.model_validate_json(reply.body)
        except ValidationError:
            raise not_understood(reply) from None

    return read


def reading_any(adapter: TypeAdapter[T]) -> Callable[[Reply], T]:
    """Reads a body as one of several shapes."""

    def read(reply: Reply) -> T:
        try:
            return adapter.validate_json(reply.body)
        except ValidationError:
            raise not_understood(reply) from None

    return read


def nothing(_: Reply) -> None:
    """There is nothing to read."""


def text_of(reply: Reply) -> str:
    """The body as it is."""
    return reply.body.decode(errors="replace")


def not_understood(reply: Reply) -> FarLabsError:
    """It is no answer of a gateway's. What it says is not told: it may be private."""
    return FarLabsError(
        "this is no answer of a gateway: is the address right?", code="not_understood", request_id=reply.request_id
    )


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds after which asking again can help: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date
    (RFC 9110, 10.2.3)."""
    exact, after = headers.get("retry-after-ms"), headers.get("retry-after", "")
    try:
        seconds = float(after) if exact is None else float(exact) / 1000
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(after) - datetime.now(timezone.utc)).total_seconds()
        except (TypeError, ValueError):
            return None
    return seconds if 0 < seconds < float("inf") else None


def base_of(url: str) -> str:
    """The URL of a gateway without a slash at its end.

    Raises:
        FarLabsError: ``invalid_url``.
    """
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or parts.query or parts.fragment or "@" in parts.netloc:  # what may be secret is not repeated
        raise FarLabsError(
            "this is not the URL of a gateway: write http:// or https:// and its host", code="invalid_url"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def url_of(base: str, path: str, query: Query) -> str:
    """Where to ask. What is None is left out."""
    words = {True: "true", False: "false"}
    given = {name: words.get(value, value) if isinstance(value, bool) else value for name, value in query.items()}
    search = urlencode({name: value for name, value in given.items() if value is not None})
    return f"{base}{path}?{search}" if search else base + path
