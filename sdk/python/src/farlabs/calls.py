"""The menu: what can be asked of a gateway, as values. Both clients have each of these as a method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, TypeVar
from urllib.parse import quote as escaped

from pydantic import TypeAdapter

from farlabs import models as m
from farlabs.exchange import Call, Reply, nothing, reading, reading_any, text_of
from farlabs.parameters import ClaimRequest, GenerateOptions, JobOptions, KeyLimits, Message, QuoteOptions

T = TypeVar("T")

_EARNINGS: TypeAdapter[list[m.Earning]] = TypeAdapter(list[m.Earning])
_DEPOSIT: TypeAdapter[m.DepositAnswer | m.PendingAnswer] = TypeAdapter(m.DepositAnswer | m.PendingAnswer)


def _get(path: str, read: Callable[[Reply], T], **query: Any) -> Call[T]:
    return Call("GET", path, read, query=query)


def _inner(value: str) -> str:
    return escaped(value, safe="")


def _time(given: datetime | str | None) -> str | None:
    return given.isoformat() if isinstance(given, datetime) else given


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# ---- generating


def generate(
    model: str,
    prompt: str | None,
    messages: Sequence[Message] | None,
    max_tokens: int | None,
    temperature: float | None,
    stream: bool,
    key: str | None,
    more: GenerateOptions,
) -> Call[Reply]:
    """An answer to a prompt or to messages."""
    body = _given(
        model_id=model,
        prompt=prompt,
        messages=None if messages is None else list(messages),
        max_tokens=max_tokens,
        temperature=temperature,
    )
    body |= {**more, "stream": stream}
    path = "/api/inference/distributed/generate"
    return Call("POST", path, lambda reply: reply, body=body, key=key or True, is_stream=stream)


def quote(
    model: str,
    prompt: str | None,
    messages: Sequence[Message] | None,
    max_tokens: int | None,
    more: QuoteOptions,
) -> Call[m.QuoteAnswer]:
    """What a token costs now."""
    asked = None if messages is None else list(messages)
    body = _given(model_id=model, prompt=prompt, messages=asked, max_tokens=max_tokens) | {**more}
    return Call("POST", "/api/inference/quote", reading(m.QuoteAnswer), body=body)


def models() -> Call[list[m.ModelEntry]]:
    """The models on sale."""
    read = reading(m.ModelList)
    return Call("GET", "/api/inference/models", lambda reply: read(reply).models, is_public=True)


def request(request_id: str) -> Call[m.RequestState]:
    """One of one's own requests."""
    return _get(f"/api/inference/requests/{_inner(request_id)}", reading(m.RequestState))


def receipts(request_id: str) -> Call[m.RequestReceipts]:
    """What nodes have signed for it."""
    return _get(f"/api/inference/requests/{_inner(request_id)}/receipts", reading(m.RequestReceipts))


def embeddings(
    model: str,
    inputs: Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | str,
    encoding_format: str | None,
    pooling: str | None,
    quote_id: str | None,
    tier: str | None,
    key: str | None,
) -> Call[m.EmbeddingAnswer]:
    """Vectors of texts."""
    asked = inputs if isinstance(inputs, str) else list(inputs)
    more = _given(encoding_format=encoding_format, pooling=pooling, quote_id=quote_id, tier=tier)
    body = {"model": model, "input": asked} | more
    return Call("POST", "/v1/embeddings", reading(m.EmbeddingAnswer), body=body, key=key or True)


# ---- jobs


def submit_job(
    model: str,
    prompt: str | None,
    messages: Sequence[Message] | None,
    max_tokens: int | None,
    key: str | None,
    more: JobOptions,
) -> Call[m.JobState]:
    """Something that is generated while nobody waits."""
    asked = None if messages is None else list(messages)
    body = _given(model_id=model, prompt=prompt, messages=asked, max_tokens=max_tokens) | {**more}
    return Call("POST", "/submit", reading(m.JobState), body=body, key=key or True)


