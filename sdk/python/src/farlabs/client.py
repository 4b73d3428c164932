"""The client for threads.

Written by tools/generate_client.py: change aio.py, not this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime
from types import TracebackType
from typing import Any, TypeVar

import httpx
from typing_extensions import Self, Unpack

from farlabs import calls
from farlabs import models as m
from farlabs.claims import UnsignedClaim
from farlabs.errors import FarLabsError, TimeoutError
from farlabs.exchange import (
    Account,
    Call,
    Credentials,
    Limits,
    NeedToken,
    Pause,
    Plan,
    Reply,
    Send,
    Session,
    Settings,
    SignMessage,
    Step,
    Terms,
    ask,
    base_of,
    escrow_domain,
    exchange,
    not_understood,
    pay,
    reading,
    send_voucher,
    sign_claim,
    sign_in,
    sign_voucher,
)
from farlabs.parameters import ClaimRequest, GenerateOptions, JobOptions, KeyLimits, Message, QuoteOptions
from farlabs.reading import Place, Reading
from farlabs.signing import EscrowDomain, Signer, Voucher
from farlabs.sse import EventParser
from farlabs.waiting import Flight, settled
from farlabs.wallet import PrivateKeySigner
from farlabs.wire import NO_LIMITS, Body, timeout_of, translated, translated_stream

DEFAULT_URL = "https://api.farlabs.ai"
_WAIT_SECONDS = 30.0
_ANSWER_SECONDS = 30.0
"""Time for the answer itself, after the wait for a job."""

T = TypeVar("T")
PayVoucher = Callable[[m.VoucherEvent, int], "None"]
"""Signs what a stream waits for, when it is paid by a channel; also given how many tokens have come so far."""
OnWait = Callable[[Place], "None"]
"""Told each time that the place of a request changes, which waits for its turn."""


class Door:
    """Does what plans say: with httpx, the clock and the wallet."""

    def __init__(self, settings: Settings, credentials: Credentials, http: httpx.Client) -> None:
        self.settings, self.credentials, self.http = settings, credentials, http
        self.flight: Flight[Session] = Flight()

    def with_settings(self, settings: Settings) -> Door:
        """The same wallet, token and connections, asked in another way."""
        other = Door(settings, self.credentials, self.http)
        other.flight = self.flight
        return other

    def ask(self, call: Call[T], limits: Limits | None = None) -> T:
        """Ask, and read the answer."""
        return self.run(ask(call, self.settings, self.credentials, limits or Limits()))

    def run(self, plan: Plan[T]) -> T:
        """Do a plan step by step."""
        given: Any = None
        failed: FarLabsError | None = None
        while True:
            try:
                step = plan.send(given) if failed is None else plan.throw(failed)
            except StopIteration as end:
                result: T = end.value
                return result
            given = failed = None
            try:
                given = self._do(step)
            except FarLabsError as error:
                failed = error

    def sign_in(self) -> Session:
        """Sign in, unless it is being done."""
        return self.flight.join(lambda: None, self._sign_in)

    def _sign_in(self) -> Session:
        return self.run(sign_in(self.settings, self.credentials, Limits()))

    def _do(self, step: Step) -> object:
        if isinstance(step, Send):
            return self._send(step)
        if isinstance(step, NeedToken):
            return self._token(step.refused)
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        signer = self.credentials.signer if isinstance(step, SignMessage) or step.signer is None else step.signer
        if signer is None:
            raise FarLabsError("this is signed by a wallet: give private_key or signer", code="no_signer")
        if isinstance(step, SignMessage):
            return settled(signer.sign_message(step.message))
        sign = getattr(signer, "sign_typed_data", None)
        if sign is None:
            raise FarLabsError("this is typed data, which this signer does not sign", code="cannot_sign")
        return settled(sign(step.data))

    def _token(self, refused: str | None) -> str:
        if self.credentials.api_key is not None:
            return self.credentials.api_key
        return (self.flight.join(lambda: self.credentials.fresh(refused), self._sign_in)).token

    def _send(self, step: Send) -> Reply:
        request = self.http.build_request(
            step.method, step.url, headers=dict(step.headers), content=step.content, timeout=timeout_of(step.timeout)
        )
        body = Body(step.timeout)
        with translated(step.timeout):
            response = self.http.send(request, stream=True, follow_redirects=False)
            headers = {name.lower(): value for name, value in response.headers.items()}
            if step.is_stream and response.is_success:
                return Reply(response.status_code, headers, b"", response)
            try:
                for chunk in response.iter_bytes():
                    body.push(chunk)
            finally:
                response.close()
        return Reply(response.status_code, headers, body.whole())


class Generation:
    """The text of an answer, piece by piece: ``for text in generation``.

    Leaving the loop hangs up, and what was generated until then is paid for. The bill comes last: :meth:`result`. As a
    context manager it hangs up for certain, also where somebody else keeps the iterator.
    """

    def __init__(
        self,
        begin: Callable[[], Reply],
        timeout: float,
        on_voucher: PayVoucher | None,
        on_wait: OnWait | None,
    ) -> None:
        self._begin, self._timeout, self._on_voucher, self._on_wait = begin, timeout, on_voucher, on_wait
        self._reading = Reading()
        self._open: httpx.Response | None = None

    @property
    def request_id(self) -> str | None:
        """The name of the request, once the answer has begun: ``request(id)`` tells what became of it."""
        return self._reading.request_id

    @property
    def text(self) -> str:
        """What came so far: of several answers, the first."""
        return self._reading.text

    @property
    def done(self) -> m.DoneEvent | None:
        """Usage, cost and who served it, once the answer has ended."""
        return self._reading.done

    def __iter__(self) -> Iterator[str]:
        """The text of the first answer. Raises as :meth:`events`."""
        return self._pieces()

    def _pieces(self) -> Generator[str, None, None]:
        with closing(self.events()) as events:
            for event in events:
                if event.token and not event.index:
                    yield event.token

    def events(self) -> Generator[m.TokenEvent, None, None]:
        """The pieces with all that is told of them: which of several answers, log probabilities, calls of tools.

        Raises:
            StreamError: the answer broke off or failed. FarLabsError: it was refused, or ``already_read``.
        """
        reading_ = self._reading
        reading_.begin()
        reply = self._begin()
        reading_.request_id = reply.request_id
        if reply.stream is None:
            for event in reading_.take_whole(reading(m.GenerateAnswer)(reply)):
                yield event
            return
        self._open = response = reply.stream
        try:
            if not reply.headers.get("content-type", "").startswith("text/event-stream"):
                raise not_understood(reply)
            parser = EventParser()
            with closing(self._chunks(response)) as chunks:
                for chunk in chunks:
                    try:
                        items = parser.push(chunk)
                    except OverflowError as error:
                        raise reading_.broken(str(error), "not_understood") from None
                    for item in items:
                        told = reading_.take(item)
                        if isinstance(told, m.TokenEvent):
                            yield told
                        elif isinstance(told, m.DoneEvent):
                            return
                        elif isinstance(told, m.VoucherEvent):
                            self._pay(told)
                        elif told is not None and self._on_wait is not None:
                            settled(self._on_wait(told))
            raise reading_.broken()
        finally:
            self._open = None
            response.close()

    def result(self) -> m.GenerateAnswer:
        """All of it: reads what was not read yet.

        Raises:
            StreamError: as :meth:`events`, and ``not_ended``: the loop was left before the end.
        """
        if not self._reading.is_begun:
            for _ in self.events():
                pass
        return self._reading.result()

    def close(self) -> None:
        """Hang up."""
        if self._open is not None:
            self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chunks(self, response: httpx.Response) -> Generator[bytes, None, None]:
        with translated_stream(self._timeout, self._reading.request_id):
            for chunk in response.iter_bytes():
                yield chunk

    def _pay(self, needed: m.VoucherEvent) -> None:
        if self._on_voucher is None:
            raise FarLabsError(
                "the answer waits for a voucher: give on_voucher, or pay by balance",
                code="voucher_needed",
                request_id=self._reading.request_id,
            )
        settled(self._on_voucher(needed, self._reading.tokens))


class FarLabsClient:
    """A client of one gateway.

    .. code-block:: python

        with FarLabsClient(api_key=os.environ["FAR_API_KEY"]) as client:
            for text in client.generate("far-demo", "Once upon a time"):
                print(text, end="", flush=True)

    Args:
        api_url: where the gateway is.
        wallet_address: of the wallet, if you want it to be compared with the key's.
        private_key: 0x and 64 hexadecimal digits; needs ``farlabs[wallet]``.
        api_key: a key made with :meth:`create_api_key`. Goes before a wallet.
        signer: any other wallet.
        session: a token from before. One of another wallet than the signer's is not used.
        on_session: told of each new token, and with None when there is none any more.
        timeout: seconds in which an answer has to begin, and in which something has to come in a stream.
        max_retries: how often a request that was not begun is asked again.
        sign_in_domain: the name under which the gateway signs people in, where it is not the host of ``api_url``.
        http_client: to use in place of one's own, which is then closed by whoever gave it.

    Raises:
        FarLabsError: ``invalid_url``, ``invalid_key``, ``cannot_sign``, ``wrong_wallet``.
    """

    def __init__(
        self,
        api_url: str = DEFAULT_URL,
        wallet_address: str | None = None,
        private_key: str | None = None,
        *,
        api_key: str | None = None,
        signer: Signer | None = None,
        session: Session | None = None,
        on_session: Callable[[Session | None], None] | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        sign_in_domain: str | None = None,
        http_client: httpx.Client | None = None,
    ) -> None:
        if private_key is not None:
            if signer is not None:
                raise FarLabsError("give private_key or signer, not both", code="invalid_argument")
            signer = PrivateKeySigner(private_key)
        if signer is not None and wallet_address is not None and signer.address.lower() != wallet_address.lower():
            raise FarLabsError(f"the key is that of {signer.address}, not of {wallet_address}", code="wrong_wallet")
        settings = Settings(base_of(api_url), timeout, max_retries, sign_in_domain)
        self._owns_http = http_client is None
        http = http_client or httpx.Client(limits=NO_LIMITS)
        self._door = Door(settings, Credentials(api_key, signer, session, on_session), http)

    def with_options(self, *, timeout: float | None = None, max_retries: int | None = None) -> Self:
        """The same client, more or less patient: ``client.with_options(timeout=5).balance()``."""
        settings = self._door.settings
        other = object.__new__(type(self))
        other._owns_http = False
        other._door = self._door.with_settings(
            replace(
                settings,
                timeout=settings.timeout if timeout is None else timeout,
                max_retries=settings.max_retries if max_retries is None else max_retries,
            )
        )
        return other

    @property
    def api_url(self) -> str:
        """Where it asks."""
        return self._door.settings.url

    @property
    def wallet_address(self) -> str | None:
        """Of the wallet, if there is one."""
        signer = self._door.credentials.signer
        return None if signer is None else signer.address

    @property
    def session(self) -> Session | None:
        """The token in use, to be kept for the next time."""
        return self._door.credentials.session

    def close(self) -> None:
        """Close what it has open."""
        if self._owns_http:
            self._door.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- generating

    def generate(
        self,
        model: str,
        prompt: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stream: bool = True,
        *,
        messages: Sequence[Message] | None = None,
        idempotency_key: str | None = None,
        on_voucher: PayVoucher | None = None,
        on_wait: OnWait | None = None,
        **more: Unpack[GenerateOptions],
    ) -> Generation:
        """Generate text. Nothing is asked before the answer is read.

        Args:
            stream: False: the answer comes in one piece.
            idempotency_key: the name of this request: under it, it is charged once. None: a new one.
            on_voucher: signs the voucher that the answer waits for, when it is paid by a channel.
            on_wait: told where the request stands, while it waits for its turn.
            more: everything the gateway takes, by its names.
        """
        key, door = idempotency_key, self._door
        call = calls.generate(model, prompt, messages, max_tokens, temperature, stream, key, more)

        def begin() -> Reply:
            return door.run(exchange(call, door.settings, door.credentials, Limits()))

        return Generation(begin, door.settings.timeout, on_voucher, on_wait)

    def chat(
        self,
        model: str,
        messages: Sequence[Message],
        max_tokens: int | None = None,
        temperature: float | None = None,
        stream: bool = True,
        *,
        idempotency_key: str | None = None,
        on_voucher: PayVoucher | None = None,
        on_wait: OnWait | None = None,
        **more: Unpack[GenerateOptions],
    ) -> Generation:
        """The next message of a conversation. Otherwise as :meth:`generate`."""
        return self.generate(
            model,
            None,
            max_tokens,
            temperature,
            stream,
            messages=messages,
            idempotency_key=idempotency_key,
            on_voucher=on_voucher,
            on_wait=on_wait,
            **more,
        )

    def embeddings(
        self,
        model: str,
        input: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
        *,
        encoding_format: str | None = None,
        pooling: str | None = None,
        quote_id: str | None = None,
        tier: str | None = None,
        idempotency_key: str | None = None,
    ) -> m.EmbeddingAnswer:
        """Vectors of texts, in their order."""
        key = idempotency_key
        return self._door.ask(calls.embeddings(model, input, encoding_format, pooling, quote_id, tier, key))

    def models(self) -> list[m.ModelEntry]:
        """The models on sale: prices, who serves them, whether they can be had now."""
        return self._door.ask(calls.models())

    def quote(
        self,
        model: str,
        prompt: str | None = None,
        max_tokens: int | None = None,
        *,
        messages: Sequence[Message] | None = None,
        **more: Unpack[QuoteOptions],
    ) -> m.QuoteAnswer:
        """What a token costs now. Send ``quote_id`` with the request, and it keeps this price."""
        return self._door.ask(calls.quote(model, prompt, messages, max_tokens, more))

    def request(self, request_id: str) -> m.RequestState:
        """One of one's own requests: its money, its nodes, its settlement."""
        return self._door.ask(calls.request(request_id))

    def receipts(self, request_id: str) -> m.RequestReceipts:
        """What nodes have signed for one of one's own requests: see :func:`farlabs.verify_receipts`."""
        return self._door.ask(calls.receipts(request_id))

    # ---- jobs

    def submit_job(
        self,
        model: str,
        prompt: str | None = None,
        max_tokens: int | None = None,
        *,
        messages: Sequence[Message] | None = None,
        idempotency_key: str | None = None,
        **more: Unpack[JobOptions],
    ) -> m.JobState:
        """Have something generated while nobody waits: see :meth:`wait_for_job`, or give a ``webhook``."""
        call = calls.submit_job(model, prompt, messages, max_tokens, idempotency_key, more)
        return self._door.ask(call)

    def job_result(self, job_id: str, *, wait: float | None = None) -> m.JobState:
        """How far a job is, and its result once it has ended.

        Args:
            wait: seconds to wait for its end, as far as the gateway lets one: up to 60.
        """
        limits = Limits() if wait is None else Limits(timeout=wait + _ANSWER_SECONDS)
        return self._door.ask(calls.job_result(job_id, wait), limits)

    def wait_for_job(self, job_id: str, *, timeout: float | None = None) -> m.JobState:
        """A job once it has ended. It may have failed: see ``status``.

        Raises:
            TimeoutError: it has not ended after ``timeout`` seconds. None: however long that takes.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _WAIT_SECONDS if end is None else min(_WAIT_SECONDS, end - time.monotonic())
            job = self.job_result(job_id, wait=max(0.0, left))
            if job.ended_at is not None:
                return job
            if left <= 0:
                raise TimeoutError(f"{job_id} has not ended after {timeout:g} s", code="timeout", retry=True)

    def jobs(self, *, status: str | None = None, limit: int | None = None, cursor: str | None = None) -> m.JobList:
        """One's jobs, the newest first, without what was said in them."""
        return self._door.ask(calls.jobs(status, limit, cursor))

    def cancel_job(self, job_id: str) -> m.JobState:
        """Stop a job. What had been generated by then is kept, and paid for."""
        return self._door.ask(calls.cancel_job(job_id))

    def deliveries(self, job_id: str) -> list[m.DeliveryState]:
        """Each time that the webhook of a job was called, and what came of it."""
        return self._door.ask(calls.deliveries(job_id))

    def webhook_secret(self) -> m.WebhookSecret:
        """A new secret for :func:`farlabs.verify_webhook`, shown this once. For a day, messages are signed with the one
        before it as well."""
        return self._door.ask(calls.webhook_secret())

    # ---- the account

    def sign_in(self) -> Session:
        """Sign in now, so that the wallet is not asked in the middle of something.

        Raises:
            AuthenticationError: there is no wallet, or the gateway does not take its signature.
        """
        return self._door.sign_in()

    def sign_out(self, *, everywhere: bool = False, revoke_keys: bool = False) -> None:
        """The token counts no more, and is forgotten. Nothing happens without one.

        Args:
            everywhere: all tokens of the wallet, on whatever machine.
            revoke_keys: with ``everywhere``: its API keys as well.
        """
        session = self.session
        if session is None:
            return
        try:
            self._door.ask(calls.sign_out(session.token, everywhere, revoke_keys))
        except FarLabsError as error:
            # Of a token that counts no more there is nothing to end; the others of the wallet may still count.
            if everywhere or error.status != 401:
                raise
        self._door.credentials.use(None)

    def api_keys(self) -> list[m.KeyEntry]:
        """One's API keys, the newest first. Their secrets are told by nobody."""
        return self._door.ask(calls.api_keys())

    def create_api_key(
        self,
        name: str,
        *,
        scopes: Sequence[str] | None = None,
        limits: KeyLimits | None = None,
        expires_at: datetime | str | None = None,
    ) -> m.KeyCreated:
        """A new API key. ``key`` is shown this once."""
        return self._door.ask(calls.create_api_key(name, scopes, limits, expires_at))

    def revoke_api_key(self, key_id: str) -> None:
        """The key counts no more, from now on."""
        self._door.ask(calls.revoke_api_key(key_id))

    def balance(self) -> m.BalanceAnswer:
        """One's prepaid money, and where to pay more in."""
        return self._door.ask(calls.balance())

    def deposit(self, transaction: str, *, payer_signature: str | None = None) -> m.DepositAnswer | m.PendingAnswer:
        """Have a transaction that has paid in credited. ``pending``: it is too early, ask again. It counts once,
        however often it is told.

        Args:
            transaction: its hash.
            payer_signature: by a wallet other than one's own that has paid, over the text that the refusal without it
                names.
        """
        return self._door.ask(calls.deposit(transaction, payer_signature))

    def deposits(self, *, limit: int | None = None, before: int | None = None) -> m.DepositList:
        """What the chain has told of one's deposits, newest first."""
        return self._door.ask(calls.deposits(limit, before))

    def usage(
        self,
        first: date | str | None = None,
        last: date | str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> m.UsageAnswer:
        """What one has used by day, model and API key.

        Args:
            first: a day of UTC, such as ``2026-02-28``.
            last: another, which is included.
        """
        return self._door.ask(calls.usage(first, last, model, api_key, limit, cursor))

    def usage_csv(
        self,
        first: date | str | None = None,
        last: date | str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
    ) -> str:
        """The same, all of it at once, as a table for a spreadsheet (CSV)."""
        return self._door.ask(calls.usage_csv(first, last, model, api_key))

    def tiers(self) -> m.TierList:
        """What each tier promises and costs."""
        return self._door.ask(calls.tiers())

    def account_tier(self) -> m.AccountTier:
        """One's own tier."""
        return self._door.ask(calls.account_tier())

    # ---- payment channels

    def channels(self) -> list[m.ChannelState]:
        """One's payment channels, those with the most left first."""
        return self._door.ask(calls.channels())

    def channel(self, channel_id: str) -> m.ChannelState:
        """One of one's payment channels."""
        return self._door.ask(calls.channel(channel_id))

    def look_at_channel(self, channel_id: str) -> m.ChannelState:
        """Have the gateway look at a channel that was just opened or topped up, before it finds it by itself."""
        return self._door.ask(calls.look_at_channel(channel_id))

    def sign_voucher(self, channel_id: str, units: int, *, signer: Signer | None = None) -> Voucher:
        """Promise so many units in all over a channel (EIP-712).

        Args:
            signer: the key of the channel. None: the client's wallet.

        Raises:
            FarLabsError: ``no_signer``, ``cannot_sign``, ``no_escrow``.
        """
        door = self._door
        domain: EscrowDomain = door.run(escrow_domain(door.settings, door.credentials, Limits()))
        return door.run(sign_voucher(domain, channel_id, units, signer))

    def send_voucher(self, voucher: Voucher) -> m.ChannelState:
        """Hand a voucher in: an answer that waits for it goes on.

        Raises:
            PaymentRequiredError: ``voucher_stale``: another one for as much or more was there before; or it is refused.
        """
        return self._door.ask(send_voucher(voucher))

    def pay_by_voucher(
        self,
        quote: m.QuoteAnswer,
        *,
        signer: Signer | None = None,
        step_units: int | None = None,
        max_units: int | None = None,
    ) -> PayVoucher:
        """Pays one answer step by step: give it as ``on_voucher``.

        What is promised never exceeds what the channel was charged before, what has come of this answer at the quoted
        prices, and one step: that step is all that a gateway could take and vanish. What it wants beyond that is not
        signed: the answer ends with a FarLabsError ``voucher_limit``.

        Args:
            quote: the prices that were agreed: send its ``quote_id`` with the request.
            signer: the key of the channel. None: the client's wallet.
            step_units: the most that is promised before it was received. None: the step that the gateway names.
            max_units: never promise more than this over the channel, in all.
        """
        door, terms = self._door, Terms(quote, signer, step_units, max_units)
        known: list[Account] = []

        def pay_for(needed: m.VoucherEvent, tokens: int) -> None:
            account = known[0] if known else None
            known[:] = [door.run(pay(needed, tokens, terms, account, door.settings, door.credentials))]

        return pay_for

    # ---- providers and nodes

    def active_nodes(
        self,
        model: str,
        *,
        location: tuple[float, float] | str | None = None,
        max_distance_km: float | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> m.ActiveNodes:
        """The nodes that serve a model now.

        Args:
            location: the nearest first to this latitude and longitude, or a region.
        """
        return self._door.ask(calls.active_nodes(model, location, max_distance_km, limit, offset))

    def node(self, node_id: str) -> m.NodeAnswer:
        """What is known of a node."""
        return self._door.ask(calls.node(node_id))

    def how_to_serve(self) -> m.JoinAnswer:
        """What somebody needs to know who wants to serve: peers of the swarm, what the models take in memory, what they
        paid."""
        return self._door.ask(calls.how_to_serve())

    def claim_node(self, claim: ClaimRequest) -> m.ClaimAnswer:
        """Hand in a claim that node and wallet have signed: the node earns for the wallet."""
        return self._door.ask(calls.claim_node(claim))

    def sign_node_claim(self, claim: UnsignedClaim) -> ClaimRequest:
        """The whole claim, for :meth:`claim_node`, of a half that :func:`farlabs.read_node_claim` gave.

        Raises:
            FarLabsError: ``wrong_wallet``; it is for another. ``no_signer``, ``cannot_sign``.
        """
        return self._door.run(sign_claim(claim, self._door.credentials.signer))

    def provider_nodes(self) -> list[m.NodeAnswer]:
        """The nodes that one's wallet has claimed, and all that is known of them."""
        return self._door.ask(calls.provider_nodes())

    def provider_stats(self) -> m.ProviderStats:
        """A provider at a glance."""
        return self._door.ask(calls.provider_stats())

    def node_earnings(self, wallet: str, *, days: int | None = None) -> m.NodeEarnings:
        """A provider at a glance, by one's own wallet."""
        return self._door.ask(calls.node_earnings(wallet, days))

    def rewards(self, *, days: int | None = None) -> m.RewardsAnswer:
        """A provider's money: earned, on its way, paid, and what of it lies where.

        Args:
            days: what ``per_node`` and ``per_day`` are about.
        """
        return self._door.ask(calls.rewards(days))

    def reward_history(
        self, *, limit: int | None = None, cursor: str | None = None, receipts: bool | None = None
    ) -> m.HistoryAnswer:
        """What one's nodes did for which request, newest first, and what became of the money.

        Args:
            receipts: with the documents that the nodes have signed.
        """
        return self._door.ask(calls.reward_history(limit, cursor, receipts))

    def earnings_history(self, *, days: int | None = None) -> list[m.Earning]:
        """What each of the last days brought, from the oldest to today."""
        return self._door.ask(calls.earnings_history(days))

    def claims(self, *, limit: int | None = None, cursor: str | None = None) -> m.ClaimsAnswer:
        """Payout roots with something for oneself, newest first: what ``claimPayout`` of the escrow takes."""
        return self._door.ask(calls.claims(limit, cursor))

    def batch(self, number: int, *, limit: int | None = None, cursor: str | None = None) -> m.BatchAnswer:
        """A batch as the chain announces it, and one's own part of it, each line with its proof."""
        return self._door.ask(calls.batch(number, limit, cursor))

    def payout_address(self) -> m.TransferTo:
        """Where a provider is paid by transfer, where there is no escrow, and what takes its place when."""
        return self._door.ask(calls.payout_address())

    def set_payout_address(self, address: str) -> m.TransferTo:
        """Be paid elsewhere. It counts after a while, in which whoever did not mean it can take it back."""
        return self._door.ask(calls.set_payout_address(address))

    # ---- operators

    def cluster_status(self) -> m.ClusterStatus:
        """Everything at once."""
        return self._door.ask(calls.cluster_status())

    def rebalance(self, *, model: str | None = None, replicas: int | None = None) -> m.RebalanceAnswer:
        """Which blocks are thin, and which nodes would do more good where. Advice alone."""
        return self._door.ask(calls.rebalance(model, replicas))

    def settlement(self, *, limit: int | None = None, before: int | None = None) -> m.SettlementOverview:
        """What waits to be settled, the newest batches, and whether the books agree with the chain.

        ``before`` is ``next_before`` of the page before.
        """
        return self._door.ask(calls.settlement(limit, before))

    def list_prices(self) -> list[m.ListedPrice]:
        """What a token of each model costs in each tier, before demand, and who says so."""
        return self._door.ask(calls.list_prices())

    def set_list_price(
        self,
        model: str,
        tier: str,
        *,
        prompt_price_units: int | None = None,
        completion_price_units: int | None = None,
    ) -> m.ListedPrice:
        """Change what a token costs, in units of 1e-9 FAR and before demand. Without units the settings of the gateway
        decide again."""
        return self._door.ask(calls.set_list_price(model, tier, prompt_price_units, completion_price_units))

    def account_tiers(self) -> list[m.AccountTier]:
        """All accounts that are in another tier than the usual one."""
        return self._door.ask(calls.account_tiers())

    def wallet_tier(self, wallet: str) -> m.AccountTier:
        """The tier of an account."""
        return self._door.ask(calls.wallet_tier(wallet))

    def set_wallet_tier(self, wallet: str, tier: str, *, until: datetime | str | None = None) -> m.AccountTier:
        """Put an account into a tier, for good or until a time (ISO 8601)."""
        return self._door.ask(calls.set_wallet_tier(wallet, tier, until))

    def private_pool(self, wallet: str) -> m.PrivatePool:
        """The nodes that an account has to itself."""
        return self._door.ask(calls.private_pool(wallet))

    def set_private_pool(self, wallet: str, members: Sequence[str]) -> m.PrivatePool:
        """Say which nodes an account has to itself, by node id or wallet."""
        return self._door.ask(calls.set_private_pool(wallet, members))

    def workers(self, *, limit: int | None = None, after: str | None = None) -> m.WorkerList:
        """All nodes that are known, and the serverless ones that were entered."""
        return self._door.ask(calls.workers(limit, after))

    def add_worker(
        self,
        worker_id: str,
        endpoint_url: str,
        payment_address: str,
        *,
        vram_mb: int | None = None,
        model: str | None = None,
    ) -> m.Worker:
        """Enter a serverless worker."""
        return self._door.ask(calls.add_worker(worker_id, endpoint_url, payment_address, vram_mb, model))

    def remove_worker(self, worker_id: str) -> None:
        """Strike a serverless worker off."""
        self._door.ask(calls.remove_worker(worker_id))

    # ---- the gateway

    def health(self) -> m.Alive:
        """Whether the gateway lives, and what it takes payment in."""
        return self._door.ask(calls.health())

    def ready(self) -> m.Readiness:
        """Whether the gateway can serve, part by part. That it cannot is an answer as well."""
        return self._door.ask(calls.ready())
