"""What a gateway answers.

Written by tools/generate_models.py: change the gateway, not this.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from farlabs._model import Model


class AccountTier(Model):
    """In which tier an account is now, and until when: null, until it is changed. It may use ``allowed``."""

    wallet_address: str
    tier: Literal["standard", "premium", "enterprise"] | str
    until: AwareDatetime | None = None
    allowed: list[Literal["standard", "premium", "enterprise"] | str]


class AccountTiers(Model):
    """The accounts that are in another tier than standard."""

    accounts: list[AccountTier]


class ActiveNode(Model):
    """A node that announces a model now. ``layers_served`` are the blocks it serves. ``reliability_score`` (0 to 1)
    is what the gateways have seen of it, ``avg_latency_ms`` the round trip that this one has measured; null where
    nothing was. ``wallet_address`` and all that follows ``state`` are from the node's signed announcement;
    ``gpu_model`` and ``vram_gb`` from its registration; ``location`` is the region that it names in one or the
    other. ``coordinates`` are its latitude and longitude in whole degrees (some 100 km), by its address where
    this gateway has a city database, else as it says; ``part`` is the part of the world there, or else of its
    region: one of na, sa, eu, af, me, in, sea, asia, oc. Both are for maps, and null where the place is unknown.
    """

    node_id: str
    wallet_address: str
    gpu_model: str | None = None
    vram_gb: int | None = None
    location: str | None = None
    coordinates: tuple[int, int] | None = None
    part: str | None = None
    layers_served: list[int]
    reliability_score: float | None = None
    avg_latency_ms: float | None = None
    distance_km: float | None = None
    registered: bool
    first_seen: AwareDatetime | None = None
    state: Literal["announced", "leaving", "registered", "gone"] | str
    quantization: str
    software: str
    price_units: int
    load: float
    queue_ms: float
    announced_at: AwareDatetime
    expires_at: AwareDatetime


class ActiveNodes(Model):
    """The nodes that serve a model now, in the order of their ids, or the nearest first where a point was given.
    ``total_nodes`` is how many fit, ``count`` how many of them are on this page.
    """

    model_id: str
    total_nodes: int
    count: int
    nodes: list[ActiveNode]


class AdvisedMove(Model):
    """A node that would do more good at ``to`` than where it is. Its owner decides, and would use ``command``, with
    the names that the models have at the machine.
    """

    node_id: str
    blocks: tuple[int, int]
    to: tuple[int, int]
    command: str


class Alive(Model):
    """The process answers. ``reconciliation`` is None until the books were compared with the chain."""

    status: str = "alive"
    payments: Payments
    reconciliation: Reconciliation | None = None


class Attempt(Model):
    """Once that a message was sent: what the receiver answered, or why there was no answer."""

    at: AwareDatetime
    ms: int
    http_status: int | None = None
    error_code: str | None = None


class BalanceAnswer(Model):
    """A user's prepaid money, and where to pay more in: into the escrow, or by transfer to ``deposit_address``.
    ``credit``: by how much later requests will cost less, for promises that earlier ones have missed. ``chain``
    is a CAIP-2 name. Units are 1e-9 FAR; the ``_far`` numbers are for eyes only.
    """

    wallet_address: str
    available_units: int
    held_units: int
    deposited_units: int
    credit_units: int
    available_far: float
    held_far: float
    deposited_far: float
    credit_far: float
    payment_provider: str
    chain: str | None = None
    chain_id: int
    token_address: str | None = None
    escrow_address: str | None = None
    deposit_address: str | None = None


class BatchAnswer(Model):
    """A batch as the chain announces it, and the caller's part of it. ``payout_units`` is what the batch pays to the
    caller: the sum of all its lines.
    """

    number: int
    kind: str
    detail_root: str
    requests: int
    total_units: int
    fee_units: int
    created_at: AwareDatetime
    status: str
    tx_hash: str | None = None
    block_number: int | None = None
    payout_units: int
    lines: list[BatchLine]
    next_cursor: str | None = None


class BatchEntry(Model):
    """A batch, a payout root or a transfer, and how far its transaction is. ``failed``: the chain refused it, and
    what was in it waits for another one. ``reason`` is what the chain said to it last.
    """

    number: int
    kind: Literal["batch", "root", "transfer"] | str
    requests: int
    users: int
    providers: int
    total_units: int
    fee_units: int
    created_at: AwareDatetime
    status: Literal["pending", "sent", "confirmed", "failed"] | str | None = None
    attempts: int
    tx_hash: str | None = None
    block_number: int | None = None
    reason: str | None = None


class BatchLine(Model):
    """What the caller gets for one request of a batch. The leaf is of ``(request_key, wallet, wei)``; ``proof``
    leads from it to the batch's ``detail_root``.
    """

    request_id: str
    request_key: str
    units: int
    wei: str
    proof: list[str]


class BlockCover(Model):
    """Blocks ``[first_block, end_block)`` that equally many nodes serve."""

    first_block: int
    end_block: int
    replicas: int


class BootstrapAnswer(Model):
    """Peers to join the swarm through: a first hint, and nothing that has to be believed."""

    prefix: str
    initial_peers: list[str]


class Call(Model):
    """A call of a tool, as the model made it."""

    id: str
    type: Literal["function"] = "function"
    function: Called
    index: int | None = None


class Called(Model):
    """Which function a model called, and with what: the text of a JSON object."""

    name: str
    arguments: str


class ChainEventAnswer(Model):
    """Something that the chain has told of a user's deposit. ``units`` is by how much it changed. ``vanished_at``:
    when its block was found to be given up; then it counts no more.
    """

    id: int
    kind: str
    wallet_address: str
    tx_hash: str
    units: int
    block_number: int
    booked_at: AwareDatetime
    vanished_at: AwareDatetime | None = None


class ChannelList(Model):
    """All channels of the caller, those with the most left first."""

    channels: list[ChannelState]


class ChannelState(Model):
    """A channel of the caller. Amounts are cumulative, in units of 1e-9 FAR: what was put in, promised by vouchers,
    served, charged for answers that have ended, and taken out on chain. ``next_promise_units`` is what to sign
    now if no more than what was served was received, null while the last voucher will do; ``next_promise_wei`` is
    the same for ``maxClaimableAmount``.
    """

    channel_id: str
    signer: str
    deposit_units: int
    promised_units: int
    earned_units: int
    captured_units: int
    redeemed_units: int
    step_units: int
    next_promise_units: int | None = None
    next_promise_wei: str | None = None
    closes_at: AwareDatetime | None = None


class Claim(Model):
    """What the payout root of an epoch promises the caller: all that roots ever gave, of which ``open_units`` were
    not claimed. ``claimable_at`` is null until the root is on chain.
    """

    epoch: int
    state: Literal["pending", "delayed", "claimable", "claimed", "revoked"] | str
    root: str
    claimable_at: AwareDatetime | None = None
    cumulative_units: int
    cumulative_wei: str
    open_units: int
    proof: list[str]


class ClaimAnswer(Model):
    """The node earns for the wallet, as both say. ``announced``: the swarm hears of it."""

    node_id: str
    wallet_address: str
    claimed_at: AwareDatetime
    announced: bool


class ClaimedNodes(Model):
    """The nodes whose claim or registration names the caller's wallet, in the order of their ids."""

    nodes: list[NodeAnswer]