def job_result(job_id: str, wait: float | None) -> Call[m.JobState]:
    """How far it is."""
    return _get(f"/results/{_inner(job_id)}", reading(m.JobState), wait=wait)


def jobs(status: str | None, limit: int | None, cursor: str | None) -> Call[m.JobList]:
    """One's jobs."""
    return _get("/jobs", reading(m.JobList), status=status, limit=limit, cursor=cursor)


def cancel_job(job_id: str) -> Call[m.JobState]:
    """Stop one."""
    return Call("DELETE", f"/results/{_inner(job_id)}", reading(m.JobState))


def deliveries(job_id: str) -> Call[list[m.DeliveryState]]:
    """Each time that its webhook was called."""
    read = reading(m.DeliveryList)
    return Call("GET", f"/jobs/{_inner(job_id)}/deliveries", lambda reply: read(reply).deliveries)


# ---- the account


def sign_out(token: str, everywhere: bool, revoke_keys: bool) -> Call[None]:
    """The token counts no more. The wallet is asked for nothing."""
    path = "/api/auth/logout/everywhere" if everywhere else "/api/auth/logout"
    body = {"revoke_keys": revoke_keys} if everywhere else None
    return Call("POST", path, nothing, body=body, token=token, is_public=True, is_repeatable=True)


def api_keys() -> Call[list[m.KeyEntry]]:
    """One's keys."""
    read = reading(m.KeyList)
    return Call("GET", "/api/account/keys", lambda reply: read(reply).keys)


def create_api_key(
    name: str, scopes: Sequence[str] | None, limits: KeyLimits | None, expires_at: datetime | str | None
) -> Call[m.KeyCreated]:
    """A new one."""
    asked = None if scopes is None else list(scopes)
    body = _given(name=name, scopes=asked, limits=limits, expires_at=_time(expires_at))
    return Call("POST", "/api/account/keys", reading(m.KeyCreated), body=body)


def revoke_api_key(key_id: str) -> Call[None]:
    """It counts no more."""
    return Call("DELETE", f"/api/account/keys/{_inner(key_id)}", nothing)


def balance() -> Call[m.BalanceAnswer]:
    """One's prepaid money."""
    return _get("/api/account/balance", reading(m.BalanceAnswer))


def deposit(transaction: str, payer_signature: str | None) -> Call[m.DepositAnswer | m.PendingAnswer]:
    """A transaction that has paid in."""
    body = _given(tx_hash=transaction, payer_signature=payer_signature)
    return Call("POST", "/api/account/deposit", reading_any(_DEPOSIT), body=body, is_repeatable=True)


def deposits(limit: int | None, before: int | None) -> Call[m.DepositList]:
    """What the chain has told."""
    return _get("/api/account/deposits", reading(m.DepositList), limit=limit, before=before)


def usage(
    first: date | str | None,
    last: date | str | None,
    model: str | None,
    api_key: str | None,
    limit: int | None,
    cursor: str | None,
) -> Call[m.UsageAnswer]:
    """What was used."""
    query = _spent(first, last, model, api_key) | {"limit": limit, "cursor": cursor}
    return _get("/api/account/usage", reading(m.UsageAnswer), **query)


def usage_csv(first: date | str | None, last: date | str | None, model: str | None, api_key: str | None) -> Call[str]:
    """The same as a table."""
    query = _spent(first, last, model, api_key) | {"format": "csv"}
    return Call("GET", "/api/account/usage", text_of, query=query, accept="text/csv")


def _spent(first: date | str | None, last: date | str | None, model: str | None, api_key: str | None) -> dict[str, Any]:
    return {"from": _day(first), "to": _day(last), "model_id": model, "api_key_id": api_key}


def _day(given: date | str | None) -> str | None:
    return given.isoformat() if isinstance(given, date) else given


def webhook_secret() -> Call[m.WebhookSecret]:
    """A new one."""
    return Call("POST", "/api/account/webhook-secret", reading(m.WebhookSecret))


def tiers() -> Call[m.TierList]:
    """What each tier promises and costs."""
    return Call("GET", "/api/tiers", reading(m.TierList), is_public=True)


