"""The tools: what they take, what they give back, and how they fail.

What they take is checked by the shapes of ``/api/inference``, and they answer with those. What is allowed, priced and
paid is decided by the services behind them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import structlog
from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from discovery.protocol.errors import FarError
from discovery.tracing import here
from far_mesh.marketplace.auth.principal import Principal
from far_mesh.marketplace.channels.meter import VoucherNotice
from far_mesh.marketplace.errors import GenerationFailed, UnsupportedParameter
from far_mesh.marketplace.health.schemas import ModelReadiness
from far_mesh.marketplace.health.service import HealthService
from far_mesh.marketplace.http import error_body, from_validation, id_of_call
from far_mesh.marketplace.inference.endpoints import model_entry, question_of, quote_answer, whole_answer, wish_of
from far_mesh.marketplace.inference.run import Item, Run
from far_mesh.marketplace.inference.schemas import GenerateAnswer, GenerateRequest, ModelList, QuoteAnswer, QuoteRequest
from far_mesh.marketplace.inference.service import InferenceService
from far_mesh.marketplace.logs import broke

log = structlog.get_logger(__name__)

Progress = Callable[[int, str], Awaitable[None]]
"""Tells how many tokens there are, and what the last of them says."""

NOT_HERE = frozenset({"stream", "escrow_intent", "n", "tools", "tool_choice", "parallel_tool_calls"})
"""What an agent cannot ask ``generate`` for: it gets one text, and has tools of its own."""

ShapeT = TypeVar("ShapeT", bound=BaseModel)


class GenerateArguments(GenerateRequest):
    """What to generate. The same wallet and ``idempotency_key`` are the same request for ever."""

    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class Nothing(BaseModel):
    """No arguments."""

    model_config = ConfigDict(extra="forbid")


class NodeStatus(BaseModel):
    """Whether requests can be served now, and if not, why."""

    status: str
    reasons: list[str]
    models: dict[str, ModelReadiness]


class Visit:
    """One request over HTTP, whose it is, and what was begun for it."""

    def __init__(self, principal: Principal, request_id: str) -> None:
        self.principal = principal
        self.request_id = request_id
        self.span = here()
        self._runs: list[Run] = []
        self._starting: set[asyncio.Task[Run]] = set()
        self._has_left = False

    async def begin(self, starting: Coroutine[Any, Any, Run]) -> Run:
        """What is begun for the visitor, who may leave meanwhile.

        Raises:
            GenerationFailed: so it was.
            FarError: it did not begin.
        """
        task = asyncio.create_task(starting)
        self._starting.add(task)
        try:
            run = await task
        except asyncio.CancelledError:
            task.cancel()
            if not self._has_left:
                raise
            raise GenerationFailed("the reader left before the answer began") from None
        finally:
            self._starting.discard(task)
        self._runs.append(run)
        if self._has_left:
            run.reader_left()
        return run

    def leave(self) -> None:
        """Nobody listens any more: what was begun stops, and is settled for what was delivered."""
        self._has_left = True
        for task in self._starting:
            task.cancel()
        for run in self._runs:
            run.reader_left()


@dataclass(frozen=True)
class _Kind:
    """A tool without its act. ``hidden``: arguments of the shape that make no sense here."""

    description: str
    takes: type[BaseModel]
    gives: type[BaseModel]
    hidden: frozenset[str] = frozenset()
    read_only: bool = True

    def tool(self, name: str) -> Tool:
        schema = self.takes.model_json_schema()
        schema["properties"] = {
            name: value for name, value in schema.get("properties", {}).items() if name not in self.hidden
        }
        hints = ToolAnnotations(read_only_hint=self.read_only, destructive_hint=False, open_world_hint=True)
        return Tool(
            name=name,
            description=self.description,
            input_schema=schema,
            output_schema=self.gives.model_json_schema(mode="serialization"),
            annotations=hints,
        )


_KINDS = {
    "generate": _Kind(
        "Generate text with a model that the swarm serves. It costs FAR: the answer has the bill. With a progress "
        "token each token is told as it comes. Who cancels pays for what was delivered.",
        GenerateArguments,
        GenerateAnswer,
        hidden=NOT_HERE,
        read_only=False,
    ),
    "list_models": _Kind("The models on sale, who serves them now and what they cost.", Nothing, ModelList),
    "quote": _Kind(
        "What a request would cost at most, at prices that are kept for a while: give generate the quote_id.",
        QuoteRequest,
        QuoteAnswer,
        hidden=frozenset({"idempotency_key"}),
    ),
    "node_status": _Kind("Whether requests can be served now, and if not, why.", Nothing, NodeStatus),
}
TOOLS = [kind.tool(name) for name, kind in _KINDS.items()]


class Tools:
    """Does what is asked. It owns nothing."""

    def __init__(self, inference: InferenceService, health: HealthService) -> None:
        self._inference = inference
        self._health = health
        self._acts: dict[str, Callable[[Visit, Any, Progress | None], Awaitable[BaseModel]]] = {
            "generate": self._generate,
            "list_models": self._list_models,
            "quote": self._quote,
            "node_status": self._node_status,
        }

    async def call(
        self, name: str, arguments: Mapping[str, Any], visit: Visit, progress: Progress | None
    ) -> CallToolResult:
        """The result of a tool, or its failure with our code. ``progress`` None: nobody wants to know.

        Raises:
            KeyError: there is no such tool.
        """
        kind, act = _KINDS[name], self._acts[name]
        try:
            found = await act(visit, _checked(kind, arguments), progress)
        except FarError as error:
            log.info("tool_refused", tool=name, code=error.code, status=error.status)
            return _failed(error)
        except Exception as error:  # the edge: whatever it was, nobody outside learns details
            return _failed(broke("tool_broke", error, tool=name))
        content = found.model_dump(mode="json")
        text = found.text if isinstance(found, GenerateAnswer) else json.dumps(content, ensure_ascii=False)
        return CallToolResult(content=[TextContent(text=text)], structured_content=content)

    async def _generate(self, visit: Visit, asked: GenerateArguments, progress: Progress | None) -> GenerateAnswer:
        wallet, name = visit.principal.wallet, visit.request_id
        if asked.idempotency_key is not None:
            name = id_of_call(wallet, asked.idempotency_key)
        request = asked.model_copy(update={"stream": progress is not None})
        wish = replace(wish_of(request), api_key_id=visit.principal.api_key_id)
        run = await visit.begin(self._inference.start(wallet, name, wish))
        try:
            items = await _all_of(run, progress)
            return whole_answer(asked, items, await run.answer())
        finally:
            run.reader_left()

    async def _list_models(self, _visit: Visit, _: Nothing, _progress: Progress | None) -> ModelList:
        return ModelList(models=[model_entry(state) for state in await self._inference.models()])

    async def _quote(self, visit: Visit, asked: QuoteRequest, _progress: Progress | None) -> QuoteAnswer:
        wallet = visit.principal.wallet
        return quote_answer(await self._inference.quote(wallet, question_of(wallet, asked)))

    async def _node_status(self, _visit: Visit, _: Nothing, _progress: Progress | None) -> NodeStatus:
        found = await self._health.readiness()
        return NodeStatus(status=found.status, reasons=found.reasons, models=found.models)


async def _all_of(run: Run, progress: Progress | None) -> list[Item]:
    items: list[Item] = []
    async for item in run:
        if isinstance(item, VoucherNotice):  # there is nowhere to say so: what is signed in time counts
            continue
        items.append(item)
        if progress is not None:
            await progress(len(items), item.text)
    return items


def _checked(kind: _Kind, arguments: Mapping[str, Any]) -> BaseModel:
    for name in sorted(kind.hidden & arguments.keys()):
        raise UnsupportedParameter(f"the parameter {name!r} is not supported", param=name)
    try:
        return kind.takes.model_validate(arguments)
    except ValidationError as error:
        raise from_validation(error.errors(), arguments) from None


def _failed(error: FarError) -> CallToolResult:
    content = error_body(error).model_dump()
    if error.retry_after is not None:
        content["error"]["retry_after"] = error.retry_after
    said: Sequence[Any] = [TextContent(text=f"{error.code}: {error.message}")]
    return CallToolResult(content=list(said), structured_content=content, is_error=True)