class ClaimsAnswer(Model):
    """Payout roots with something for the caller, newest first."""

    wallet_address: str
    claimed_units: int
    claims: list[Claim]
    next_cursor: str | None = None
    chain_id: int
    escrow_address: str | None = None


class ClusterNode(Model):
    """A node and the blocks ``[first, end)`` of a model that it announces. ``reliability_score`` is what the
    gateways have seen of it, ``latency_ms`` the round trip that this one has measured.
    """

    node_id: str
    wallet_address: str
    model_id: str
    state: Literal["announced", "leaving", "registered", "gone"] | str
    blocks: tuple[int, int]
    quantization: str
    region: str | None = None
    software: str
    load: float
    queue_ms: float
    reliability_score: float | None = None
    latency_ms: float | None = None
    expires_at: AwareDatetime


class ClusterStatus(Model):
    """Everything at once, at this moment, as this gateway sees it."""

    at: AwareDatetime
    status: str
    reasons: list[str]
    models: list[ModelCoverage]
    nodes: list[ClusterNode]
    sessions: list[OpenSessions]
    settlement: SettlementReadiness | None = None
    leases: list[LeaseState]
    gateways: list[GatewayState]


class DatedEarning(Model):
    """The same in the words of ``NodeEarnings``."""

    date: str
    amount_far: float


class DayRewards(Model):
    """What was earned on a day (UTC), ``YYYY-MM-DD``. ``nodes``: units by the node that earned them."""

    date: str
    requests: int
    token_layers: int
    earned_units: int
    earned_far: float
    nodes: dict[str, int]