def account_tier() -> Call[m.AccountTier]:
    """One's own."""
    return _get("/api/account/tier", reading(m.AccountTier))


def channels() -> Call[list[m.ChannelState]]:
    """One's payment channels."""
    read = reading(m.ChannelList)
    return Call("GET", "/api/channels", lambda reply: read(reply).channels)


def channel(channel_id: str) -> Call[m.ChannelState]:
    """One of them."""
    return _get(f"/api/channels/{_inner(channel_id)}", reading(m.ChannelState))


def look_at_channel(channel_id: str) -> Call[m.ChannelState]:
    """One that was just opened or topped up."""
    body = {"channel_id": channel_id}
    return Call("POST", "/api/channels", reading(m.ChannelState), body=body, is_repeatable=True)


# ---- providers and nodes


def active_nodes(
    model: str,
    location: tuple[float, float] | str | None,
    max_distance_km: float | None,
    limit: int | None,
    offset: int | None,
) -> Call[m.ActiveNodes]:
    """Who serves a model now."""
    place = ",".join(map(str, location)) if isinstance(location, tuple) else location
    query = {"location": place, "max_distance_km": max_distance_km, "limit": limit, "offset": offset}
    path = f"/api/nodes/active/{escaped(model, safe='/')}"
    return Call("GET", path, reading(m.ActiveNodes), query=query, is_public=True)


def node(node_id: str) -> Call[m.NodeAnswer]:
    """What is known of a node."""
    return Call("GET", f"/api/nodes/{_inner(node_id)}", reading(m.NodeAnswer), is_public=True)


def how_to_serve() -> Call[m.JoinAnswer]:
    """What somebody needs to know who wants to serve."""
    return Call("GET", "/api/provider/join", reading(m.JoinAnswer), is_public=True)


def claim_node(claim: ClaimRequest) -> Call[m.ClaimAnswer]:
    """A claim that node and wallet have signed."""
    return Call("POST", "/api/provider/nodes", reading(m.ClaimAnswer), body=claim, is_public=True)


def provider_nodes() -> Call[list[m.NodeAnswer]]:
    """One's nodes."""
    read = reading(m.ClaimedNodes)
    return Call("GET", "/api/provider/nodes", lambda reply: read(reply).nodes)


def provider_stats() -> Call[m.ProviderStats]:
    """A provider at a glance."""
    return _get("/api/provider/stats", reading(m.ProviderStats))


def rewards(days: int | None) -> Call[m.RewardsAnswer]:
    """A provider's money."""
    return _get("/api/provider/rewards", reading(m.RewardsAnswer), days=days)


def reward_history(limit: int | None, cursor: str | None, receipts: bool | None) -> Call[m.HistoryAnswer]:
    """What nodes did for which request."""
    return _get("/api/provider/history", reading(m.HistoryAnswer), limit=limit, cursor=cursor, receipts=receipts)


def earnings_history(days: int | None) -> Call[list[m.Earning]]:
    """What each day brought."""
    return _get("/api/provider/earnings/history", reading_any(_EARNINGS), days=days)


def node_earnings(wallet: str, days: int | None) -> Call[m.NodeEarnings]:
    """A provider at a glance."""
    return _get(f"/api/nodes/earnings/{_inner(wallet)}", reading(m.NodeEarnings), days=days)


def claims(limit: int | None, cursor: str | None) -> Call[m.ClaimsAnswer]:
    """Payout roots."""
    return _get("/api/provider/claims", reading(m.ClaimsAnswer), limit=limit, cursor=cursor)


def batch(number: int, limit: int | None, cursor: str | None) -> Call[m.BatchAnswer]:
    """A batch."""
    return _get(f"/api/provider/batches/{number}", reading(m.BatchAnswer), limit=limit, cursor=cursor)


def payout_address() -> Call[m.TransferTo]:
    """Where one is paid by transfer."""
    return _get("/api/provider/payout-address", reading(m.TransferTo))


