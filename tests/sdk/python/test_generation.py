"""Answers that come piece by piece, with both clients: cut, slow, failing, and left in the middle."""

from __future__ import annotations

import json
import threading
from typing import Any

import farlabs
import pytest
from farlabs import FarLabsError, Place
from farlabs.models import VoucherEvent

from tests.sdk.python.doors import Threads
from tests.support.scripted_server import Scene, ScriptedServer, hangs_up, refuses, says, streams

PATH = "/api/inference/distributed/generate"
NODE = {
    "node_id": "ann",
    "wallet_address": "0x1",
    "layers": [0, 1],
    "quantization": "none",
    "token_layers": 12,
    "paid_units": 80,
}
BILL = {
    "cost_far": 1e-7,
    "cost_units": 100,
    "held_units": 200,
    "fee_units": 20,
    "refund_units": 100,
    "request_id": "req_1",
    "total_tokens": 8,
    "prompt_tokens": 5,
    "cached_tokens": 0,
    "completion_tokens": 3,
    "finish_reason": "stop",
    "latency_ms": 12,
    "time_to_first_token_ms": 3,
    "nodes_used": [NODE],
}


def event(**fields: Any) -> bytes:
    """One event."""
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def token(text: str, **more: Any) -> bytes:
    """A piece of text."""
    return event(token=text, request_id="req_1", **more)


DONE = event(done=True, **BILL)
NEEDED = event(
    type="voucher_needed",
    channel_id="0x" + "ab" * 32,
    promise_units=300,
    promise_wei="300000000000",
    deposit_units=10_000,
    step_units=500,
    seconds=1.0,
)
STORY = (token("Once"), token(" upon"), token(" 🐇"), DONE)


@pytest.fixture
def client(door: Threads, server: ScriptedServer) -> Any:
    """With an API key."""
    return door.client(server.url, api_key="sk-far-1")


def failed(door: Threads, generation: Any) -> FarLabsError:
    """The error of reading it."""
    with pytest.raises(FarLabsError) as wrong:
        door.pieces(generation)
    return wrong.value