class DeliveryList(Model):
    """What was sent of a job."""

    deliveries: list[DeliveryState]


class DeliveryState(Model):
    """A message to a webhook. ``next_at`` is when it is sent again, if it is."""

    webhook_id: str
    type: str
    status: Literal["pending", "delivered", "failed"] | str
    created_at: AwareDatetime
    next_at: AwareDatetime | None = None
    attempts: list[Attempt]


class DepositAnswer(Model):
    """What a transaction was credited as. ``was_booked``: it had been credited before, by whoever."""

    status: Literal["credited"] = "credited"
    was_booked: bool
    deposits: list[ChainEventAnswer]


class DepositList(Model):
    """Newest first. ``next_before``: for the next page, if there may be one."""

    deposits: list[ChainEventAnswer]
    next_before: int | None = None


class DoneEvent(Model):
    """The last event of a stream. ``finish_reasons`` are those of all answers, where there are several. ``mended``:
    how often other nodes went on in the place of ones that were lost.
    """

    cost_far: float
    cost_units: int
    held_units: int
    fee_units: int
    refund_units: int
    service_level_met: bool | None = None
    credit_far: float = 0.0
    credit_units: int = 0
    done: Literal[True] = True
    request_id: str
    total_tokens: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: str
    finish_reasons: list[str] | None = None
    latency_ms: int
    time_to_first_token_ms: int | None = None
    nodes_used: list[NodeUsed]
    mended: int | None = None


class Earning(Model):
    """What was earned on a day, in FAR."""

    date: str
    amount: float


class EmbeddingAnswer(Model):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Vector]
    model: str
    usage: EmbeddingUsage
    far: Far


class EmbeddingUsage(Model):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class ErrorFacts(Model):
    """What went wrong. ``code`` is stable; ``message`` says what to do; ``param`` names the culprit, if any."""

    message: str
    type: str
    param: str | None = None
    code: str


class Far(Model):
    """What this service adds to an answer: the bill, who did the work, and how often other nodes went on in the
    place of ones that were lost.
    """

    cost_far: float
    cost_units: int
    held_units: int
    fee_units: int
    refund_units: int
    service_level_met: bool | None = None
    credit_far: float = 0.0
    credit_units: int = 0
    request_id: str
    nodes_used: list[NodeUsed]
    mended: int | None = None


class FindingEntry(Model):
    """Something in which the books and the chain disagree, and what to do about it. ``about`` is a request, a batch,
    a wallet, a channel or a transaction.
    """

    kind: str
    about: str
    message: str
    advice: str


class GatewayState(Model):
    """A gateway that shares this database. ``this``: the one that answers."""

    name: str
    alive: bool
    alive_until: AwareDatetime
    this: bool


class GenerateAnswer(Model):
    """A whole answer at once. Of several, all are in ``choices``, and the first of them is told twice. ``mended``:
    how often other nodes went on in the place of ones that were lost.
    """

    cost_far: float
    cost_units: int
    held_units: int
    fee_units: int
    refund_units: int
    service_level_met: bool | None = None
    credit_far: float = 0.0
    credit_units: int = 0
    request_id: str
    text: str
    tool_calls: list[Call] | None = None
    logprobs: list[TokenLogprob] | None = None
    choices: list[GeneratedText] | None = None
    tokens_generated: int
    total_tokens: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: str
    latency_ms: int
    time_to_first_token_ms: int | None = None
    nodes_used: list[NodeUsed]
    mended: int | None = None


class GeneratedText(Model):
    """One of several answers."""

    index: int
    text: str
    tool_calls: list[Call] | None = None
    finish_reason: str
    logprobs: list[TokenLogprob] | None = None


class HeartbeatAnswer(Model):
    """``should_rebalance``: the node would do more good at ``suggested_blocks`` (``[first, end)``), by how the swarm
    covers the model at this moment. It is advice: whether to move is the owner's decision. Always false for a
    node that the swarm does not hear of.
    """

    status: Literal["ok"] = "ok"
    should_rebalance: bool
    suggested_blocks: tuple[int, int] | None = None
    announced: bool


class HistoryAnswer(Model):
    """Contributions, newest first. ``next_cursor`` leads to older ones."""

    lines: list[HistoryLine]
    next_cursor: str | None = None


