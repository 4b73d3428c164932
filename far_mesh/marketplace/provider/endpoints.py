"""``/api/provider``: what those who lend their machines see of their work and their money. Everybody sees their own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from discovery.score import what_helps
from far_mesh.marketplace.account.deposits import PayIn
from far_mesh.marketplace.auth.door import Caller, ProviderCaller
from far_mesh.marketplace.chain.amounts import units_to_far, units_to_wei
from far_mesh.marketplace.chain.client import request_key
from far_mesh.marketplace.errors import NotFound
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.nodes.schemas import NodeRow, NodeScore
from far_mesh.marketplace.provider.payouts import PaidAt, PayoutRoom
from far_mesh.marketplace.provider.repository import Earned
from far_mesh.marketplace.provider.schemas import (
    BatchAnswer,
    BatchLine,
    Claim,
    ClaimsAnswer,
    DatedEarning,
    DayRewards,
    Earning,
    HistoryAnswer,
    HistoryLine,
    NewPayoutAddress,
    NodeEarnings,
    NodeRewards,
    NodeStanding,
    ProviderStats,
    RewardsAnswer,
    TransferTo,
)
from far_mesh.marketplace.provider.service import (
    ClaimOfRoot,
    Line,
    ProvenLine,
    ProviderService,
    Rewards,
    first_day,
)
from far_mesh.marketplace.settlement.schemas import RowStatus

MAX_DAYS, MAX_LINES, MAX_ROOTS = 366, 200, 20

router = APIRouter(tags=["provider"])


async def provider_service(request: Request) -> ProviderService:
    """The room's service, made by the app."""
    service: ProviderService = request.app.state.rooms.provider
    return service


async def pay_in_of(request: Request) -> PayIn:
    """Where the money is."""
    pay_in: PayIn = request.app.state.rooms.pay_in
    return pay_in


async def payouts_of(request: Request) -> PayoutRoom:
    """Where providers are paid by transfer.

    Raises:
        NotFound: the escrow pays.
    """
    room: PayoutRoom | None = request.app.state.rooms.payouts
    if room is None:
        raise NotFound("there is an escrow here: providers withdraw from it, to whichever address they like")
    return room


Service = Annotated[ProviderService, Depends(provider_service)]
MoneyIn = Annotated[PayIn, Depends(pay_in_of)]
Payouts = Annotated[PayoutRoom, Depends(payouts_of)]
Days = Annotated[int, Query(ge=1, le=MAX_DAYS)]
Cursor = Annotated[str | None, Query(max_length=64)]
Limit = Annotated[int, Query(ge=1, le=MAX_LINES)]


@router.get("/api/provider/rewards")
async def rewards(
    request: Request, service: Service, money: MoneyIn, wallet: ProviderCaller, days: Days = 30
) -> RewardsAnswer:
    """All of the caller's money, and what the last days brought: per node, and per day from the oldest to today. And
    how far the caller's nodes are trusted, which decides how much work they get."""
    found = await service.rewards(wallet, days)
    room: PayoutRoom | None = request.app.state.rooms.payouts
    return RewardsAnswer(
        wallet_address=wallet,
        **_sums(found),
        per_node=[_per_node(row) for row in found.per_node],
        per_day=_per_day(found.per_day, days, found.by_node),
        scores=[_standing(row) for row in await service.nodes(wallet)],
        chain_id=money.chain_id,
        token_address=money.token_address,
        escrow_address=money.escrow_address,
        transfer=None if room is None else _transfer(money, await room.of(wallet)),
    )


@router.get("/api/provider/payout-address", responses=errors(404))
async def payout_address(wallet: ProviderCaller, room: Payouts, money: MoneyIn) -> TransferTo:
    """Where the caller is paid by transfer, and what stands in the way."""
    return _transfer(money, await room.of(wallet))


@router.put("/api/provider/payout-address", responses=errors(404, 409))
async def change_payout_address(wallet: Caller, room: Payouts, money: MoneyIn, body: NewPayoutAddress) -> TransferTo:
    """Say where the caller is to be paid. It counts after a while, until when it can be taken back."""
    return _transfer(money, await room.change(wallet, body.address))


@router.get("/api/provider/history")
async def history(
    service: Service, wallet: ProviderCaller, cursor: Cursor = None, limit: Limit = 50, receipts: bool = False
) -> HistoryAnswer:
    """What the caller's nodes did for which request, and what became of the money, newest first."""
    page = await service.history(wallet, cursor, limit)
    return HistoryAnswer(lines=[_line(line, receipts) for line in page.items], next_cursor=page.next_cursor)


@router.get("/api/provider/batches/{number}")
async def batch(
    service: Service,
    wallet: ProviderCaller,
    number: Annotated[int, Path(ge=0, lt=2**63)],
    cursor: Cursor = None,
    limit: Limit = 50,
) -> BatchAnswer:
    """A batch as the chain announces it, with the caller's lines in it and a Merkle proof for each."""
    part = await service.batch(wallet, number, cursor, limit)
    found = part.batch
    return BatchAnswer(
        number=found.number,
        kind=found.kind,
        detail_root=found.detail_root,
        requests=found.requests,
        total_units=found.total_units,
        fee_units=found.fee_units,
        created_at=found.created_at,
        status=part.act.status if part.act else RowStatus.PENDING,
        tx_hash=part.act.tx_hash if part.act else None,
        block_number=part.act.block_number if part.act else None,
        payout_units=part.payout_units,
        lines=[_proven(line) for line in part.lines.items],
        next_cursor=part.lines.next_cursor,
    )


