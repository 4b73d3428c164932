"""Text in, tokens out, work paid: everything that is checked before money moves, and the runs after it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from discovery.placement import coverage
from discovery.protocol.announcement import Announcement, SignedAnnouncement
from discovery.protocol.errors import FarError, InvalidArgument
from discovery.protocol.ids import Wallet
from far_mesh.config import GenerationOptions, Pool
from far_mesh.errors import ContextLengthExceeded, NoRoute
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import ModelUnknown, NotEnoughNodes, RequestUnknown, ShuttingDown
from far_mesh.marketplace.inference import repository
from far_mesh.marketplace.inference.admission import Admission, Gate, Rules, Survey, Ticket
from far_mesh.marketplace.inference.jobs import Asked, Embed, Generate, Job
from far_mesh.marketplace.inference.meshes import MeshLike, Prompt
from far_mesh.marketplace.inference.messages import Toolbox
from far_mesh.marketplace.inference.options import Manner
from far_mesh.marketplace.inference.payment import AS_IT_IS_BEST, Wanted
from far_mesh.marketplace.inference.queue import Claim, sessions_of
from far_mesh.marketplace.inference.run import Answer, Keeper, Limits, Order, Run
from far_mesh.marketplace.inference.till import Cashier
from far_mesh.marketplace.ledger.split import Prices, Tokens, price_of
from far_mesh.marketplace.limits.schemas import Grant
from far_mesh.marketplace.limits.service import RateLimits
from far_mesh.marketplace.pricing.quotes import Quotes
from far_mesh.marketplace.pricing.schemas import ListPrice, PriceNow, Quote
from far_mesh.marketplace.pricing.service import Pricing
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway, NewSession, PaidShare, Session
from far_mesh.marketplace.settings import ModelOffer
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement.owed import batch_row
from far_mesh.marketplace.settlement.requests import check_before_waiting
from far_mesh.marketplace.settlement.schemas import Kind, Row
from far_mesh.marketplace.settlement.service import Settlement
from far_mesh.marketplace.telemetry.requests import RequestWatch
from far_mesh.marketplace.tiers.names import TierName
from far_mesh.marketplace.tiers.schemas import Tier
from far_mesh.marketplace.tiers.service import TierService
from far_mesh.route import in_words, takes_sessions, uncovered_ranges

if TYPE_CHECKING:
    from far_mesh.model.tools import ToolFormat

CLOSE_SECONDS, CANCEL_SECONDS = 5.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What all that callers ask for has, whichever door it came through. ``api_key_id``: that of the caller's API key,
    if it asks with one. ``tier`` None: the account's own."""

    model_id: str
    tier: str | None = None
    quote_id: str | None = None
    payment: Wanted = AS_IT_IS_BEST
    api_key_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Wish(Demand):
    """Texts that a caller wants: ``choices`` answers to each of the ``prompts``. ``max_tokens`` None: our default.
    ``grammar_param`` is what the caller called the grammar. A ``keeper`` takes the place of a reader."""

    prompts: tuple[Prompt, ...]
    max_tokens: int | None = None
    manner: Manner = GenerationOptions
    choices: int = 1
    streamed: bool = False
    raw: bool = False
    toolbox: Toolbox | None = None
    grammar_param: str = "grammar"
    keeper: Keeper | None = None


@dataclass(frozen=True, kw_only=True)
class EmbeddingWish(Demand):
    """Vectors that a caller wants, of texts or of their token ids."""

    texts: tuple[str | tuple[int, ...], ...]
    pooling: str = "mean"


@dataclass(frozen=True)
class Question:
    """What somebody wants to know the price of. ``prompt``: what is said, or how many tokens it has. ``request_id`` is
    that of the request which is to follow, if its escrow intent is wanted too."""

    model_id: str
    tier: str | None
    prompt: Prompt | int
    max_tokens: int | None
    raw: bool
    choices: int = 1
    request_id: str | None = None