class HistoryLine(Model):
    """What a node did for a request, and what became of its money. ``blocks`` ends exclusive. ``receipt_id`` is the
    SHA-256 of the receipt that is paid; the receipt itself comes along when it is asked for.
    """

    request_id: str
    earned_at: AwareDatetime
    model_id: str
    node_id: str
    blocks: tuple[int, int]
    quantization: str
    tokens: int
    token_layers: int
    units: int
    far: float
    state: Literal["waiting", "batch", "paid", "refused", "free"] | str
    paid_at: AwareDatetime | None = None
    batch_number: int | None = None
    tx_hash: str | None = None
    receipt_id: str
    receipt: str | None = None


class JobList(Model):
    """Jobs of the caller, the newest first. ``next_cursor`` of one page is ``?cursor=`` of the next."""

    jobs: list[JobSummary]
    next_cursor: str | None = None


class JobState(Model):
    """A job of the caller's. ``result`` is there when it is completed, and when it was cancelled while it was
    running: what had been generated by then, with its bill.
    """

    job_id: str
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | str
    model_id: str
    tier: str
    tokens: int
    attempts: int
    request_id: str | None = None
    cancel_requested: bool
    error_code: str | None = None
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    result: GenerateAnswer | None = None
    error: ErrorFacts | None = None
    webhook: Webhook | None = None


class JobSummary(Model):
    """A job without what was said. ``tokens`` were generated so far; ``expires_at`` is when it will be gone."""

    job_id: str
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | str
    model_id: str
    tier: str
    tokens: int
    attempts: int
    request_id: str | None = None
    cancel_requested: bool
    error_code: str | None = None
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None


class JoinAnswer(Model):
    """How to serve here. ``is_private``: nodes need an invitation, and peers are told with it."""

    gateway: str
    prefix: str
    is_private: bool
    initial_peers: list[str]
    models: list[ModelToServe]


class KeyCreated(Model):
    """A new key. ``key`` is shown this once and kept nowhere."""

    id: str
    name: str
    prefix: str
    scopes: list[Literal["inference", "account:read", "account:write", "provider", "operator"] | str]
    limits: KeyLimits
    created_at: AwareDatetime
    last_used_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    key: str


class KeyEntry(Model):
    """A key as it can be shown at any time. ``prefix`` is its beginning; ``last_used_at`` is true to a minute."""

    id: str
    name: str
    prefix: str
    scopes: list[Literal["inference", "account:read", "account:write", "provider", "operator"] | str]
    limits: KeyLimits
    created_at: AwareDatetime
    last_used_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None


class KeyLimits(Model):
    """How much can be done with a key. Days are those of UTC, a minute is always the last one."""

    units_per_day: int | None = None
    requests_per_minute: int | None = None


class KeyList(Model):
    """The keys of a wallet, the newest first."""

    keys: list[KeyEntry]


class LeaseState(Model):
    """What one gateway at a time does, and which. ``held``: it has not run out."""

    name: str
    gateway: str
    held: bool
    expires_at: AwareDatetime


class ListedPrice(Model):
    """What a token of a model costs in a tier, before demand, and who says so: what an operator has set
    (``database``), the settings, or the tier, as a multiple of the standard price. Null: the model is not sold in
    this tier.
    """

    model_id: str
    tier: Literal["standard", "premium", "enterprise"] | str
    price: TierPrices | None = None
    source: Literal["database", "settings", "tier"] | str | None = None


class LoginAnswer(Model):
    """A bearer token."""

    token: str
    expires_at: AwareDatetime
    wallet_address: str


class ModelAdvice(Model):
    """``thin``: what fewer nodes serve than should. ``lacking``: what stays so after the moves, for which more nodes
    are needed.
    """

    model_id: str
    replicas: int
    thin: list[Stretch]
    moves: list[AdvisedMove]
    lacking: list[Stretch]


class ModelCoverage(Model):
    """How the swarm covers a model. ``thin``: what fewer than two nodes serve, and stops when one of them is lost."""

    model_id: str
    block_count: int
    min_nodes: int
    active_nodes: int
    available: bool
    reason: str | None = None
    coverage: list[Stretch]
    thin: list[Stretch]
    queue: QueueState | None = None


class ModelEntry(Model):
    """A model on sale. What has not been measured is null. Prices that stand outside ``prices`` are those of the
    tier standard, and ``fee_bps`` is the marketplace's part of them: the nodes earn the rest. ``reason`` says why
    it is not ``available``; ``min_vram_gb`` is null, as no node needs the whole model.
    """

    id: str
    name: str
    active_nodes: int
    avg_latency_ms: int | None = None
    price_per_token_far: float
    prompt_price_units: int
    cached_prompt_price_units: int
    completion_price_units: int
    fee_bps: int
    price_multiplier: float
    utilisation: float
    min_vram_gb: float | None = None
    min_nodes: int
    block_count: int
    context_length: int
    model_digest: str
    available: bool
    reason: str | None = None
    coverage: list[BlockCover]
    prices: dict[str, PriceInTier]