@router.get("/api/provider/claims")
async def claims(
    service: Service,
    money: MoneyIn,
    wallet: ProviderCaller,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=MAX_ROOTS)] = MAX_ROOTS,
) -> ClaimsAnswer:
    """The payout roots in which the caller is, with what each promises and its proof, newest first."""
    claimed, page = await service.claims(wallet, cursor, limit)
    return ClaimsAnswer(
        wallet_address=wallet,
        claimed_units=claimed,
        claims=[_claim(claim) for claim in page.items],
        next_cursor=page.next_cursor,
        chain_id=money.chain_id,
        escrow_address=money.escrow_address,
    )


@router.get("/api/provider/stats")
async def stats(service: Service, wallet: ProviderCaller) -> ProviderStats:
    """The caller's nodes at a glance."""
    found = await service.stats(wallet)
    return ProviderStats(
        total_tokens_served=found.tokens_served,
        total_earned_far=units_to_far(found.earned_units),
        active_requests=found.active_requests,
        uptime=None,
        avg_latency_ms=found.average_latency_ms,
    )


@router.get("/api/provider/earnings/history")
async def earnings_history(service: Service, wallet: ProviderCaller, days: Days = 30) -> list[Earning]:
    """What each of the last days brought the caller, from the oldest to today."""
    by_day = _per_day(await service.per_day(wallet, days), days)
    return [Earning(date=day.date, amount=day.earned_far) for day in by_day]


@router.get("/api/nodes/earnings/{wallet_address}")
async def node_earnings(service: Service, wallet: ProviderCaller, wallet_address: str, days: Days = 30) -> NodeEarnings:
    """The caller's own earnings, in the words of section 7.2 of the specification."""
    if wallet_address.lower() != wallet.lower():
        raise NotFound("a wallet's earnings are for the wallet alone: sign in with it")
    found = await service.stats(wallet)
    by_day = _per_day(await service.per_day(wallet, days), days)
    return NodeEarnings(
        wallet_address=wallet,
        total_earned_far=units_to_far(found.earned_units),
        total_tokens_served=found.tokens_served,
        active_nodes=found.active_nodes,
        avg_uptime_percent=None,
        pending_payout_far=units_to_far(found.pending_units),
        earnings_history=[DatedEarning(date=day.date, amount_far=day.earned_far) for day in by_day],
    )


def _sums(found: Rewards) -> dict[str, Any]:
    there = found.on_chain
    units = {
        "earned": found.earned,
        "waiting": found.waiting,
        "in_flight": found.in_flight,
        "paid": found.paid,
        "credit": there.credit if there else None,
        "unclaimed": there.unclaimed if there else None,
        "withdrawn": found.withdrawn,
    }
    far = {f"{name}_far": None if value is None else units_to_far(value) for name, value in units.items()}
    return {f"{name}_units": value for name, value in units.items()} | far


def _transfer(money: PayIn, found: PaidAt) -> TransferTo:
    return TransferTo(
        chain=money.chain,
        address=found.address,
        next_address=found.change.address if found.change else None,
        next_from=found.change.effective_at if found.change else None,
        held_code=found.held.code if found.held else None,
        held_reason=found.held.reason if found.held else None,
    )


def _per_node(row: Earned) -> NodeRewards:
    return NodeRewards(
        node_id=row.node_id,
        requests=row.requests,
        tokens=row.tokens,
        token_layers=row.token_layers,
        earned_units=row.units,
        earned_far=units_to_far(row.units),
    )


def _standing(row: NodeRow) -> NodeStanding:
    advice = () if row.seen is None else what_helps(row.seen)
    return NodeStanding(node_id=row.node_id, score=NodeScore.of(row.seen), advice=list(advice))


def _per_day(
    found: Mapping[str, Earned], days: int, by_node: Mapping[str, Mapping[str, int]] | None = None
) -> list[DayRewards]:
    """Every day, with or without work."""
    first, rewards = first_day(days), []
    for offset in range(days):
        date = (first + timedelta(days=offset)).date().isoformat()
        row = found.get(date)
        units = row.units if row else 0
        rewards.append(
            DayRewards(
                date=date,
                requests=row.requests if row else 0,
                token_layers=row.token_layers if row else 0,
                earned_units=units,
                earned_far=units_to_far(units),
                nodes=dict((by_node or {}).get(date, {})),
            )
        )
    return rewards


def _line(line: Line, with_receipt: bool) -> HistoryLine:
    done = line.done
    return HistoryLine(
        request_id=done.request_id,
        earned_at=done.earned_at,
        model_id=done.model_id,
        node_id=done.node_id,
        blocks=(done.first_block, done.end_block),
        quantization=done.quantization,
        tokens=done.tokens,
        token_layers=done.token_layers,
        units=done.units,
        far=units_to_far(done.units),
        state=line.state,
        paid_at=done.paid_at,
        batch_number=done.number,
        tx_hash=line.act.tx_hash if line.act else None,
        receipt_id=hashlib.sha256(done.receipt.encode()).hexdigest(),
        receipt=done.receipt if with_receipt else None,
    )


def _proven(line: ProvenLine) -> BatchLine:
    return BatchLine(
        request_id=line.request_id,
        request_key=_hex(request_key(line.request_id)),
        units=line.units,
        wei=str(units_to_wei(line.units)),
        proof=[_hex(one) for one in line.proof],
    )


def _claim(claim: ClaimOfRoot) -> Claim:
    return Claim(
        epoch=claim.epoch,
        state=claim.state,
        root=_hex(claim.root),
        claimable_at=claim.claimable_at,
        cumulative_units=claim.cumulative_units,
        cumulative_wei=str(units_to_wei(claim.cumulative_units)),
        open_units=claim.open_units,
        proof=[_hex(one) for one in claim.proof],
    )


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