def set_payout_address(address: str) -> Call[m.TransferTo]:
    """Be paid elsewhere."""
    return Call("PUT", "/api/provider/payout-address", reading(m.TransferTo), body={"address": address})


# ---- operators


def account_tiers() -> Call[list[m.AccountTier]]:
    """Who is in another tier than the usual one."""
    read = reading(m.AccountTiers)
    return Call("GET", "/api/operator/tiers", lambda reply: read(reply).accounts)


def wallet_tier(wallet: str) -> Call[m.AccountTier]:
    """The tier of an account."""
    return _get(f"/api/operator/tiers/{_inner(wallet)}", reading(m.AccountTier))


def set_wallet_tier(wallet: str, tier: str, until: datetime | str | None) -> Call[m.AccountTier]:
    """Put an account into a tier."""
    body = _given(tier=tier, until=_time(until))
    return Call("PUT", f"/api/operator/tiers/{_inner(wallet)}", reading(m.AccountTier), body=body)


def private_pool(wallet: str) -> Call[m.PrivatePool]:
    """The nodes that an account has to itself."""
    return _get(f"/api/operator/pools/{_inner(wallet)}", reading(m.PrivatePool))


def set_private_pool(wallet: str, members: Sequence[str]) -> Call[m.PrivatePool]:
    """Say which these are."""
    path = f"/api/operator/pools/{_inner(wallet)}"
    return Call("PUT", path, reading(m.PrivatePool), body={"members": list(members)})


def workers(limit: int | None, after: str | None) -> Call[m.WorkerList]:
    """All nodes that are known."""
    return _get("/workers", reading(m.WorkerList), limit=limit, after=after)


def add_worker(
    worker_id: str, endpoint_url: str, payment_address: str, vram_mb: int | None, model: str | None
) -> Call[m.Worker]:
    """Enter one that sleeps."""
    body: dict[str, Any] = {"worker_id": worker_id, "worker_type": "serverless", "endpoint_url": endpoint_url}
    body |= {"payment_address": payment_address} | _given(vram_mb=vram_mb, model_id=model)
    return Call("POST", "/workers", reading(m.Worker), body=body)


def remove_worker(worker_id: str) -> Call[None]:
    """Strike it off."""
    return Call("DELETE", f"/workers/{_inner(worker_id)}", nothing)


def rebalance(model: str | None, replicas: int | None) -> Call[m.RebalanceAnswer]:
    """Advice on who would do more good where."""
    body = _given(model_id=model, replicas=replicas)
    return Call("POST", "/api/cluster/rebalance", reading(m.RebalanceAnswer), body=body, is_repeatable=True)


def settlement(limit: int | None, before: int | None) -> Call[m.SettlementOverview]:
    """What waits to be settled, and what was."""
    return _get("/api/operator/settlement", reading(m.SettlementOverview), limit=limit, before=before)


def list_prices() -> Call[list[m.ListedPrice]]:
    """What tokens cost before demand."""
    read = reading(m.PriceList)
    return Call("GET", "/api/operator/prices", lambda reply: read(reply).prices)


def set_list_price(
    model: str, tier: str, prompt_price_units: int | None, completion_price_units: int | None
) -> Call[m.ListedPrice]:
    """Change one of them; without units the settings decide again."""
    price = _given(prompt_price_units=prompt_price_units, completion_price_units=completion_price_units)
    body = {"model_id": model, "tier": tier, "price": price or None}
    return Call("PUT", "/api/operator/prices", reading(m.ListedPrice), body=body)


# ---- the gateway


def cluster_status() -> Call[m.ClusterStatus]:
    """Everything at once; for operators."""
    return _get("/api/cluster/status", reading(m.ClusterStatus))


def health() -> Call[m.Alive]:
    """Whether it lives."""
    return Call("GET", "/health", reading(m.Alive), is_public=True)


def ready() -> Call[m.Readiness]:
    """Whether it can serve, and if not, why."""
    also = frozenset({503})
    return Call("GET", "/ready", reading(m.Readiness), is_public=True, also=also)