class ModelList(Model):
    """All models on sale."""

    models: list[ModelEntry]


class ModelReadiness(Model):
    """A model and the nodes that serve it. ``uncovered`` are block ranges ``[first, end)`` that nobody serves."""

    ok: bool
    reason: str | None = None
    active_nodes: int
    uncovered: list[tuple[int, int]]


class ModelToServe(Model):
    """A model on sale, for who would serve it. ``source`` is what a node is told as ``--model``; null: its files are
    with the operator.
    """

    model_id: str
    source: str | None = None
    weights: list[WeightSizes]
    last_week: WeekOfWork


class NodeAnswer(Model):
    """What is known of a node. ``models`` are announced now. ``claims`` is what the node said in its last heartbeat:
    nothing is decided by it. ``score`` is null where nothing was seen of it. What it earned is for its wallet
    alone.
    """

    node_id: str
    state: Literal["announced", "leaving", "registered", "gone"] | str
    wallet_address: str
    models: list[ServedModel]
    gpu_model: str | None = None
    vram_gb: int | None = None
    location: str | None = None
    reliability_score: float | None = None
    score: NodeScore | None = None
    avg_latency_ms: float | None = None
    registered: bool
    first_seen: AwareDatetime | None = None
    last_seen: AwareDatetime | None = None
    claims: dict[str, Any] | None = None


class NodeEarnings(Model):
    """A provider at a glance, by wallet. ``pending_payout_far`` was earned and is not paid yet."""

    wallet_address: str
    total_earned_far: float
    total_tokens_served: int
    active_nodes: int
    avg_uptime_percent: float | None = None
    pending_payout_far: float
    earnings_history: list[DatedEarning]


class NodeReceipt(Model):
    """A node's part of a request with what proves it: ``receipt`` is the document that the node has signed, as it
    came, JSON text of ``body``, ``signer`` and ``signature``. Anybody can check it without asking anybody.
    """

    node_id: str
    wallet_address: str
    layers: list[int]
    quantization: str
    token_layers: int
    paid_units: int
    receipt: str


class NodeRewards(Model):
    """What one node has earned in the days that were asked for. ``tokens`` are positions that it computed."""

    node_id: str
    requests: int
    tokens: int
    token_layers: int
    earned_units: int
    earned_far: float


class NodeScore(Model):
    """How far a node is trusted, from 0 to 1, and why: ``value`` is the product of its parts, each from 0 to 1.
    ``dependability`` is how seldom work breaks off there, ``honesty`` falls with answers and receipts that were
    wrong, ``presence`` is how much of the time it was there (1 where nobody watches), ``standing`` is a little
    less than 1 in its first hours. The counts are what is remembered: what is older counts for less, one half
    after a week. Work that was done for probers is among them, as ten pieces of work at most.
    """

    value: float
    dependability: float
    honesty: float
    presence: float
    standing: float
    completed: float
    failed: float
    timed_out: float
    pauses_caused: float
    receipts_rejected: float
    probes_right: float
    probes_wrong: float


class NodeStanding(Model):
    """How far one of the caller's nodes is trusted, and why; null: nothing was seen of it. ``advice`` says what
    would help, what helps most first.
    """

    node_id: str
    score: NodeScore | None = None
    advice: list[str]


class NodeUsed(Model):
    """A node that worked on a request, and what it is paid for it."""

    node_id: str
    wallet_address: str
    layers: list[int]
    quantization: str
    token_layers: int
    paid_units: int


class NonceAnswer(Model):
    """The parts of a sign-in message, and the message itself, ready to be signed."""

    nonce: str
    domain: str
    uri: str
    chain_id: int
    issued_at: AwareDatetime
    expiration_time: AwareDatetime
    message: str


class OpenSessions(Model):
    """Requests in the hands of a gateway: those whose money is being set aside, and those whose tokens flow."""

    gateway: str
    pending: int
    active: int


class PartState(Model):
    """One thing that serving needs. ``reason`` says in words why it is not there."""

    ok: bool
    reason: str | None = None