@dataclass(frozen=True)
class Quoted:
    """The answer to a :class:`Question`. ``intent`` is the typed data to sign, where it was asked for."""

    quote: Quote
    model_id: str
    tier: str
    prompt_tokens: int
    max_tokens: int
    choices: int
    price: PriceNow
    request_id: str | None = None
    intent: dict[str, Any] | None = None

    @property
    def max_cost_units(self) -> int:
        """What such a request would hold."""
        return price_of(Tokens(self.prompt_tokens, self.choices * self.max_tokens), self.price.prices)


@dataclass(frozen=True)
class OnSale:
    """A model with its price and its mesh."""

    offer: ModelOffer
    mesh: MeshLike


@dataclass(frozen=True)
class ModelState:
    """A model, who serves it now and what it costs, ``by_tier`` too. ``gaps`` are blocks that nobody serves, and
    ``covered`` is for each block how many nodes do."""

    on_sale: OnSale
    price: PriceNow
    by_tier: Mapping[TierName, Prices]
    active_nodes: int
    gaps: list[tuple[int, int]]
    covered: Sequence[int]
    average_latency_ms: int | None

    @property
    def obstacle(self) -> str | None:
        """Why nobody can be served now; None: one can."""
        offer = self.on_sale.offer
        if self.gaps:
            return f"no node serves blocks {in_words(self.gaps)} of {offer.model_id}"
        if self.active_nodes < offer.min_nodes:
            return f"{offer.model_id} waits for {offer.min_nodes} nodes; there are {self.active_nodes}"
        return None


@dataclass(frozen=True)
class RequestReport:
    """A request, who worked on it, and what the chain was asked for: for it alone, and for the batch it is in."""

    session: Session
    shares: tuple[PaidShare, ...]
    rows: Mapping[Kind, Row]
    batch: Row | None