def test_text_comes_piece_by_piece_and_the_bill_last(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays(PATH, streams(*STORY))
    generation = client.generate("tiny", "Tell me a story", 3, 0.5, top_p=0.9)
    assert server.asked == []  # nothing is asked before it is read
    assert door.pieces(generation) == ["Once", " upon", " 🐇"]
    result = door.do(generation.result())
    assert (result.text, result.cost_units, result.finish_reason) == ("Once upon 🐇", 100, "stop")
    assert (result.nodes_used[0].node_id, result.tokens_generated, result.choices) == ("ann", 3, None)
    assert (generation.request_id, generation.text, generation.done.prompt_tokens) == ("req_1", "Once upon 🐇", 5)
    assert server.asked[0].json() == {
        "model_id": "tiny",
        "prompt": "Tell me a story",
        "max_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "stream": True,
    }


def test_where_it_stands_is_told_while_it_waits(door: Threads, server: ScriptedServer, client: Any) -> None:
    ours = ("queued 12", "queued 3, no node serves blocks 3:6", "queued at the nodes", "queued at the nodes, soon")
    others = ("waiting", "", "queued", "queued x", "queued -1", "queued 1e3", "queued 1 2", "queued ١", "unqueued 1")
    comments = tuple(f": {line}\n\n".encode() for line in ours + others)
    server.plays(PATH, streams(*comments, *STORY))
    places: list[Place] = []
    assert door.pieces(client.generate("tiny", "x", on_wait=places.append)) == ["Once", " upon", " 🐇"]
    assert places == [Place(12, None), Place(3, "no node serves blocks 3:6"), Place(0, None), Place(0, "soon")]
    assert door.pieces(client.generate("tiny", "x")) == ["Once", " upon", " 🐇"]  # nobody has to listen


def test_whoever_does_not_want_to_wait_hangs_up(door: Threads, server: ScriptedServer, client: Any) -> None:
    def impatient(place: Place) -> None:
        raise InterruptedError(place.position)

    server.plays(PATH, streams(b": queued 9\n\n", b"", gate=threading.Event()))
    with pytest.raises(InterruptedError):
        door.pieces(client.generate("tiny", "x", on_wait=impatient))
    assert server.hung_up.wait(20)


def test_the_result_alone_reads_all_of_it(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays(PATH, streams(*STORY))
    messages = [{"role": "user", "content": "Tell me"}]
    assert door.do(client.chat("tiny", messages).result()).text == "Once upon 🐇"
    assert server.asked[0].json()["messages"] == messages
    assert "prompt" not in server.asked[0].json()


def test_it_is_the_same_in_one_piece(door: Threads, server: ScriptedServer, client: Any) -> None:
    answer = {**BILL, "text": "Once upon", "tokens_generated": 3}
    server.plays(PATH, says(answer, x_far_request_id="req_1"))
    generation = client.generate("tiny", "Tell me", stream=False)
    assert door.pieces(generation) == ["Once upon"]
    assert door.do(generation.result()).cost_units == 100
    assert (generation.text, generation.done.cost_units, generation.request_id) == ("Once upon", 100, "req_1")
    assert server.asked[0].json()["stream"] is False
    assert server.asked[0].headers["accept"] == "application/json"


def test_several_answers_in_one_piece_are_told_apart(door: Threads, server: ScriptedServer, client: Any) -> None:
    choices = [{"index": index, "text": text, "finish_reason": "stop"} for index, text in enumerate("ab")]
    answer = {**BILL, "text": "a", "tokens_generated": 2, "choices": choices}
    server.plays(PATH, says(answer), says(answer))
    assert [one.index for one in door.events(client.generate("tiny", "x", stream=False, n=2))] == [0, 1]
    assert door.pieces(client.generate("tiny", "x", stream=False, n=2)) == ["a"]


def test_several_answers_are_told_apart_as_they_come(door: Threads, server: ScriptedServer, client: Any) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    pieces = (
        token("a", index=0),
        token("x", index=1),
        token("b", index=0, logprob={"token": "b", "logprob": -0.5, "bytes": [98], "top_logprobs": []}),
        token("", index=1, tool_calls=[call]),
        event(done=True, **BILL, finish_reasons=["stop", "tool_calls", "length"]),
    )
    server.plays(PATH, streams(*pieces), streams(*pieces))
    assert door.pieces(client.generate("tiny", "x", n=3)) == ["a", "b"]
    result = door.do(client.generate("tiny", "x", n=3).result())
    assert [(one.text, one.finish_reason) for one in result.choices] == [
        ("ab", "stop"),
        ("x", "tool_calls"),
        ("", "length"),
    ]
    assert result.choices[1].tool_calls[0].function.name == "weather"
    assert result.logprobs[0].logprob == -0.5


def test_it_is_the_same_however_it_is_cut(door: Threads, server: ScriptedServer, client: Any) -> None:
    whole = b": waiting\r\n\r\n" + b"".join(STORY).replace(b"\n", b"\r\n")
    for step in (1, 2, 3, 7):
        server.plays(PATH, streams(*(whole[at : at + step] for at in range(0, len(whole), step))))
        assert door.pieces(client.generate("tiny", "x")) == ["Once", " upon", " 🐇"]


def test_what_ends_lines_elsewhere_ends_none_here(door: Threads, server: ScriptedServer, client: Any) -> None:
    strange = "a\u2028b\u2029c\x85d"
    server.plays(PATH, streams(token(strange), DONE))
    assert door.pieces(client.generate("tiny", "x")) == [strange]


def test_an_answer_is_read_once(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays(PATH, streams(*STORY))
    generation = client.generate("tiny", "x")
    door.pieces(generation)
    assert failed(door, generation).code == "already_read"
    assert len(server.asked) == 1


# ---- what goes wrong


def test_a_cut_stream_says_so_and_keeps_what_came(door: Threads, server: ScriptedServer, client: Any) -> None:
    for ending in ({"ends": False}, {}):  # cut off by force, and ended before its bill
        server.plays(PATH, streams(*STORY[:2], b'data: {"token"', **ending))
        generation = client.generate("tiny", "x")
        error = failed(door, generation)
        assert (type(error), error.code, error.request_id) == (farlabs.StreamError, "stream_broken", "req_1")
        assert (generation.text, generation.done) == ("Once upon", None)
        with pytest.raises(FarLabsError) as wrong:
            door.do(generation.result())
        assert wrong.value.code == "not_ended"
    assert len(server.asked) == 2  # an answer that has begun is never asked for again


def test_a_stream_that_falls_silent_is_not_waited_for(door: Threads, server: ScriptedServer) -> None:
    client = door.client(server.url, api_key="sk-far-1", timeout=1)
    server.plays(PATH, streams(*STORY, pause=20))
    generation = client.generate("tiny", "x")
    error = failed(door, generation)
    assert (type(error), error.request_id, generation.text) == (farlabs.TimeoutError, "req_1", "Once")


def test_a_slow_stream_that_says_it_waits_is_waited_for(door: Threads, server: ScriptedServer) -> None:
    client = door.client(server.url, api_key="sk-far-1", timeout=2)
    waiting = (b": waiting\n\n",) * 25
    server.plays(PATH, streams(STORY[0], *waiting, *STORY[1:], pause=0.1))
    assert door.do(client.generate("tiny", "x").result()).text == "Once upon 🐇"


def test_a_failure_in_the_stream_is_the_gateways(door: Threads, server: ScriptedServer, client: Any) -> None:
    lost = {"message": "a node was lost", "type": "server_error", "param": None, "code": "peer_unavailable"}
    server.plays(PATH, streams(STORY[0], event(error=lost)))
    error = failed(door, client.generate("tiny", "x"))
    assert (type(error), error.code, error.message) == (farlabs.StreamError, "peer_unavailable", "a node was lost")
    assert error.request_id == "req_1"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: [DONE]\n\n",
        b"data: {}\n\n",
        b'data: {"token": 1}\n\n',
        b'data: {"done": true}\n\n',
        b'data: {"type": "voucher_needed"}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        token("x", index=128),
        token("x", index=-1),
    ],
    ids=range(10),
)
def test_an_event_that_means_nothing_is_an_error(
    door: Threads, server: ScriptedServer, client: Any, nonsense: bytes
) -> None:
    server.plays(PATH, streams(STORY[0], nonsense, *STORY[1:]))
    error = failed(door, client.generate("tiny", "x"))
    assert (type(error), error.code) == (farlabs.StreamError, "not_understood")


def test_an_event_that_does_not_end_is_not_kept(
    door: Threads, server: ScriptedServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farlabs.sse.MAX_EVENT_CHARACTERS", 1000)
    server.plays(PATH, streams(b"data: " + b"x" * 2000))
    assert failed(door, client.generate("tiny", "x")).code == "not_understood"


def test_what_is_no_stream_is_no_answer(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays(PATH, Scene(200, (b"<html>",), {"content-type": "text/html"}))
    assert failed(door, client.generate("tiny", "x")).code == "not_understood"


def test_a_refusal_comes_when_it_is_read(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays(PATH, refuses(402, "insufficient_balance", accepts=[{"scheme": "far-balance"}]))
    error = failed(door, client.generate("tiny", "x"))
    assert isinstance(error, farlabs.PaymentRequiredError)
    assert error.accepts[0]["scheme"] == "far-balance"


def test_what_did_not_begin_is_asked_again(door: Threads, server: ScriptedServer, client: Any) -> None:
    full = refuses(429, "queue_full", retry_after_ms="1")
    server.plays(PATH, hangs_up(), full, streams(*STORY))
    assert door.do(client.generate("tiny", "x").result()).text == "Once upon 🐇"
    first, second, third = (asked.key for asked in server.asked)
    assert first == second != third  # the first may have arrived; the second was refused


# ---- hanging up


def test_leaving_the_loop_hangs_up(door: Threads, server: ScriptedServer, client: Any) -> None:
    never = threading.Event()
    server.plays(PATH, streams(*STORY, gate=never))
    assert door.first(client.generate("tiny", "x")) == "Once"
    assert server.hung_up.wait(20)


def test_a_context_hangs_up_whoever_keeps_the_loop(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays(PATH, streams(*STORY, gate=threading.Event()))
    generation = client.generate("tiny", "x")
    if type(door) is Threads:
        with generation:
            kept = iter(generation)
            assert next(kept) == "Once"
    else:

        async def read() -> Any:
            async with generation:
                kept = aiter(generation)
                assert await anext(kept) == "Once"
            return kept

        kept = door.do(read())
    assert server.hung_up.wait(20)
    assert generation.text == "Once"
    del kept


# ---- vouchers


def test_whoever_pays_is_told_what_is_needed_and_how_much_came(
    door: Threads, server: ScriptedServer, client: Any
) -> None:
    server.plays(PATH, streams(NEEDED, *STORY[:2], NEEDED, *STORY[2:]))
    asked: list[tuple[int, int]] = []

    def pay(needed: VoucherEvent, tokens: int) -> None:
        asked.append((needed.promise_units, tokens))

    generation = client.generate("tiny", "x", on_voucher=pay)
    assert door.pieces(generation) == ["Once", " upon", " 🐇"]
    assert asked == [(300, 0), (300, 2)]


def test_without_anybody_who_pays_the_answer_ends(door: Threads, server: ScriptedServer, client: Any) -> None:
    server.plays(PATH, streams(NEEDED, *STORY))
    assert failed(door, client.generate("tiny", "x")).code == "voucher_needed"
