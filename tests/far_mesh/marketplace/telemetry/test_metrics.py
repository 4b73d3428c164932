"""Counters: what they count, and what nobody can do to them."""

from __future__ import annotations

from discovery.protocol.errors import InvalidArgument, error_from_wire
from far_mesh.marketplace.inference.run import Answer
from far_mesh.marketplace.sessions.schemas import Outcome
from far_mesh.marketplace.telemetry.metrics import Metrics


def answer(**changes: object) -> Answer:
    facts = {
        "request_id": "req_1",
        "model_id": "m",
        "finish_reasons": ("stop",),
        "prompt_tokens": 7,
        "cached_tokens": 4,
        "completion_tokens": 5,
        "latency_ms": 900,
        "time_to_first_token_ms": 100,
        "outcome": Outcome(0, 0, 0, 0, ()),
        "mended": 0,
    }
    return Answer(**facts | changes)  # type: ignore[arg-type]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_completed_request_is_counted_and_timed() -> None:
    metrics = Metrics(["m"])
    metrics.completed(answer(), "premium")
    of_it = {"model_id": "m", "tier": "premium"}
    assert value(metrics, "far_mesh_inference_requests_total", status="completed", **of_it) == 1
    assert value(metrics, "far_mesh_inference_latency_seconds_sum", **of_it) == 0.9
    assert value(metrics, "far_mesh_time_to_first_token_seconds_sum", **of_it) == 0.1
    assert value(metrics, "far_mesh_time_per_token_seconds_sum", **of_it) == 0.2
    told = {kind: value(metrics, "far_mesh_tokens_total", model_id="m", kind=kind) for kind in ("prompt", "cached")}
    assert told == {"prompt": 7, "cached": 4}


def test_promises_are_counted_where_there_was_one() -> None:
    metrics = Metrics(["m"])
    for kept in (True, False, False, None):
        metrics.completed(answer(outcome=Outcome(0, 0, 0, 0, (), service_level_met=kept)), "premium")
    of_it = {"model_id": "m", "tier": "premium"}
    counted = [value(metrics, "far_mesh_promises_total", kept=kept, **of_it) for kept in ("yes", "no")]
    assert counted == [1, 2]


def test_an_answer_of_one_token_has_no_time_between_tokens_and_one_of_none_no_first() -> None:
    metrics = Metrics(["m"])
    metrics.completed(answer(completion_tokens=1), "standard")
    metrics.completed(answer(completion_tokens=0, time_to_first_token_ms=None), "standard")
    of_it = {"model_id": "m", "tier": "standard"}
    assert value(metrics, "far_mesh_time_to_first_token_seconds_count", **of_it) == 1
    assert value(metrics, "far_mesh_time_per_token_seconds_count", **of_it) is None
    assert value(metrics, "far_mesh_inference_requests_total", status="completed", **of_it) == 2


def test_nobody_outside_can_make_a_series() -> None:
    metrics = Metrics(["m"])

    def series() -> int:
        return sum(len(family.samples) for family in metrics.collect())

    def ask(word: str) -> None:
        metrics.refused(word, word)
        metrics.failed(word, word)
        metrics.waited(word, word, 1.0)
        metrics.asked(word, None, 404, 0.1)
        metrics.answered_with(error_from_wire(word, word))

    ask("first")
    before = series()
    for number in range(100):
        ask(f"word{number}")
    assert series() == before
    assert value(metrics, "far_mesh_http_requests_total", method="other", route="unmatched", status="404") == 101


def test_errors_are_counted_by_their_code() -> None:
    metrics = Metrics([])
    metrics.answered_with(InvalidArgument("no"))
    assert value(metrics, "far_mesh_refusals_total", code="invalid_argument") == 1


def test_two_applications_count_for_themselves() -> None:
    first, second = Metrics(["m"]), Metrics(["m"])
    first.called("Infer", "OK")
    assert value(second, "far_mesh_grpc_requests_total", method="Infer", status="OK") is None


def test_a_watched_number_is_read_when_somebody_looks() -> None:
    metrics, waiting = Metrics([]), {"premium": 1.0}
    metrics.watch("far_mesh_queue_depth", "Requests that wait.", "tier", lambda: waiting)
    waiting["premium"] = 3.0
    assert value(metrics, "far_mesh_queue_depth", tier="premium") == 3