class InferenceService:
    """Owner of all runs."""

    def __init__(
        self,
        database: Database,
        settlement: Settlement,
        gateway: Gateway,
        offers: Sequence[ModelOffer],
        meshes: Mapping[str, MeshLike],
        limits: Limits,
        rules: Rules,
        default_max_tokens: int,
        tiers: TierService,
        rates: RateLimits,
        pricing: Pricing,
        quotes: Quotes,
        till: Cashier,
        watch: RequestWatch,
    ) -> None:
        self._database = database
        self._settlement = settlement
        self._gateway = gateway
        self._on_sale = {offer.model_id: OnSale(offer, meshes[offer.model_id]) for offer in offers}
        self._limits = limits
        self._default_max_tokens = default_max_tokens
        self._tiers = tiers
        self._rates = rates
        self._pricing = pricing
        self._quotes = quotes
        self._till = till
        self._watch = watch
        self._admission = Admission(
            rules, {model_id: partial(_survey, on_sale) for model_id, on_sale in self._on_sale.items()}
        )
        self._runs: set[Run] = set()
        self._closing = False
        self._hurried = asyncio.Event()

    async def start(self, wallet: Wallet, request_id: str, wish: Wish | EmbeddingWish) -> Run:
        """A run whose route stands and whose money is locked; or, if it is streamed and has to wait for its turn, one
        that tells where it waits.

        Raises:
            QueueFull, QueueTimeout: too many others wait, or it was not its turn in time.
            RateLimited: too many requests or tokens in this minute.
            ModelUnknown, TierForbidden, UnsupportedParameter, InvalidArgument, ContextLengthExceeded, NoRoute,
                NotEnoughNodes, QuoteInvalid, IntentRefused, ChannelUnknown, ChannelClosing, FeeMismatch: before any
                money moves.
            Conflict: there was a request of this name before.
            InsufficientBalance, AllowanceTooLow, UnsettledLimit, VoucherNeeded, KeyLimitReached: nothing was held.
            ShuttingDown: no more.
            SettlementDelayed, FarError: after it was given back.
        """
        with self._watch.starting(request_id, wish.model_id, wish.tier) as started:
            return started(await self._start(wallet, request_id, wish))

    async def _start(self, wallet: Wallet, request_id: str, wish: Wish | EmbeddingWish) -> Run:
        self._refuse_when_closing()
        grant = await self._rates.begin(wallet, wish.api_key_id)
        try:
            order = await self._order(wallet, request_id, wish, grant)
            ticket = await self._ticket(order)
        except BaseException as error:
            await self._rates.refused(grant, error)
            raise
        run = Run(order, ticket, self._database, self._settlement, self._gateway, self._limits)
        self._runs.add(run)
        run.task.add_done_callback(lambda task: self._forget(run, task))
        try:
            await run.opened()
        except asyncio.CancelledError:
            run.reader_left()
            raise
        return run

    async def _ticket(self, order: Order) -> Ticket:
        session, tier = order.session, order.tier
        width = 1 if order.meter is not None else order.job.width  # over a channel one text comes after the other
        claim = Claim(session.user_wallet, tier.name, tier.queue_weight, tier.concurrent_requests, width)
        ticket = await self._admission.enter(session.model_id, session.request_id, claim)
        try:
            self._refuse_when_closing()
            if ticket.has_to_wait:
                async with self._database.reading() as connection:
                    await check_before_waiting(connection, session)
        except BaseException:
            ticket.leave()
            raise
        return ticket

    async def quote(self, wallet: Wallet, question: Question) -> Quoted:
        """What a request would cost at most, at prices that are kept for a while.

        Raises:
            RateLimited: the account has asked too often in this minute.
            ModelUnknown, TierForbidden, UnsupportedParameter, InvalidArgument, ContextLengthExceeded, NoRoute,
                NotEnoughNodes: it could not be served now.
        """
        await self._rates.call(wallet)
        on_sale, tier = self._find(question.model_id), await self._tiers.choose(wallet, question.tier)
        mesh, prompt = on_sale.mesh, question.prompt
        _check_choices(question.choices, tier)
        prompt_tokens = prompt if isinstance(prompt, int) else len(mesh.encode(prompt, raw=question.raw))
        max_tokens = self._max_tokens(on_sale, tier, question.max_tokens, prompt_tokens)
        price = await self._price(on_sale, tier, await self._tiers.pools.of(wallet, tier))
        quote = self._quotes.give(wallet, question.model_id, tier.name, price.prices)
        quoted = Quoted(
            quote,
            question.model_id,
            tier.name,
            prompt_tokens,
            max_tokens,
            question.choices,
            price,
            question.request_id,
        )
        if question.request_id is None:
            return quoted
        intent = self._till.intent(wallet, question.request_id, quoted.max_cost_units, quote.expires_at)
        return replace(quoted, intent=intent)

    async def check(self, wallet: Wallet, wish: Wish) -> None:
        """What is wrong with a wish of ``wallet``, whoever serves it and whenever that is.

        Raises:
            ModelUnknown, TierForbidden, UnsupportedParameter, InvalidArgument, ContextLengthExceeded: it would never be
                served.
        """
        await self._texts(self._find(wish.model_id), await self._tiers.choose(wallet, wish.tier), wish)

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise _about_to_stop()

    def _forget(self, run: Run, task: asyncio.Task[Answer]) -> None:
        self._runs.discard(run)
        tokens = 0
        if not task.cancelled() and task.exception() is None:  # the reader may be gone: nobody else asks for it
            answer = task.result()
            tokens = answer.prompt_tokens + answer.completion_tokens
        self._rates.end_soon(run.grant, tokens)

    @property
    def gates(self) -> Mapping[str, Gate]:
        """The queue in front of each model."""
        return self._admission.gates

    @property
    def is_closing(self) -> bool:
        """Whether it takes no new requests any more."""
        return self._closing

    def under_way(self) -> frozenset[str]:
        """The requests that somebody here cares for."""
        return frozenset(run.request_id for run in self._runs)

    def hurry(self) -> None:
        """Let answers under way end after their present token, now."""
        self._hurried.set()

    async def close(self, finish_seconds: float = 0.0) -> None:
        """Take no new requests, let those under way go on for so long or until :meth:`hurry`, then end them after their
        present token and settle for what was delivered. Those that do not end then are cancelled: what is open of them
        in the books is closed by :class:`.settlement.service.Caretaker`."""
        self._closing = True
        self._admission.close(_about_to_stop())
        with suppress(TimeoutError):
            async with asyncio.timeout(finish_seconds):
                await self._idle_or_hurried()
        runs = list(self._runs)
        for run in runs:
            run.stop()
        if runs:
            _, late = await asyncio.wait([run.task for run in runs], timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=CANCEL_SECONDS)

    async def _idle_or_hurried(self) -> None:
        hurried = asyncio.create_task(self._hurried.wait())
        try:
            while self._runs and not hurried.done():
                await asyncio.wait([hurried, *(run.task for run in self._runs)], return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()

    def offers(self) -> list[ModelOffer]:
        """What is on sale."""
        return [on_sale.offer for on_sale in self._on_sale.values()]

    def decoded(self, model_id: str, ids: Sequence[int]) -> str:
        """Text of token ids of a model.

        Raises:
            ModelUnknown: it is not on sale.
        """
        return self._find(model_id).mesh.decode(ids)

    async def price_list(self, tiers: Sequence[Tier]) -> dict[str, dict[TierName, ListPrice]]:
        """What a token of each model on sale costs in each of these tiers that it is sold in, before demand."""
        return {name: await self._pricing.listed(one.offer, tiers) for name, one in self._on_sale.items()}

    async def models(self) -> list[ModelState]:
        """Every model on sale and who serves it now."""
        return [await self._state(on_sale) for on_sale in self._on_sale.values()]

    async def model(self, model_id: str) -> ModelState:
        """One of them.

        Raises:
            ModelUnknown: it is not on sale.
        """
        return await self._state(self._find(model_id))

    async def report(self, wallet: Wallet, request_id: str) -> RequestReport:
        """A request of ``wallet``.

        Raises:
            RateLimited: the account has asked too often in this minute.
            RequestUnknown: there is none, or it is somebody else's.
        """
        await self._rates.call(wallet)
        async with self._database.reading() as connection:
            session = await sessions.find(connection, request_id)
            if session is None or session.user_wallet != wallet:
                raise RequestUnknown("you have made no such request", param="request_id")
            shares = await sessions.contributions(connection, session.id)
            rows = await outbox.of_request(connection, request_id)
            batch = await batch_row(connection, session.batch_number)
        return RequestReport(session, shares, rows, batch)

    # ---- everything that is checked before money moves

    async def _order(self, wallet: Wallet, request_id: str, wish: Wish | EmbeddingWish, grant: Grant) -> Order:
        on_sale, tier = self._find(wish.model_id), await self._tiers.choose(wallet, wish.tier)
        job: Job = await self._texts(on_sale, tier, wish) if isinstance(wish, Wish) else _vectors(on_sale, wish)
        grant = await self._rates.reserve(grant, job.prompt_tokens + job.most_tokens)
        pool = await self._tiers.pools.of(wallet, tier)
        prices = await self._prices(wallet, on_sale, tier, pool, wish)
        session = NewSession(
            id=str(uuid.uuid4()),
            request_id=request_id,
            user_wallet=wallet,
            model_id=on_sale.offer.model_id,
            tier=tier.name,
            prompt_tokens=job.prompt_tokens,
            prompt_price_units=prices.prompt,
            completion_price_units=prices.completion,
            cached_price_units=prices.cached,
            fee_bps=prices.fee_bps,
            held_units=price_of(Tokens(job.prompt_tokens, job.most_tokens), prices),
            api_key_id=wish.api_key_id,
            promised_p95_ms=tier.p95_ms_per_token,
            credit_bps=tier.credit_bps,
        )
        paid = await self._till.pay(session, wish.payment, job.most_tokens)
        return Order(
            paid.session,
            tier,
            on_sale.mesh,
            job,
            isinstance(wish, Wish) and wish.streamed,
            grant,
            choose=paid.choose,
            intent=paid.intent,
            meter=paid.meter,
            tool_format=_tool_format(on_sale, wish),
            pool=pool,
            keeper=wish.keeper if isinstance(wish, Wish) else None,
        )

    async def _texts(self, on_sale: OnSale, tier: Tier, wish: Wish) -> Generate:
        _check_choices(wish.choices, tier)
        mesh, box = on_sale.mesh, wish.toolbox
        tools = None if box is None else box.tools
        asked = []
        for prompt in wish.prompts:
            ids = mesh.encode(prompt, raw=wish.raw, tools=tools)
            most = self._max_tokens(on_sale, tier, wish.max_tokens, len(ids))
            options = wish.manner(most)
            if box is not None:
                options = _with_tools(options, box, mesh)
            asked.append(Asked(tuple(ids), options))
        try:
            await mesh.check(asked[0].prompt_ids, asked[0].options)
        except InvalidArgument as error:
            if error.facts.get("param") != "grammar":
                raise
            raise InvalidArgument(error.message, param=wish.grammar_param) from None
        return Generate(tuple(asked), wish.choices)

    async def _prices(self, wallet: Wallet, on_sale: OnSale, tier: Tier, pool: Pool | None, wish: Demand) -> Prices:
        if wish.quote_id is None:
            return (await self._price(on_sale, tier, pool)).prices
        kept = self._quotes.kept(wish.quote_id, wallet, wish.model_id, tier.name)
        _check_route(on_sale, await _at_hand(on_sale.mesh), pool)
        return kept

    async def _price(self, on_sale: OnSale, tier: Tier, pool: Pool | None) -> PriceNow:
        nodes = await _at_hand(on_sale.mesh)
        _check_route(on_sale, nodes, pool)
        return await self._pricing.now(on_sale.offer, tier, nodes, on_sale.mesh.block_count)

    def _find(self, model_id: str) -> OnSale:
        on_sale = self._on_sale.get(model_id)
        if on_sale is None:
            known = ", ".join(self._on_sale)
            raise ModelUnknown(f"the model {model_id!r} is not on sale here; there is: {known}", param="model")
        return on_sale

    def _max_tokens(self, on_sale: OnSale, tier: Tier, wanted: int | None, prompt_tokens: int) -> int:
        model_id, context_length = on_sale.offer.model_id, on_sale.mesh.context_length
        room, most = context_length - prompt_tokens, min(context_length, tier.max_tokens or context_length)
        if room < 1:
            raise ContextLengthExceeded(
                f"the prompt has {prompt_tokens} tokens; the maximum context length of {model_id} is {context_length}, "
                "answer included",
                param="prompt",
            )
        max_tokens = min(self._default_max_tokens, room, most) if wanted is None else wanted
        if not 1 <= max_tokens <= most:
            why = f"the context of {model_id}" if most == context_length else f"the most in the tier {tier.name}"
            raise InvalidArgument(f"max_tokens must be from 1 to {most}, {why}", param="max_tokens")
        if max_tokens > room:
            raise ContextLengthExceeded(
                f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}; the maximum context "
                f"length of {model_id} is {context_length}",
                param="max_tokens",
            )
        return max_tokens

    async def _state(self, on_sale: OnSale) -> ModelState:
        mesh, block_count = on_sale.mesh, on_sale.mesh.block_count
        announced, nodes = _ready(await mesh.nodes()), _ready(await mesh.present())
        price = await self._pricing.now(on_sale.offer, self._tiers.table[TierName.STANDARD], announced, block_count)
        by_tier = await self._pricing.by_tier(on_sale.offer, self._tiers.table.all(), price)
        async with self._database.reading() as connection:
            latency = await repository.average_latency_ms(connection, on_sale.offer.model_id)
        gaps, covered = uncovered_ranges(nodes, block_count), coverage(nodes, block_count)
        return ModelState(on_sale, price, by_tier, len(nodes), gaps, covered, latency)


