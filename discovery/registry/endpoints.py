"""The registry's paths: open to read, and one for its operator."""

from __future__ import annotations

import asyncio
import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from discovery.protocol.announcement import MAX_MODEL_ID_LENGTH
from discovery.protocol.errors import InvalidArgument
from discovery.registry.errors import OperatorOnly
from discovery.registry.library import Library
from discovery.registry.ranges import ShardResponse
from discovery.registry.schemas import ModelStatus, ModelStatuses, ShardRequest

_MAX_BODY_BYTES = 4096

router = APIRouter(prefix="/models")


def _library(request: Request) -> Library:
    library: Library = request.app.state.library
    return library


OfLibrary = Annotated[Library, Depends(_library)]


@router.get("/status")
async def status(
    library: OfLibrary, model_id: Annotated[str | None, Query(max_length=MAX_MODEL_ID_LENGTH)] = None
) -> ModelStatuses:
    """How far each model is, or one."""
    wanted = library.model_ids if model_id is None else [model_id]
    return ModelStatuses(models=[ModelStatus.of(name, library.status(name)) for name in wanted])


@router.post("/shard", status_code=202)
async def shard(request: Request, library: OfLibrary) -> ModelStatus:
    """Read a model's files anew and cut them; the operator asks for it after they were changed. Returns at once."""
    _check_operator(request)
    wanted = await _read_request(request)
    status = library.status(wanted.model_id)
    tasks: set[asyncio.Task[None]] = request.app.state.tasks
    if status.state not in ("waiting", "preparing"):
        task = asyncio.create_task(library.prepare(wanted.model_id))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(0)  # it has begun when we answer
    return ModelStatus.of(wanted.model_id, library.status(wanted.model_id))


@router.get("/{model_id:path}/manifest")
async def manifest(model_id: str, library: OfLibrary) -> Response:
    """A model's files, their hashes, and which of them each block needs."""
    return Response(library.manifest(model_id).model_dump_json(), media_type="application/json")


@router.head("/{model_id:path}/files/{name}", include_in_schema=False)
@router.get("/{model_id:path}/files/{name}")
async def file(model_id: str, name: str, library: OfLibrary) -> ShardResponse:
    """A file, or a range of its bytes. Its ETag is its SHA-256."""
    return ShardResponse(library.open(model_id, name))


def _check_operator(request: Request) -> None:
    token: str | None = request.app.state.token
    if not token:
        raise OperatorOnly("this registry was started without a token, so nobody can ask it to shard")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise OperatorOnly("only the operator can ask for this: Authorization: Bearer …")


async def _read_request(request: Request) -> ShardRequest:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise InvalidArgument(f"the body is longer than {_MAX_BODY_BYTES} bytes")
    try:
        return ShardRequest.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise InvalidArgument(f"{place}: {first['msg']}") from None