class Payments(Model):
    """How money comes in: by which provider, and whether into an escrow. ``held``: where providers are paid by
    transfer, how many cannot be paid what is due to them, by the reason; None where all can. ``chain_id`` is what
    sign-in messages name, ``chain`` a CAIP-2 name.
    """

    provider: str
    escrow: bool
    chain_id: int
    chain: str | None = None
    token_address: str | None = None
    escrow_address: str | None = None
    deposit_address: str | None = None
    held: dict[str, int] | None = None


class PendingAnswer(Model):
    """It is too early: ask again. ``needed`` are confirmations, or a word of the chain's own."""

    status: Literal["pending"] = "pending"
    confirmations: int | None = None
    needed: int | str | None = None
    message: str


class PriceInTier(Model):
    """What a token costs in a tier now."""

    prompt_price_units: int
    cached_prompt_price_units: int
    completion_price_units: int
    price_per_token_far: float


class PriceList(Model):
    """Every model on sale in every tier."""

    prices: list[ListedPrice]


class PrivatePool(Model):
    """The nodes of an account's own pool: peer ids, and wallets for those of their nodes that are registered."""

    wallet_address: str
    members: list[str]


class ProviderStats(Model):
    """What a dashboard shows at a glance. ``uptime`` is null: nobody measures it yet."""

    total_tokens_served: int = Field(alias="totalTokensServed")
    total_earned_far: float = Field(alias="totalEarnedFar")
    active_requests: int = Field(alias="activeRequests")
    uptime: float | None = None
    avg_latency_ms: int | None = Field(None, alias="avgLatencyMs")


class QueueState(Model):
    """In front of a model at this gateway: requests that wait, sessions that are open, and how many may be."""

    waiting: int
    in_use: int
    capacity: int


class QuoteAnswer(Model):
    """A price per token that is kept until ``expires_at`` for requests with this ``quote_id``, whatever their
    length. ``max_cost_units`` is what a request with so many tokens and ``n`` answers would hold.
    ``escrow_intent`` is the typed data (EIP-712) of an intent for the request ``request_id``, if it was asked
    for.
    """

    quote_id: str
    expires_at: AwareDatetime
    model_id: str
    tier: str
    prompt_tokens: int
    max_tokens: int
    n: int = 1
    prompt_price_units: int
    cached_prompt_price_units: int
    completion_price_units: int
    price_multiplier: float
    utilisation: float
    fee_bps: int
    max_cost_units: int
    max_cost_far: float
    request_id: str | None = None
    escrow_intent: dict[str, Any] | None = None


class Readiness(Model):
    """Whether requests can be served now, and if not, why."""

    status: str
    reasons: list[str]
    database: PartState
    chain: PartState
    models: dict[str, ModelReadiness]
    settlement: SettlementReadiness | None = None


class RebalanceAnswer(Model):
    """Advice. Nothing was changed, and no node was told anything by this."""

    applied: Literal[False] = False
    models: list[ModelAdvice]


class Reconciliation(Model):
    """When the books were compared with the chain the last time, until which block, and how many things of each kind
    disagreed. Whose money it is about is for the operator's logs alone.
    """

    at: AwareDatetime
    block: int
    findings: dict[str, int]


class ReconciliationEntry(Model):
    """When the books were compared with the chain the last time, until which block, and what was found."""

    at: AwareDatetime
    block: int
    findings: list[FindingEntry]


class RefusedRow(Model):
    """Something that the chain refuses, and why."""

    kind: str
    request_id: str
    reason: str | None = None


class RegistrationAnswer(Model):
    """``announced``: whether the swarm hears of the node. Requests go to announced nodes alone, registered or not."""

    node_id: str
    status: Literal["registered"] = "registered"
    discovery_url: str
    heartbeat_interval_sec: int
    announced: bool


class RequestReceipts(Model):
    """The receipts of a request, whose shares of its price are divided by them."""

    request_id: str
    model_id: str
    receipts: list[NodeReceipt]


class RequestState(Model):
    """A request of the caller: money, nodes and settlement. Never what was said. ``p95_token_ms``: of the times
    between its tokens 95 of 100 were no longer. ``spent_credit_units``: it was cheaper by so much for promises
    that earlier ones had missed.
    """

    request_id: str
    model_id: str
    tier: str
    status: str
    error_code: str | None = None
    payment: str
    channel_id: str | None = None
    started_at: AwareDatetime
    completed_at: AwareDatetime | None = None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: str | None = None
    held_units: int
    cost_units: int | None = None
    fee_units: int | None = None
    refund_units: int | None = None
    latency_ms: int | None = None
    time_to_first_token_ms: int | None = None
    p95_token_ms: int | None = None
    promised_p95_ms: int | None = None
    service_level_met: bool | None = None
    credit_far: float
    credit_units: int
    spent_credit_units: int
    nodes_used: list[NodeUsed]
    settlement: SettlementState