def _check_choices(choices: int, tier: Tier) -> None:
    if not 1 <= choices <= tier.max_n:
        raise InvalidArgument(f"n must be from 1 to {tier.max_n} in the tier {tier.name}", param="n")


def _with_tools(options: GenerationOptions, box: Toolbox, mesh: MeshLike) -> GenerationOptions:
    marks, tool_format = mesh.tool_marks, mesh.tool_format
    assert tool_format is not None  # or there would be no prompt
    options = replace(options, shown_tokens=frozenset(marks.values()))
    if not box.forced:
        return options
    return replace(options, grammar=tool_format.grammar(box.tools, box.name, marks))


def _tool_format(on_sale: OnSale, wish: Wish | EmbeddingWish) -> ToolFormat | None:
    return on_sale.mesh.tool_format if isinstance(wish, Wish) and wish.toolbox is not None else None


def _vectors(on_sale: OnSale, wish: EmbeddingWish) -> Embed:
    where = ["input"] if len(wish.texts) == 1 else [f"input.{place}" for place in range(len(wish.texts))]
    texts = zip(wish.texts, where, strict=True)
    return Embed(tuple(_ids_of(on_sale, text, param) for text, param in texts), wish.pooling)


def _ids_of(on_sale: OnSale, text: str | tuple[int, ...], param: str) -> tuple[int, ...]:
    mesh = on_sale.mesh
    try:
        ids = tuple(mesh.encode(text, raw=True))
    except InvalidArgument as error:
        raise InvalidArgument(f"{param}: {error.message}", param=param) from None
    if len(ids) > mesh.context_length:
        raise ContextLengthExceeded(
            f"{param} has {len(ids)} tokens; the maximum context length of {on_sale.offer.model_id} is "
            f"{mesh.context_length}",
            param=param,
        )
    return ids


