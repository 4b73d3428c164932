"""Can requests be served now?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from discovery.protocol.errors import FarError
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import DatabaseUnavailable
from far_mesh.marketplace.health.schemas import ModelReadiness, PartState, Readiness, RefusedRow, SettlementReadiness
from far_mesh.marketplace.inference.service import InferenceService, ModelState
from far_mesh.marketplace.settlement import repository as outbox
from far_mesh.marketplace.settlement import transfer_repository as transfers
from far_mesh.marketplace.settlement.lead import LEASE
from far_mesh.marketplace.settlement.schemas import Row


class HealthService:
    """Asks every part."""

    def __init__(
        self, database: Database, chain_answers: Callable[[], Awaitable[object]], inference: InferenceService
    ) -> None:
        self._database = database
        self._chain_answers = chain_answers
        self._inference = inference

    async def readiness(self) -> Readiness:
        """Ready when the database and the chain answer and at least one model has all its blocks."""
        database = await _state_of(self._database.check())
        chain = await _state_of(self._chain_answers())
        models = await self._models() if database.ok else {}
        settlement = await self._settlement() if database.ok else None
        reasons = [part.reason for part in (database, chain) if part.reason]
        if self._inference.is_closing:
            reasons.insert(0, "this gateway is about to stop")
        if not any(model.ok for model in models.values()):
            reasons += [model.reason for model in models.values() if model.reason]
        return Readiness(
            status="unready" if reasons else "ready",
            reasons=reasons,
            database=database,
            chain=chain,
            models=models,
            settlement=settlement,
        )

    async def held(self) -> dict[str, int]:
        """How many providers cannot be paid what is due to them by transfer, by the reason. Nothing while the database
        does not answer."""
        try:
            async with self._database.reading() as connection:
                return dict(Counter(one.code for one in (await transfers.held(connection)).values()))
        except DatabaseUnavailable:
            return {}

    async def _models(self) -> dict[str, ModelReadiness]:
        states = await self._inference.models()
        return {state.on_sale.offer.model_id: _model(state) for state in states}

    async def _settlement(self) -> SettlementReadiness | None:
        try:
            async with self._database.reading() as connection:
                counts = await outbox.counts(connection)
                failed = await outbox.failures(connection)
                refused = await outbox.objections(connection)
                settler = await outbox.holder(connection, LEASE)
                oldest = await outbox.oldest_unfinished(connection)
                capped = await outbox.count_capped(connection)
        except DatabaseUnavailable:
            return None
        return SettlementReadiness(
            **counts,
            settler=settler,
            oldest_seconds=None if oldest is None else round(oldest.total_seconds(), 3),
            at_fee_cap=capped,
            failures=[_refused(row) for row in failed],
            waiting=[_refused(row) for row in refused],
        )


def _refused(row: Row) -> RefusedRow:
    return RefusedRow(kind=row.kind, request_id=row.request_id, reason=row.error)


async def _state_of(check: Awaitable[object]) -> PartState:
    try:
        await check
    except FarError as error:
        return PartState(ok=False, reason=error.message)
    return PartState(ok=True)


def _model(state: ModelState) -> ModelReadiness:
    reason = state.obstacle
    return ModelReadiness(ok=reason is None, reason=reason, active_nodes=state.active_nodes, uncovered=state.gaps)