class RewardsAnswer(Model):
    """A provider's money. ``earned = waiting + in_flight + paid``, and ``paid = credit + unclaimed + withdrawn``.
    ``credit`` lies in the escrow and can be withdrawn, ``unclaimed`` is promised by payout roots; with
    ``withdrawn`` they are null while the chain does not answer. Without an escrow, what was paid was sent to the
    provider, and counts as withdrawn; ``transfer`` says where to. ``per_node`` and ``per_day`` are about the last
    days alone, ``scores`` about the nodes of the wallet that have served or are registered.
    """

    wallet_address: str
    earned_units: int
    waiting_units: int
    in_flight_units: int
    paid_units: int
    credit_units: int | None = None
    unclaimed_units: int | None = None
    withdrawn_units: int | None = None
    earned_far: float
    waiting_far: float
    in_flight_far: float
    paid_far: float
    credit_far: float | None = None
    unclaimed_far: float | None = None
    withdrawn_far: float | None = None
    per_node: list[NodeRewards]
    per_day: list[DayRewards]
    scores: list[NodeStanding]
    chain_id: int
    token_address: str | None = None
    escrow_address: str | None = None
    transfer: TransferTo | None = None


class ServedModel(Model):
    """A model that a node announces, and the blocks ``[first, end)`` of it. ``reached``: how others get through to
    the node, as it says itself; null: it does not say.
    """

    model_id: str
    state: Literal["announced", "leaving", "registered", "gone"] | str
    blocks: tuple[int, int]
    block_count: int
    quantization: str
    load: float
    reached: Literal["direct", "relay", "none"] | str | None = None
    expires_at: AwareDatetime


class ServedRange(Model):
    """A model that a worker announces, and the blocks ``[first, end)`` of it."""

    model_id: str
    blocks: tuple[int, int]


class SettlementOverview(Model):
    """How settling goes. ``batches`` are the newest first; ``next_before``: for the next page, if there may be one.
    ``reconciliation`` is null until the books were compared, and where there is no escrow.
    """

    waiting: WaitingRequests
    batches: list[BatchEntry]
    next_before: int | None = None
    reconciliation: ReconciliationEntry | None = None


class SettlementReadiness(Model):
    """The outbox: how many rows are in each state. ``settler`` is the gateway that settles now, ``oldest_seconds``
    for how long the row that waits longest has waited, ``at_fee_cap`` how many wait because ``FAR_MAX_FEE_GWEI``
    allows no more. ``failures`` were refused for good, and a person has to look at them; ``waiting`` are refused
    for now, by a pause or the cap of a day.
    """

    pending: int
    sent: int
    confirmed: int
    failed: int
    settler: str | None = None
    oldest_seconds: float | None = None
    at_fee_cap: int
    failures: list[RefusedRow]
    waiting: list[RefusedRow]


class SettlementState(Model):
    """How far the chain is. ``status`` of a request with an escrow of its own: none, locking, locked, releasing,
    released, cancelling, cancelled, failed. Of the others: none (there is nothing to pay), waiting (for its
    batch), in_batch (the chain is asked), paid. ``batch`` and ``batch_tx`` are those of its batch.
    """

    status: str
    lock_tx: str | None = None
    release_tx: str | None = None
    cancel_tx: str | None = None
    batch: int | None = None
    batch_tx: str | None = None
    error: str | None = None


class Stretch(Model):
    """Blocks ``[first_block, end_block)`` that equally many nodes serve."""

    first_block: int
    end_block: int
    replicas: int


class TierEntry(Model):
    """A tier, and what the models that are sold in it cost there."""

    name: Literal["standard", "premium", "enterprise"] | str
    price_factor_bps: int | None = None
    priority: Literal["high", "normal", "low"] | str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    max_tokens: int | None = None
    max_n: int
    queue_weight: int
    node_pool: Literal["any", "reliable", "private"] | str
    min_reliability: float | None = None
    p95_ms_per_token: int | None = None
    credit_bps: int = 0
    prices: dict[str, TierPrices]


class TierList(Model):
    """All tiers, the lowest first."""

    tiers: list[TierEntry]


class TierPrices(Model):
    """What a token of a model costs in a tier, before demand."""

    prompt_price_units: int
    completion_price_units: int