def _about_to_stop() -> ShuttingDown:
    return ShuttingDown("this gateway is about to stop; ask again, or ask another", retry_after=5.0)


async def _survey(on_sale: OnSale) -> Survey:
    nodes = await _at_hand(on_sale.mesh)
    try:
        _check_route(on_sale, nodes)
    except FarError as obstacle:
        return Survey(0, obstacle)
    return Survey(sessions_of(nodes, on_sale.mesh.block_count))


def _check_route(on_sale: OnSale, ready: Sequence[Announcement], pool: Pool | None = None) -> None:
    if gaps := uncovered_ranges(ready, on_sale.mesh.block_count):
        raise NoRoute(
            f"no node serves blocks {in_words(gaps)} of {on_sale.offer.model_id} now; try again in a while",
            uncovered=gaps,
            retry_after=10.0,
        )
    if pool is not None:
        ready = [node for node in ready if pool.has(node)]
        if gaps := uncovered_ranges(ready, on_sale.mesh.block_count):
            raise NoRoute(
                f"none of {pool.name} serves blocks {in_words(gaps)} of {on_sale.offer.model_id} now",
                uncovered=gaps,
                pool=pool.name,
                retry_after=10.0,
            )
    if len(ready) < on_sale.offer.min_nodes:
        raise NotEnoughNodes(
            f"{on_sale.offer.model_id} waits for {on_sale.offer.min_nodes} nodes; there are {len(ready)}",
            retry_after=10.0,
        )


async def _at_hand(mesh: MeshLike) -> list[Announcement]:
    """Who serves, and, where some block has nobody, who is woken for it when a session is opened."""
    nodes = _ready(await mesh.nodes())
    if not uncovered_ranges(nodes, mesh.block_count):
        return nodes
    awake = {node.peer_id for node in nodes}
    return [*nodes, *(about for about in await mesh.on_call() if about.peer_id not in awake)]


def _ready(nodes: Sequence[SignedAnnouncement]) -> list[Announcement]:
    return takes_sessions(node.announcement for node in nodes)
