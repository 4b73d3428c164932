"""``/api/inference``: generate, list models, look at a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response
from pydantic import BaseModel

from discovery.placement import stretches
from discovery.protocol.errors import InvalidArgument
from far_mesh.config import Grammar
from far_mesh.marketplace.auth.door import ApiKeyId, InferenceCaller
from far_mesh.marketplace.chain.amounts import units_to_far, units_to_wei
from far_mesh.marketplace.channels.meter import VoucherNotice
from far_mesh.marketplace.http import call_request, errors, id_of_call, request_id_of
from far_mesh.marketplace.inference.jobs import Said, by_text
from far_mesh.marketplace.inference.meshes import LogprobLike, Prompt
from far_mesh.marketplace.inference.messages import chat_of, check_one_form
from far_mesh.marketplace.inference.payment import wanted
from far_mesh.marketplace.inference.run import Answer, Item, Run
from far_mesh.marketplace.inference.schemas import (
    BlockCover,
    DoneEvent,
    GenerateAnswer,
    GeneratedText,
    GenerateRequest,
    ModelEntry,
    ModelList,
    NodeReceipt,
    NodeUsed,
    PriceInTier,
    QuoteAnswer,
    QuoteRequest,
    RequestReceipts,
    RequestState,
    SettlementState,
    TokenEvent,
    TokenLogprob,
    TopToken,
    VoucherEvent,
)
from far_mesh.marketplace.inference.service import (
    InferenceService,
    ModelState,
    Question,
    Quoted,
    RequestReport,
    Wish,
)
from far_mesh.marketplace.inference.streams import EventStream, all_of, answer_headers, event, events_of, started
from far_mesh.marketplace.inference.voice import Spoken, Voice
from far_mesh.marketplace.ledger.split import BPS
from far_mesh.marketplace.limits.door import PerAddress
from far_mesh.marketplace.payments import intents
from far_mesh.marketplace.sessions.schemas import Outcome, PaidShare, Payment
from far_mesh.marketplace.settlement.schemas import Kind, Row, RowStatus

if TYPE_CHECKING:
    from far_mesh.model.tools import ToolFormat

router = APIRouter(prefix="/api/inference", tags=["inference"])


async def inference_service(request: Request) -> InferenceService:
    """The room's service, made by the app."""
    service: InferenceService = request.app.state.rooms.inference
    return service


Service = Annotated[InferenceService, Depends(inference_service)]


