"""``/v1``: chat completions and the list of models."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from far_mesh.marketplace.auth.door import InferenceCaller, LimitedKey
from far_mesh.marketplace.inference.endpoints import RequestName, Service
from far_mesh.marketplace.inference.payment import wanted
from far_mesh.marketplace.inference.run import Run
from far_mesh.marketplace.inference.streams import EventStream, events_of, whole_text
from far_mesh.marketplace.openai_api.schemas import ChatAnswer, ChatRequest, ModelCard, ModelCards
from far_mesh.marketplace.openai_api.service import Envelope, wish_of
from far_mesh.marketplace.payments import intents

router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models")
async def models(request: Request, service: Service) -> ModelCards:
    """The models on sale. Needs no token."""
    opened = int(request.app.state.rooms.opened_at.timestamp())
    return ModelCards(data=[ModelCard(id=offer.model_id, created=opened) for offer in service.offers()])


@router.post("/chat/completions", response_model=ChatAnswer)
async def chat(
    request: Request,
    service: Service,
    wallet: InferenceCaller,
    key: LimitedKey,
    name: RequestName,
    body: ChatRequest,
    x_far_payment: Annotated[str | None, Header(max_length=80)] = None,
    x_far_escrow_intent: Annotated[str | None, Header(max_length=16_384)] = None,
) -> Response | ChatAnswer:
    """Answer a chat, at once or as a stream."""
    intent = None if x_far_escrow_intent is None else intents.from_header(x_far_escrow_intent)
    wish = replace(wish_of(body), payment=wanted(x_far_payment, intent), api_key_id=key)
    run = await service.start(wallet, name, wish)
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    envelope = Envelope(run.request_id, body.model, int(time.time()), include_usage)
    if wish.streamed:
        return EventStream(run, _events(run, envelope))
    text, answer = await whole_text(request, run)
    return envelope.whole(text, answer)


async def _events(run: Run, envelope: Envelope) -> AsyncIterator[str]:
    yield envelope.first()
    async for one in events_of(run, envelope.token(), envelope.last, envelope.needed):
        yield one