class TokenEvent(Model):
    """One event of a stream. ``index`` says of which answer, where there are several."""

    token: str
    request_id: str
    index: int | None = None
    tool_calls: list[Call] | None = None
    logprob: TokenLogprob | None = None


class TokenLogprob(Model):
    """A token that came, and what the likeliest ones would have been, best first."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[TopToken]


class TopToken(Model):
    """A token that could have come: its text, its bytes, perhaps a part of a character, and its log probability."""

    token: str
    bytes: list[int]
    logprob: float


class TransferTo(Model):
    """Where a provider is paid by transfer, where there is no escrow. ``address`` None: nowhere yet.
    ``next_address`` takes its place at ``next_from``. ``held_…`` say why what is due could not be paid.
    """

    chain: str | None = None
    address: str | None = None
    next_address: str | None = None
    next_from: AwareDatetime | None = None
    held_code: str | None = None
    held_reason: str | None = None


class UsageAnswer(Model):
    """What an account has used, the newest day first. ``total`` is about the whole time, ``usage`` one page of it."""

    wallet_address: str
    from_: date = Field(alias="from")
    to: date
    total: UsageSums
    usage: list[UsageLine]
    next_cursor: str | None = None


class UsageLine(Model):
    """The same for one day (UTC), model and API key. Without a key: the wallet had signed in itself. A key that was
    revoked long ago has no name any more.
    """

    requests: int
    failed_requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_units: int
    cost_far: str
    date: date
    model_id: str
    api_key_id: str | None = None
    api_key_name: str | None = None


class UsageSums(Model):
    """Requests that began in this time, those that failed and cost nothing included. ``cached_tokens`` are those of
    ``prompt_tokens`` that nodes knew from before. What is still under way has not cost anything yet.
    """

    requests: int
    failed_requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_units: int
    cost_far: str


class Vector(Model):
    """The vector of a text: numbers, or the base64 of 32-bit floats, the lowest byte first."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class VoucherEvent(Model):
    """The stream waits, for so many ``seconds``, until a voucher for at least ``promise_units`` is there. Where that
    is more than lies in the channel, it has to be topped up first.
    """

    type: Literal["voucher_needed"] = "voucher_needed"
    channel_id: str
    promise_units: int
    promise_wei: str
    deposit_units: int
    step_units: int
    seconds: float


class WaitingRequests(Model):
    """Requests that ended and that nobody was asked to pay yet: how many, what providers earned by them, and since
    when the oldest waits. They are settled when that is ``settle_seconds`` ago, or one provider is owed
    ``threshold_units``. ``ordered``: somebody asked for it to be done at once.
    """

    requests: int
    units: int
    oldest_at: AwareDatetime | None = None
    settle_seconds: float
    threshold_units: int
    ordered: bool


class Webhook(Model):
    """Where to tell of a job's end. The message has no text unless ``include_result`` asks for it."""

    url: str
    include_result: bool = False


class WebhookSecret(Model):
    """A new secret. ``secret`` is shown this once. Until ``previous_until`` messages are signed with the one before
    it too.
    """

    secret: str
    previous_until: AwareDatetime | None = None


class WeekOfWork(Model):
    """What a model was asked in the last seven days, and what its nodes earned by it together, in units of 1e-9 FAR.
    ``since``: when the first of these requests ended; null: there was none.
    """

    requests: int
    tokens: int
    node_units: int
    since: AwareDatetime | None = None


class WeightSizes(Model):
    """What each block of a model takes in memory, in bytes, in a kind of weights on a kind of device. ``none``:
    bfloat16 on a GPU, float32 on a CPU.
    """

    device: Literal["cpu", "cuda"] | str
    quantization: Literal["none", "int8", "nf4"] | str
    block_bytes: list[int]


class Worker(Model):
    """A node in the words of a scheduler. ``serverless``: an endpoint is known at which it can be woken."""

    worker_id: str
    worker_type: Literal["persistent", "serverless"] | str
    state: Literal["announced", "leaving", "registered", "gone"] | str
    endpoint_url: str | None = None
    vram_mb: int | None = None
    payment_address: str
    models: list[ServedRange]
    first_seen: AwareDatetime | None = None
    last_seen: AwareDatetime | None = None


class WorkerList(Model):
    """All nodes: those that are announced, those that are registered, those that were seen once; by their ids.
    ``next_after``: for the next page, if there may be one.
    """

    workers: list[Worker]
    next_after: str | None = None