async def name_of_request(
    request: Request,
    wallet: InferenceCaller,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> str:
    """The request's id: its caller's, with ``Idempotency-Key``, so that asking twice charges once."""
    return request_id_of(request) if idempotency_key is None else call_request(request, wallet, idempotency_key)


RequestName = Annotated[str, Depends(name_of_request)]

GENERATE_ERRORS = errors(402, 404, 409, 502)
"""What a request that costs something can meet, beside what every request can."""


def streamed(event: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """What the document of the interface says of an answer that may come as a stream of such events."""
    return {200: {"content": {"text/event-stream": {"schema": {"type": "string", "description": event.__doc__}}}}}


@router.post("/distributed/generate", response_model=GenerateAnswer, responses=GENERATE_ERRORS | streamed(TokenEvent))
async def generate(
    request: Request,
    response: Response,
    service: Service,
    wallet: InferenceCaller,
    key: ApiKeyId,
    name: RequestName,
    body: GenerateRequest,
) -> Response | GenerateAnswer:
    """Generate text. With ``stream`` (the default) tokens come as server-sent events, and last the bill."""
    run = await started(request, service.start(wallet, name, replace(wish_of(body), api_key_id=key)))
    if body.stream:
        told = Telling(body, run)
        return EventStream(run, events_of(run, told.said, told.last, _needed))
    items, answer = await all_of(request, run)
    response.headers.update(answer_headers(run, answer))
    return whole_answer(body, items, answer, run.tool_format)


@router.post("/quote", responses=errors(404))
async def quote(service: Service, wallet: InferenceCaller, body: QuoteRequest) -> QuoteAnswer:
    """What a token costs now, kept for a while: send ``quote_id`` with the request."""
    return quote_answer(await service.quote(wallet, question_of(wallet, body)))


@router.get("/models", dependencies=[PerAddress])
async def models(service: Service) -> ModelList:
    """The models on sale. Needs no token."""
    return ModelList(models=[model_entry(state) for state in await service.models()])


@router.get("/requests/{request_id}")
async def request_state(service: Service, wallet: InferenceCaller, request_id: str) -> RequestState:
    """One of the caller's own requests: its money, its nodes, its settlement."""
    return _state(await service.report(wallet, request_id))


@router.get("/requests/{request_id}/receipts")
async def request_receipts(service: Service, wallet: InferenceCaller, request_id: str) -> RequestReceipts:
    """What the nodes have signed for one of the caller's own requests: to be checked by whoever wants to, offline."""
    report = await service.report(wallet, request_id)
    return RequestReceipts(
        request_id=request_id,
        model_id=report.session.model_id,
        receipts=[
            NodeReceipt(**used.model_dump(), receipt=paid.share.receipt)
            for used, paid in zip(nodes_used(report.shares), report.shares, strict=True)
        ],
    )


def wish_of(body: GenerateRequest) -> Wish:
    """What is asked for, in our words.

    Raises:
        InvalidArgument, UnsupportedParameter: what contradicts itself, or means nothing.
        IntentRefused: a way to pay that is none.
    """
    if (body.prompt is None) == (body.messages is None):
        raise InvalidArgument("send either prompt or messages", param="prompt")
    box = body.toolbox()
    for param, given in (("messages", body.messages), ("tools", box)):
        if body.raw and given is not None:
            raise InvalidArgument(f"raw leaves the chat template out, and {param} need it", param=param)
    grammars = {
        "response_format": None if body.response_format is None else body.response_format.grammar(),
        "regex": None if body.regex is None else Grammar.regex(body.regex),
        "lark": None if body.lark is None else Grammar.lark(body.lark),
    }
    forms = {param: grammar for param, grammar in grammars.items() if grammar is not None}
    if len(forms) > 1:
        raise InvalidArgument("an answer keeps to one of response_format, regex, lark", param=list(forms)[1])
    param, grammar = next(iter(forms.items()), ("grammar" if box is None else "tools", None))
    check_one_form(box, None if grammar is None else param)
    return Wish(
        model_id=body.model_id,
        prompts=(body.prompt or chat_of(body.messages or ()),),
        max_tokens=body.max_tokens,
        manner=body.manner(temperature=0.0, logprobs=body.logprobs, grammar=grammar),
        choices=body.n or 1,
        streamed=body.stream,
        toolbox=box,
        grammar_param=param,
        raw=body.raw,
        tier=body.tier,
        quote_id=body.quote_id,
        payment=wanted(body.payment, None if body.escrow_intent is None else intents.parse(body.escrow_intent)),
    )


def question_of(wallet: str, body: QuoteRequest) -> Question:
    """What ``wallet`` wants to know the price of.

    Raises:
        InvalidArgument: neither what is said nor its length, or more than one of them.
    """
    chat = None if body.messages is None else chat_of(body.messages)
    said: list[Prompt | int] = [one for one in (body.prompt, chat, body.prompt_tokens) if one is not None]
    if len(said) != 1:
        raise InvalidArgument("send one of prompt, messages, prompt_tokens", param="prompt")
    request_id = None if body.idempotency_key is None else id_of_call(wallet, body.idempotency_key)
    return Question(body.model_id, body.tier, said[0], body.max_tokens, body.raw, body.n or 1, request_id)


def whole_answer(
    body: GenerateRequest, items: Iterable[Item], answer: Answer, tool_format: ToolFormat | None = None
) -> GenerateAnswer:
    """An answer in one piece, made of all that came of a run."""
    texts = [_text(body, index, said, answer, tool_format) for index, said in enumerate(by_text(items, body.n or 1))]
    first = texts[0]
    return GenerateAnswer(
        text=first.text,
        tool_calls=first.tool_calls,
        logprobs=first.logprobs,
        choices=texts if len(texts) > 1 else None,
        tokens_generated=answer.completion_tokens,
        **(bill(answer) | {"finish_reason": first.finish_reason}),
    )


def _text(
    body: GenerateRequest, index: int, said: Sequence[Said], answer: Answer, tool_format: ToolFormat | None
) -> GeneratedText:
    voice = Voice(tool_format, parallel=body.parallel_tool_calls is not False)
    text, calls = voice.all_of(said)
    return GeneratedText(
        index=index,
        text=text,
        tool_calls=list(calls) or None,
        finish_reason=voice.reason(answer.finish_reasons[index]),
        logprobs=None if body.logprobs is None else [told for item in said if (told := token_logprob(item))],
    )


def quote_answer(quoted: Quoted) -> QuoteAnswer:
    """A quote, for an answer."""
    prices = quoted.price.prices
    return QuoteAnswer(
        quote_id=quoted.quote.id,
        expires_at=quoted.quote.expires_at,
        model_id=quoted.model_id,
        tier=quoted.tier,
        prompt_tokens=quoted.prompt_tokens,
        max_tokens=quoted.max_tokens,
        n=quoted.choices,
        max_cost_units=quoted.max_cost_units,
        max_cost_far=units_to_far(quoted.max_cost_units),
        prompt_price_units=prices.prompt,
        cached_prompt_price_units=prices.cached,
        completion_price_units=prices.completion,
        price_multiplier=quoted.price.multiplier_bps / BPS,
        utilisation=quoted.price.utilisation,
        fee_bps=prices.fee_bps,
        request_id=quoted.request_id,
        escrow_intent=quoted.intent,
    )


class Telling:
    """The answers of a run as they come, in the events of this face."""

    def __init__(self, body: GenerateRequest, run: Run) -> None:
        self._run = run
        texts = body.n or 1
        self._voices = [Voice(run.tool_format, parallel=body.parallel_tool_calls is not False) for _ in range(texts)]

    def tokens(self, said: Said) -> list[TokenEvent]:
        """What a token tells, if it tells anything. Who pays token by token has to know of each."""
        spoken = self._voices[said.index].say(said.text)
        return self._told(said.index, spoken, token_logprob(said), always=self._run.is_metered)

    def rest(self) -> list[TokenEvent]:
        """What was held back until the end."""
        return [told for index, voice in enumerate(self._voices) for told in self._told(index, voice.end(), None)]

    def end(self, answer: Answer) -> DoneEvent:
        """How it ended, after :meth:`rest`."""
        reasons = [voice.reason(reason) for voice, reason in zip(self._voices, answer.finish_reasons, strict=True)]
        several = {"finish_reason": reasons[0], "finish_reasons": reasons if len(reasons) > 1 else None}
        return DoneEvent(**(bill(answer) | several))

    def said(self, said: Said) -> list[str]:
        """:meth:`tokens` on the wire."""
        return [event(told.model_dump_json(exclude_none=True)) for told in self.tokens(said)]

    def last(self, answer: Answer) -> list[str]:
        """The events that end a stream."""
        rest = [event(told.model_dump_json(exclude_none=True)) for told in self.rest()]
        end = self.end(answer)
        return [*rest, event(end.model_dump_json(exclude={"finish_reasons"} if end.finish_reasons is None else None))]

    def _told(
        self, index: int, spoken: Spoken, logprob: TokenLogprob | None, *, always: bool = False
    ) -> list[TokenEvent]:
        if spoken == Spoken() and logprob is None and not always:
            return []
        return [
            TokenEvent(
                token=spoken.text,
                request_id=self._run.request_id,
                index=index if len(self._voices) > 1 else None,
                tool_calls=list(spoken.calls) or None,
                logprob=logprob,
            )
        ]


def token_logprob(said: Said) -> TokenLogprob | None:
    """The log probabilities of a token, if they were asked for."""
    own, top = said.token.logprob, said.token.top
    return None if own is None else TokenLogprob(**_top(own), top_logprobs=[TopToken(**_top(one)) for one in top])


def _top(one: LogprobLike) -> dict[str, Any]:
    return {"token": one.bytes.decode(errors="replace"), "bytes": list(one.bytes), "logprob": one.logprob}


def _needed(notice: VoucherNotice) -> str:
    return event(voucher_event(notice))


def voucher_event(notice: VoucherNotice) -> VoucherEvent:
    """What has to be signed before the stream goes on."""
    return VoucherEvent(
        channel_id=notice.channel_id,
        promise_units=notice.promise_units,
        promise_wei=str(units_to_wei(notice.promise_units)),
        deposit_units=notice.deposit_units,
        step_units=notice.step_units,
        seconds=notice.seconds,
    )


def bill(answer: Answer) -> dict[str, Any]:
    """How a request ended and what it cost, for an answer."""
    return {
        "request_id": answer.request_id,
        "total_tokens": answer.completion_tokens,
        "prompt_tokens": answer.prompt_tokens,
        "cached_tokens": answer.cached_tokens,
        "completion_tokens": answer.completion_tokens,
        "finish_reason": answer.finish_reason,
        "latency_ms": answer.latency_ms,
        "time_to_first_token_ms": answer.time_to_first_token_ms,
        "nodes_used": nodes_used(answer.outcome.shares),
        "mended": answer.mended,
        **costs(answer.outcome),
    }


def costs(outcome: Outcome) -> dict[str, Any]:
    """How the money was divided, for an answer."""
    return {
        "cost_far": units_to_far(outcome.cost_units),
        "cost_units": outcome.cost_units,
        "held_units": outcome.held_units,
        "fee_units": outcome.fee_units,
        "refund_units": outcome.refund_units,
        "service_level_met": outcome.service_level_met,
        "credit_far": units_to_far(outcome.credit_units),
        "credit_units": outcome.credit_units,
    }


def nodes_used(shares: Iterable[PaidShare]) -> list[NodeUsed]:
    """Who served which layers, for an answer."""
    return [
        NodeUsed(
            node_id=one.share.node_id,
            wallet_address=one.share.wallet,
            layers=list(range(one.share.first_block, one.share.end_block)),
            quantization=one.share.quantization,
            token_layers=one.share.token_layers,
            paid_units=one.paid_units,
        )
        for one in shares
    ]


def model_entry(state: ModelState) -> ModelEntry:
    """A model on sale, for an answer."""
    offer, mesh, prices = state.on_sale.offer, state.on_sale.mesh, state.price.prices
    return ModelEntry(
        id=offer.model_id,
        name=offer.display_name,
        active_nodes=state.active_nodes,
        avg_latency_ms=state.average_latency_ms,
        price_per_token_far=units_to_far(prices.completion),
        prompt_price_units=prices.prompt,
        cached_prompt_price_units=prices.cached,
        completion_price_units=prices.completion,
        fee_bps=prices.fee_bps,
        price_multiplier=state.price.multiplier_bps / BPS,
        utilisation=state.price.utilisation,
        min_vram_gb=None,
        min_nodes=offer.min_nodes,
        block_count=mesh.block_count,
        context_length=mesh.context_length,
        model_digest=mesh.model_digest,
        available=state.obstacle is None,
        reason=state.obstacle,
        coverage=[
            BlockCover(first_block=one.first_block, end_block=one.end_block, replicas=one.replicas)
            for one in stretches(state.covered)
        ],
        prices={
            name.value: PriceInTier(
                prompt_price_units=of_tier.prompt,
                cached_prompt_price_units=of_tier.cached,
                completion_price_units=of_tier.completion,
                price_per_token_far=units_to_far(of_tier.completion),
            )
            for name, of_tier in state.by_tier.items()
        },
    )


def _state(report: RequestReport) -> RequestState:
    session = report.session
    return RequestState(
        request_id=session.request_id,
        model_id=session.model_id,
        tier=session.tier,
        status=session.status,
        error_code=session.error_code,
        payment=session.payment,
        channel_id=session.channel_id,
        started_at=session.started_at,
        completed_at=session.completed_at,
        prompt_tokens=session.prompt_tokens,
        cached_tokens=session.cached_tokens,
        completion_tokens=session.token_count,
        finish_reason=session.finish_reason,
        held_units=session.held_units,
        cost_units=session.total_cost_units,
        fee_units=session.fee_units,
        refund_units=session.refund_units,
        latency_ms=session.latency_ms,
        time_to_first_token_ms=session.time_to_first_token_ms,
        p95_token_ms=session.p95_token_ms,
        promised_p95_ms=session.promised_p95_ms,
        service_level_met=session.service_level_met,
        credit_far=units_to_far(session.credit_units),
        credit_units=session.credit_units,
        spent_credit_units=session.spent_credit_units,
        nodes_used=nodes_used(report.shares),
        settlement=_settlement(report),
    )


_IN_WORDS = {
    Kind.LOCK: ("locking", "locked"),
    Kind.RELEASE: ("releasing", "released"),
    Kind.CANCEL: ("cancelling", "cancelled"),
}


def _settlement(report: RequestReport) -> SettlementState:
    rows, session = report.rows, report.session
    last = rows.get(Kind.RELEASE) or rows.get(Kind.CANCEL) or rows.get(Kind.LOCK)
    return SettlementState(
        status=_status(last) if session.payment is Payment.ESCROW else _status_in_batch(report),
        lock_tx=_tx(rows, Kind.LOCK),
        release_tx=_tx(rows, Kind.RELEASE),
        cancel_tx=_tx(rows, Kind.CANCEL),
        batch=session.batch_number,
        batch_tx=report.batch.tx_hash if report.batch else None,
        error=last.error if last is not None and last.status is RowStatus.FAILED else None,
    )


def _status(row: Row | None) -> str:
    if row is None or row.error_code == "abandoned":
        return "none"
    if row.status is RowStatus.FAILED:
        return "failed"
    under_way, done = _IN_WORDS[row.kind]
    return done if row.status is RowStatus.CONFIRMED else under_way


def _status_in_batch(report: RequestReport) -> str:
    if not report.session.total_cost_units:
        return "none"
    if report.session.batch_number is None:  # where there is no escrow each provider is paid by a transfer of its own
        return "paid" if all(one.paid_at for one in report.shares if one.paid_units) else "waiting"
    return "paid" if report.batch is not None and report.batch.status is RowStatus.CONFIRMED else "in_batch"


def _tx(rows: Mapping[Kind, Row], kind: Kind) -> str | None:
    row = rows.get(kind)
    return row.tx_hash if row else None
