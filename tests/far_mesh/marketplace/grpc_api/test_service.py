"""Calls with the generated client against a gateway that answers on a port."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from far_mesh.errors import NoRoute
from far_mesh.marketplace.errors import GenerationFailed
from far_mesh.marketplace.grpc_api import health as health_room
from far_mesh.marketplace.grpc_api.far_pb2 import (
    InferRequest,
    ListModelsRequest,
    NodeStatusRequest,
    QuoteRequest,
)
from far_mesh.marketplace.grpc_api.far_pb2_grpc import FarMeshStub
from far_mesh.marketplace.grpc_api.service import SERVICE
from far_mesh.marketplace.http import id_of_call
from tests.docs.pages import ROOT, blocks
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, NODES, STORY, MeshDouble, Turnstile
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, PROMPT_PRICE, House, User
from tests.far_mesh.marketplace.inference.test_endpoints import PRICE, PROMPT_TOKENS, nothing_moved
from tests.far_mesh.marketplace.test_secrecy import log as log

PROMPT = "Tell me a story"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
Dial = Callable[..., grpc.Channel]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Connections to gateways."""
    channels: list[grpc.Channel] = []

    def dialled(house: House, **options: Any) -> grpc.Channel:
        channel = grpc.insecure_channel(f"127.0.0.1:{house.open_grpc()}", options=list(options.items()))
        channels.append(channel)
        return channel

    yield dialled
    for channel in channels:
        channel.close()


def by(user: User) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {user.token}"),)


def request(**changes: Any) -> InferRequest:
    fields: dict[str, Any] = {"model_id": MODEL, "prompt": PROMPT, "max_tokens": 12} | changes
    return InferRequest(**fields)


