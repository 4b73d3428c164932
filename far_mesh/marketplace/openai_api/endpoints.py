"""``/v1``: chats, completions, embeddings and the models on sale."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response

from far_mesh.marketplace.auth.door import ApiKeyId, InferenceCaller
from far_mesh.marketplace.inference.endpoints import GENERATE_ERRORS, RequestName, Service, model_entry, streamed
from far_mesh.marketplace.inference.payment import Wanted, wanted
from far_mesh.marketplace.inference.run import Run
from far_mesh.marketplace.inference.service import ModelState
from far_mesh.marketplace.inference.streams import EventStream, all_of, answer_headers, events_of, started
from far_mesh.marketplace.limits.door import PerAddress
from far_mesh.marketplace.openai_api import chat, completions, embeddings
from far_mesh.marketplace.openai_api.schemas import (
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    CompletionAnswer,
    CompletionRequest,
    EmbeddingAnswer,
    EmbeddingRequest,
    ModelCard,
    ModelCards,
)
from far_mesh.marketplace.openai_api.service import Envelope
from far_mesh.marketplace.payments import intents

router = APIRouter(prefix="/v1", tags=["openai"])


async def way_to_pay(
    x_far_payment: Annotated[str | None, Header(max_length=80)] = None,
    x_far_escrow_intent: Annotated[str | None, Header(max_length=16_384)] = None,
) -> Wanted:
    """How the caller wants to pay, by headers, as these bodies have no room for it."""
    intent = None if x_far_escrow_intent is None else intents.from_header(x_far_escrow_intent)
    return wanted(x_far_payment, intent)


WayToPay = Annotated[Wanted, Depends(way_to_pay)]


@router.get("/models", dependencies=[PerAddress])
async def models(request: Request, service: Service) -> ModelCards:
    """The models on sale. Needs no token."""
    return ModelCards(data=[_card(request, state) for state in await service.models()])


@router.get("/models/{model_id:path}", dependencies=[PerAddress])
async def model(request: Request, service: Service, model_id: str) -> ModelCard:
    """One of them. Needs no token."""
    return _card(request, await service.model(model_id))


def _card(request: Request, state: ModelState) -> ModelCard:
    entry, opened_at = model_entry(state), request.app.state.rooms.opened_at
    return ModelCard(id=entry.id, created=int(opened_at.timestamp()), context_length=entry.context_length, far=entry)


@router.post("/chat/completions", response_model=ChatAnswer, responses=GENERATE_ERRORS | streamed(ChatChunk))
async def create_chat(
    request: Request,
    response: Response,
    service: Service,
    wallet: InferenceCaller,
    key: ApiKeyId,
    name: RequestName,
    payment: WayToPay,
    body: ChatRequest,
) -> Response | ChatAnswer:
    """Answer a chat, at once or as a stream."""
    wish = replace(chat.wish_of(body), payment=payment, api_key_id=key)
    run = await started(request, service.start(wallet, name, wish))
    envelope = Envelope(
        f"chatcmpl-{run.request_id}", body.model, int(time.time()), wish.choices, include_usage=body.include_usage
    )
    parallel = body.parallel_tool_calls is not False
    told = chat.Chat(envelope, run.tool_format, parallel=parallel, with_logprobs=bool(body.logprobs))
    if wish.streamed:
        return EventStream(run, _events(run, told))
    items, answer = await all_of(request, run)
    response.headers.update(answer_headers(run, answer))
    return told.whole(items, answer)


@router.post("/completions", response_model=CompletionAnswer, responses=GENERATE_ERRORS | streamed(CompletionAnswer))
async def create_completion(
    request: Request,
    response: Response,
    service: Service,
    wallet: InferenceCaller,
    key: ApiKeyId,
    name: RequestName,
    payment: WayToPay,
    body: CompletionRequest,
) -> Response | CompletionAnswer:
    """Go on from texts, at once or as a stream. No chat template is put round them."""
    wish = replace(completions.wish_of(body), payment=payment, api_key_id=key)
    run = await started(request, service.start(wallet, name, wish))
    texts = len(wish.prompts) * wish.choices
    envelope = Envelope(f"cmpl-{run.request_id}", body.model, int(time.time()), texts, include_usage=body.include_usage)
    echoes = [_echo(service, body.model, prompt) for prompt in wish.prompts for _ in range(wish.choices)]
    told = completions.Completion(envelope, echoes if body.echo else ())
    if wish.streamed:
        return EventStream(run, _events(run, told))
    items, answer = await all_of(request, run)
    response.headers.update(answer_headers(run, answer))
    return told.whole(items, answer)


def _echo(service: Service, model_id: str, prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else service.decoded(model_id, prompt)


@router.post("/embeddings", responses=GENERATE_ERRORS)
async def create_embeddings(
    request: Request,
    response: Response,
    service: Service,
    wallet: InferenceCaller,
    key: ApiKeyId,
    name: RequestName,
    payment: WayToPay,
    body: EmbeddingRequest,
) -> EmbeddingAnswer:
    """A vector for each text: the last hidden states of the model, pooled, one long."""
    wish = replace(embeddings.wish_of(body), payment=payment, api_key_id=key)
    run = await started(request, service.start(wallet, name, wish))
    items, answer = await all_of(request, run)
    response.headers.update(answer_headers(run, answer))
    return embeddings.whole(body, items, answer)


async def _events(run: Run, told: chat.Chat | completions.Completion) -> AsyncIterator[str]:
    for one in told.first():
        yield one
    # Who pays token by token has to know of each.
    async for one in events_of(run, told.is_due if run.is_metered else told.said, told.last, told.needed):
        yield one
