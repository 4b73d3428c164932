"""The registry's application and its server."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from discovery.protocol.announcement import MAX_MODEL_ID_LENGTH
from discovery.protocol.errors import FarError, InvalidArgument
from discovery.registry.endpoints import router
from discovery.registry.errors import ModelNotServed
from discovery.registry.files import is_directory
from discovery.registry.library import Library, OnPrepared

MAX_CONNECTIONS = 256
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def parse_model(text: str) -> tuple[str, Path]:
    """``DIR``, whose name is the model's, or ``ID=DIR``, as an id and a directory.

    Raises:
        InvalidArgument: there is no such directory, or the id is none.
    """
    model_id, given, place = text.partition("=")
    if not given or is_directory(text):
        model_id, place = "", text
    if not is_directory(place):
        raise InvalidArgument(f"--model {text!r}: there is no directory {place!r}")
    directory = Path(place).expanduser()
    model_id = model_id or directory.resolve().name
    if not _MODEL_ID.fullmatch(model_id) or len(model_id) > MAX_MODEL_ID_LENGTH:
        raise InvalidArgument(f"--model {text!r}: {model_id!r} is no name of a model; give one with ID=DIR")
    return model_id, directory.resolve()


def create_app(
    models: Mapping[str, Path], token: str | None = None, on_prepared: OnPrepared = lambda _id, _status: None
) -> FastAPI:
    """The registry of these directories by public name. They are read, one after the other, while it answers.

    Args:
        token: what the operator shows to have a model read anew. Without one nobody can.
        on_prepared: told when a model is ready or has failed.
    """
    app = FastAPI(title="Far Mesh layer registry", docs_url=None, redoc_url=None, lifespan=_lifespan)
    app.state.library = Library(models, on_prepared)
    app.state.token = token
    app.state.tasks = set[asyncio.Task[None]]()
    app.include_router(router)

    @app.exception_handler(FarError)
    async def far_error(_request: Request, error: FarError) -> JSONResponse:
        return _answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _answer(InvalidArgument(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return _answer(ModelNotServed("there is nothing at this path"))
        return _answer(InvalidArgument(str(error.detail)), error.status_code)

    return app


def _answer(error: FarError, status: int | None = None) -> JSONResponse:
    headers = {"retry-after": str(math.ceil(error.retry_after))} if error.retry_after is not None else None
    return JSONResponse({"error": {"code": error.code, "message": error.message}}, status or error.status, headers)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    library: Library = app.state.library

    async def prepare_all() -> None:
        for model_id in library.model_ids:
            await library.prepare(model_id)

    preparing = asyncio.create_task(prepare_all())
    try:
        yield
    finally:
        library.close()
        for task in (preparing, *app.state.tasks):
            task.cancel()
        await asyncio.gather(preparing, *app.state.tasks, return_exceptions=True)