def status_of(error: Any) -> Any:
    found = dict(error.trailing_metadata())
    assert found["x-request-id"].startswith("req_")
    status = Status()
    status.ParseFromString(found["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    return status


def reason_of(error: grpc.RpcError) -> tuple[str, str | None]:
    info = ErrorInfo()
    assert status_of(error).details[0].Unpack(info)
    assert info.domain == "far-mesh"
    return info.reason, info.metadata.get("param")


def test_a_whole_answer_has_its_bill(open_house: OpenHouse, dial: Dial) -> None:
    house = open_house(MeshDouble())
    user = house.user()
    stub = FarMeshStub(dial(house))
    answer, call = stub.Infer.with_call(request(), metadata=by(user))
    assert answer.text == "".join(STORY)
    bill = answer.bill
    assert dict(call.trailing_metadata())["x-request-id"] == bill.request_id
    assert (bill.finish_reason, bill.completion_tokens, bill.prompt_tokens) == ("stop", 12, PROMPT_TOKENS)
    assert (bill.HasField("mended"), bill.mended) == (True, 0)
    assert [tuple(node.layers) for node in bill.nodes_used] == [tuple(range(*node.blocks)) for node in NODES]
    paid = sum(node.paid_units for node in bill.nodes_used)
    assert bill.held_units == paid + bill.fee_units + bill.refund_units
    assert bill.held_units == PRICE
    assert bill.cost_units == paid + bill.fee_units
    assert user.request(bill.request_id)["cost_units"] == bill.cost_units


def test_a_stream_is_the_same_answer_in_pieces(open_house: OpenHouse, dial: Dial) -> None:
    house = open_house(MeshDouble())
    user = house.user()
    events = list(FarMeshStub(dial(house)).InferStream(request(), metadata=by(user)))
    assert [event.text for event in events[:-1]] == list(STORY)
    assert events[-1].bill.completion_tokens == 12
    assert user.request(events[-1].bill.request_id)["status"] == "completed"


def test_every_option_reaches_the_mesh(open_house: OpenHouse, dial: Dial) -> None:
    mesh = MeshDouble()
    house = open_house(mesh)
    wanted = request(temperature=0.7, top_p=0.9, seed=0, stop=["end", "fin"], raw=True, payment="escrow", max_tokens=3)
    wanted.MergeFrom(InferRequest(top_k=5, min_p=0.1, presence_penalty=0.5, frequency_penalty=0.25, min_tokens=2))
    wanted.MergeFrom(InferRequest(repetition_penalty=1.5, logit_bias={7: -100.0}, regex="[a-z]*"))
    FarMeshStub(dial(house)).Infer(wanted, metadata=by(house.user()))
    ((ids, options),) = mesh.asked
    assert len(ids) == len(PROMPT.split())
    assert (options.temperature, options.top_p, options.seed) == (0.7, 0.9, 0)
    assert (options.stop, options.max_tokens) == (("end", "fin"), 3)
    assert (options.top_k, options.min_p, options.min_tokens) == (5, 0.1, 2)
    assert (options.presence_penalty, options.frequency_penalty, options.repetition_penalty) == (0.5, 0.25, 1.5)
    assert options.logit_bias == {7: -100.0}
    assert options.grammar is not None


def test_who_cancels_pays_for_what_was_delivered_and_no_more_is_made(open_house: OpenHouse, dial: Dial) -> None:
    turnstile = Turnstile()
    mesh = MeshDouble(story=["word "] * 40, gate=turnstile)
    house = open_house(mesh)
    user = house.user()
    call = FarMeshStub(dial(house)).InferStream(request(max_tokens=40, idempotency_key="mine"), metadata=by(user))
    turnstile.let_through(house.loop.loop, 3)
    assert [next(call).text for _ in range(3)] == ["word "] * 3
    call.cancel()
    user.wait_for(lambda: nobody_reads(house))
    turnstile.let_through(house.loop.loop, 37)
    ended = user.settled(id_of_call(user.wallet, "mine"))
    assert (ended["status"], ended["completion_tokens"]) == ("completed", 3)
    assert 0 <= PROMPT_TOKENS * PROMPT_PRICE + 3 * COMPLETION_PRICE - ended["cost_units"] <= 1
    assert mesh.generations[0]._done <= 4
    assert mesh.generations[0].finished


@pytest.mark.parametrize("method", ["Infer", "InferStream"])
def test_a_deadline_that_passes_ends_the_answer(method: str, open_house: OpenHouse, dial: Dial) -> None:
    turnstile = Turnstile()
    mesh = MeshDouble(gate=turnstile)
    house = open_house(mesh)
    user = house.user()
    ask = getattr(FarMeshStub(dial(house)), method)
    with pytest.raises(grpc.RpcError) as caught:
        list(ask(request(), metadata=by(user), timeout=2) or ())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    user.wait_for(lambda: nobody_reads(house))
    turnstile.let_through(house.loop.loop, 12)
    user.wait_for(lambda: not house.rooms.inference._runs)
    assert sum(generation._done for generation in mesh.generations) <= 1
    user.wait_for(lambda: nothing_moved(user))


def nobody_reads(house: House) -> bool:
    return all(run._reader_is_gone for run in house.rooms.inference._runs)


def test_one_idempotency_key_is_one_request(open_house: OpenHouse, dial: Dial) -> None:
    house = open_house(MeshDouble())
    user = house.user()
    stub = FarMeshStub(dial(house))
    bill = stub.Infer(request(idempotency_key="mine"), metadata=by(user)).bill
    assert bill.request_id == id_of_call(user.wallet, "mine")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(request(idempotency_key="mine"), metadata=by(user))
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(caught.value) == ("conflict", None)


def test_a_quote_is_kept(open_house: OpenHouse, dial: Dial) -> None:
    house = open_house(MeshDouble())
    user = house.user()
    stub = FarMeshStub(dial(house))
    quote = stub.Quote(QuoteRequest(model_id=MODEL, prompt=PROMPT, max_tokens=12), metadata=by(user))
    assert quote.max_cost_units == PRICE
    assert quote.expires_at.seconds > 1_700_000_000
    answer = stub.Infer(request(quote_id=quote.quote_id), metadata=by(user))
    assert answer.bill.held_units == quote.max_cost_units


def test_anybody_may_see_models_and_status(open_house: OpenHouse, dial: Dial) -> None:
    stub = FarMeshStub(dial(open_house(MeshDouble(serving=NODES[:2]))))
    (model,) = stub.ListModels(ListModelsRequest()).models
    assert (model.id, model.active_nodes, model.completion_price_units) == (MODEL, 2, COMPLETION_PRICE)
    status = stub.NodeStatus(NodeStatusRequest())
    (found,) = status.models
    assert (status.status, found.ok, found.active_nodes) == ("unready", False, 2)
    assert [(gap.first, gap.end) for gap in found.uncovered] == [(6, 8)]
    assert found.reason == status.reasons[0]


def test_the_example_of_the_docs_works(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = (block for block in blocks(ROOT / "docs/developers.md", "python") if "FarMeshStub" in block.text)
    house = open_house(MeshDouble())
    monkeypatch.setenv("FAR_TOKEN", house.user().token)
    monkeypatch.setenv("GATEWAY_GRPC", f"127.0.0.1:{house.open_grpc()}")
    exec(example.text.replace("far-demo", MODEL).replace("max_tokens=60", "max_tokens=12"), {})
    said = capsys.readouterr().out
    assert "".join(STORY) in said
    assert "units for 12 tokens" in said


# ---- what is refused


@pytest.fixture(scope="module")
def refusing(loop_thread: Any, live_chain: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A gateway that is asked for what it refuses, its user, and a client."""
    settings = live_chain.settings(
        database_url=f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('refusing')}/refusing.db", max_body_bytes=64 * 1024
    )
    with House(loop_thread, live_chain, settings, MeshDouble()) as house:
        channel = grpc.insecure_channel(f"127.0.0.1:{house.open_grpc()}")
        yield house.user(deposit=0), FarMeshStub(channel)
        channel.close()


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer x", "Basic abc", "token"])
@pytest.mark.parametrize("method", ["Infer", "InferStream", "Quote"])
def test_without_a_credential_nobody_is_served(method: str, value: str | None, refusing: Any) -> None:
    message = QuoteRequest(model_id=MODEL, prompt_tokens=1) if method == "Quote" else request()
    metadata = () if value is None else (("authorization", value),)
    with pytest.raises(grpc.RpcError) as caught:
        list(getattr(refusing[1], method)(message, metadata=metadata))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(caught.value)[0] == "unauthorized"


def test_two_credentials_are_none(refusing: Any) -> None:
    user, stub = refusing
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(request(), metadata=by(user) * 2)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_an_api_key_counts_as_far_as_its_scopes_go(open_house: OpenHouse, dial: Dial) -> None:
    house = open_house(MeshDouble())
    user = house.user()
    stub = FarMeshStub(dial(house))
    made = [
        user.http.post("/api/account/keys", json={"name": scope, "scopes": [scope]}).json()
        for scope in ("inference", "account:read")
    ]
    may, may_not = ((("authorization", f"bearer {key['key']}"),) for key in made)
    assert stub.Infer(request(), metadata=may).text == "".join(STORY)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(request(), metadata=may_not)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of(caught.value)[0] == "forbidden"
    limited = user.http.post("/api/account/keys", json={"name": "poor", "limits": {"units_per_day": 1}}).json()["key"]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(request(), metadata=(("authorization", f"Bearer {limited}"),))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(caught.value)[0] == "key_limit_reached"


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"model_id": "gpt-5"}, grpc.StatusCode.NOT_FOUND, ("model_not_found", "model")),
        ({"model_id": ""}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "model_id")),
        ({"prompt": ""}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "prompt")),
        ({"prompt": "word " * 70}, grpc.StatusCode.INVALID_ARGUMENT, ("context_length_exceeded", "prompt")),
        ({"max_tokens": 0}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "max_tokens")),
        ({"max_tokens": -1}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "max_tokens")),
        ({"temperature": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "temperature")),
        ({"stop": ["x"] * 17}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "stop")),
        ({"top_k": -1}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "top_k")),
        ({"logit_bias": {-1: 1.0}}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "logit_bias")),
        ({"regex": "a", "lark": "b"}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "lark")),
        ({"tier": "premium"}, grpc.StatusCode.PERMISSION_DENIED, ("tier_forbidden", "tier")),
        ({"tier": "imperial"}, grpc.StatusCode.INVALID_ARGUMENT, ("unsupported_parameter", "tier")),
        ({"payment": "shells"}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "payment")),
        ({"quote_id": "mine"}, grpc.StatusCode.INVALID_ARGUMENT, ("quote_invalid", "quote_id")),
        ({"idempotency_key": ""}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "idempotency_key")),
        ({"idempotency_key": "x" * 256}, grpc.StatusCode.INVALID_ARGUMENT, ("invalid_argument", "idempotency_key")),
        ({}, grpc.StatusCode.FAILED_PRECONDITION, ("insufficient_balance", None)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_served_is_refused(
    changes: dict[str, Any], code: grpc.StatusCode, reason: tuple[str, str | None], refusing: Any
) -> None:
    user, stub = refusing
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(request(**changes), metadata=by(user))
    assert caught.value.code() is code
    assert reason_of(caught.value) == reason
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.InferStream(request(**changes), metadata=by(user)))
    assert caught.value.code() is code


@pytest.mark.parametrize("message", [QuoteRequest(model_id=MODEL), QuoteRequest(model_id=MODEL, prompt_tokens=0)])
def test_a_quote_about_nothing_is_refused(message: QuoteRequest, refusing: Any) -> None:
    user, stub = refusing
    with pytest.raises(grpc.RpcError) as caught:
        stub.Quote(message, metadata=by(user))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_is_too_long_is_not_read(refusing: Any) -> None:
    user, stub = refusing
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(request(prompt="x" * 70_000), metadata=by(user))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bytes_that_are_no_message_and_calls_that_are_none_are_refused(open_house: OpenHouse, dial: Dial) -> None:
    channel = dial(open_house(MeshDouble()))
    garbage: Any = channel.unary_unary(f"/{SERVICE}/Infer")
    with pytest.raises(grpc.RpcError):
        garbage(b"\xff\xff\xff")
    unknown: Any = channel.unary_unary(f"/{SERVICE}/Rob")
    with pytest.raises(grpc.RpcError) as caught:
        unknown(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert FarMeshStub(channel).NodeStatus(NodeStatusRequest()).status == "ready"


def test_when_to_ask_again_is_told(open_house: OpenHouse, dial: Dial) -> None:
    house = open_house(MeshDouble(serving=NODES[:2]))
    with pytest.raises(grpc.RpcError) as caught:
        FarMeshStub(dial(house)).Infer(request(), metadata=by(house.user()))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(caught.value)[0] == NoRoute.code
    retry = RetryInfo()
    assert status_of(caught.value).details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 10


def test_an_answer_that_breaks_off_says_so_and_costs_nothing(open_house: OpenHouse, dial: Dial) -> None:
    house = open_house(MeshDouble(break_at=2, breaks_with=GenerationFailed("a node was lost")))
    user = house.user()
    call = FarMeshStub(dial(house)).InferStream(request(), metadata=by(user))
    assert [next(call).text, next(call).text] == list(STORY[:2])
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(caught.value)[0] == "generation_failed"
    user.wait_for(lambda: nothing_moved(user))


# ---- the other services


def test_health_follows_readiness(open_house: OpenHouse, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_room, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(health_room, "SAME_SECONDS", 0.0)
    mesh = MeshDouble()
    house = open_house(mesh)
    health = health_pb2_grpc.HealthStub(dial(house))
    for name in ("", SERVICE):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING
    watching = health.Watch(health_pb2.HealthCheckRequest())
    assert next(watching).status == SERVING
    mesh.serving = NODES[:1]
    User.wait_for(lambda: health.Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING)
    assert set(health.List(health_pb2.HealthListRequest()).statuses) == {"", SERVICE}
    assert next(watching).status == NOT_SERVING
    watching.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="far.v1.Other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_what_there_is_can_be_asked(open_house: OpenHouse, dial: Dial) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(dial(open_house(MeshDouble())))
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    services, files = reflection.ServerReflectionInfo(iter(questions))
    names = {service.name for service in services.list_services_response.service}
    assert names >= {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert b"InferStream" in files.file_descriptor_response.file_descriptor_proto[0]


def test_calls_are_logged_without_what_was_said(open_house: OpenHouse, dial: Dial, log: io.StringIO) -> None:
    house = open_house(MeshDouble(story=["birdsong9c2e"]))
    user = house.user()
    stub = FarMeshStub(dial(house))
    bill = stub.Infer(request(prompt="say canary7f3a"), metadata=by(user)).bill
    with pytest.raises(grpc.RpcError):
        stub.Infer(request(prompt="say canary7f3a", max_tokens=0), metadata=by(user))
    User.wait_for(lambda: len(calls_in(log)) == 2)
    first, second = calls_in(log)
    assert (first["method"], first["status"], first["request_id"]) == ("Infer", "OK", bill.request_id)
    assert (second["method"], second["status"]) == ("Infer", "INVALID_ARGUMENT")
    for secret in ("canary7f3a", "birdsong9c2e", user.token):
        assert secret not in log.getvalue()


def calls_in(log: io.StringIO) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in lines if line["event"] == "call"]


def test_a_bug_tells_nobody_its_details(open_house: OpenHouse, dial: Dial, log: io.StringIO) -> None:
    class Buggy(MeshDouble):
        def encode(self, prompt: Any, **_: Any) -> list[int]:
            raise RuntimeError(f"cannot encode {prompt}")

    house = open_house(Buggy())
    with pytest.raises(grpc.RpcError) as caught:
        FarMeshStub(dial(house)).Infer(request(prompt="canary7f3a"), metadata=by(house.user()))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert reason_of(caught.value)[0] == "internal_error"
    assert "canary7f3a" not in log.getvalue() + str(caught.value)
    assert "builtins.RuntimeError" in log.getvalue()


def test_streams_finish_when_the_door_closes(open_house: OpenHouse, dial: Dial) -> None:
    turnstile = Turnstile()
    house = open_house(MeshDouble(gate=turnstile))
    user = house.user()
    call = FarMeshStub(dial(house)).InferStream(request(), metadata=by(user))
    turnstile.let_through(house.loop.loop, 2)
    next(call)
    closing = asyncio.run_coroutine_threadsafe(house.rooms.inference.close(), house.loop.loop)
    turnstile.let_through(house.loop.loop, 12)
    bill = list(call)[-1].bill
    closing.result(10)
    assert bill.finish_reason == "stopped"
    assert 1 <= bill.completion_tokens <= 4
    assert user.request(bill.request_id)["cost_units"] == bill.cost_units
