"""What this process counts: the one place where its numbers live. Each application has its own.

Labels have few values, all of them ours: models on sale, tiers, routes as the table of routes has them, codes of our
errors. Whatever else somebody names is ``other``, so nobody outside can make a series, and no series tells of anybody:
no wallet, no request, no address, no prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from discovery import __version__
from discovery.protocol.errors import FarError
from far_mesh.marketplace.tiers.names import TierName

if TYPE_CHECKING:
    from far_mesh.marketplace.inference.admission import Gate
    from far_mesh.marketplace.inference.run import Answer

OTHER: Final = "other"
UNMATCHED: Final = "unmatched"
"""The route of what was asked at a path where there is nothing."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TIERS = frozenset(tier.value for tier in TierName)
_OF_REQUESTS = ("model_id", "tier")

# Seconds. An answer takes from a moment to half an hour, a token from a moment to the time in which a node is replaced.
_ANSWER = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1800)
_FIRST_TOKEN = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 25, 60)
_TOKEN = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
_WAIT = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120)
_HTTP = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)

Named = Callable[[], Mapping[str, float]]
"""Numbers as they are now, by what they are about."""


class Metrics:
    """Counters of one application. ``models``: the ids of what is on sale."""

    def __init__(self, models: Collection[str]) -> None:
        self._models = frozenset(models)
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "far_mesh_inference_requests",
            "Requests for inference that have ended: completed, failed on the way, or refused before they began.",
            [*_OF_REQUESTS, "status"],
            registry=registry,
        )
        self._latency = Histogram(
            "far_mesh_inference_latency_seconds",
            "From a request's start to its last token, of those completed.",
            _OF_REQUESTS,
            buckets=_ANSWER,
            registry=registry,
        )
        self._first_token = Histogram(
            "far_mesh_time_to_first_token_seconds",
            "From a request's start to its first token.",
            _OF_REQUESTS,
            buckets=_FIRST_TOKEN,
            registry=registry,
        )
        self._token = Histogram(
            "far_mesh_time_per_token_seconds",
            "Mean time between the tokens of an answer after its first.",
            _OF_REQUESTS,
            buckets=_TOKEN,
            registry=registry,
        )
        self._promises = Counter(
            "far_mesh_promises",
            "Completed requests whose tier promises a time per token, by whether it was kept.",
            [*_OF_REQUESTS, "kept"],
            registry=registry,
        )
        self._tokens = Counter(
            "far_mesh_tokens",
            "Tokens of completed requests: of prompts, of prompts the nodes knew already, of answers.",
            ["model_id", "kind"],
            registry=registry,
        )
        self._refusals = Counter(
            "far_mesh_refusals",
            "Errors that callers were given, by their code, at all doors.",
            ["code"],
            registry=registry,
        )
        self._http = Counter(
            "far_mesh_http_requests",
            "HTTP requests by route and status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._http_seconds = Histogram(
            "far_mesh_http_request_duration_seconds",
            "From a request's first byte to the last of its answer, streams included.",
            ["method", "route"],
            buckets=_HTTP,
            registry=registry,
        )
        self._calls = Counter(
            "far_mesh_grpc_requests", "Calls over gRPC by method and status.", ["method", "status"], registry=registry
        )
        self._queue_wait = Histogram(
            "far_mesh_queue_wait_seconds",
            "Time in the queue in front of the swarm, of requests that left it to be served.",
            _OF_REQUESTS,
            buckets=_WAIT,
            registry=registry,
        )
        Gauge("far_mesh_build_info", "The version that runs.", ["version"], registry=registry).labels(__version__).set(
            1
        )
        ProcessCollector(registry=registry)

    # ---- what happens

    def completed(self, answer: Answer, tier: str) -> None:
        """A request was served."""
        labels = self._labels(answer.model_id, tier)
        self._requests.labels(*labels, "completed").inc()
        self._latency.labels(*labels).observe(answer.latency_ms / 1000)
        first = answer.time_to_first_token_ms
        if first is not None and answer.completion_tokens:
            self._first_token.labels(*labels).observe(first / 1000)
            if answer.completion_tokens > 1:
                self._token.labels(*labels).observe((answer.latency_ms - first) / 1000 / (answer.completion_tokens - 1))
        if (kept := answer.outcome.service_level_met) is not None:
            self._promises.labels(*labels, "yes" if kept else "no").inc()
        told = {
            "prompt": answer.prompt_tokens,
            "cached": answer.cached_tokens,
            "completion": answer.completion_tokens,
        }
        for kind, tokens in told.items():
            self._tokens.labels(labels[0], kind).inc(tokens)

    def failed(self, model_id: str, tier: str) -> None:
        """A request began and was not served."""
        self._requests.labels(*self._labels(model_id, tier), "failed").inc()

    def refused(self, model_id: str, tier: str) -> None:
        """A request was not begun."""
        self._requests.labels(*self._labels(model_id, tier), "refused").inc()

    def answered_with(self, error: FarError) -> None:
        """Somebody was given an error. Some come from nodes, with words of theirs: the code of the class is ours."""
        self._refusals.labels(type(error).code).inc()

    def asked(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """An exchange over HTTP is over; ``route`` None: there was none. Status 0: the caller left before an answer."""
        labels = (method if method in _METHODS else OTHER, route or UNMATCHED)
        self._http.labels(*labels, str(status)).inc()
        self._http_seconds.labels(*labels).observe(seconds)

    def called(self, method: str, status: str) -> None:
        """A call over gRPC is over; both are names of ours."""
        self._calls.labels(method, status).inc()

    def waited(self, model_id: str, tier: str, seconds: float) -> None:
        """A request has left the queue to be served."""
        self._queue_wait.labels(*self._labels(model_id, tier)).observe(seconds)

    # ---- what is

    def watch(self, name: str, words: str, label: str, now: Named) -> None:
        """A gauge that is read when somebody looks. The values of ``label`` are ours."""
        self.registry.register(_Watched(name, words, label, now))

    def collect(self) -> Iterable[Metric]:
        """Everything counted so far."""
        return self.registry.collect()

    def known_model(self, model_id: str) -> str:
        """It, or that it is none that is on sale here."""
        return model_id if model_id in self._models else OTHER

    def known_tier(self, tier: str) -> str:
        """It, or that there is no such tier."""
        return tier if tier in _TIERS else OTHER

    def _labels(self, model_id: str, tier: str) -> tuple[str, str]:
        return self.known_model(model_id), self.known_tier(tier)


def watch_gates(metrics: Metrics, gates: Mapping[str, Gate]) -> None:
    """The queue in front of each model, as it is when somebody looks."""

    def watch(name: str, words: str, of: Callable[[Gate], int]) -> None:
        metrics.watch(name, words, "model_id", lambda: {model: of(gate) for model, gate in gates.items()})

    watch("far_mesh_queue_depth", "Requests that wait for their turn.", lambda gate: gate.waiting)
    watch("far_mesh_sessions_open", "Sessions of nodes that this gateway uses.", lambda gate: gate.in_use)
    watch("far_mesh_sessions_capacity", "How many of them it may use.", lambda gate: gate.capacity)


class _Watched(Collector):
    """A gauge by one label."""

    def __init__(self, name: str, words: str, label: str, now: Named) -> None:
        self._name, self._words, self._label, self._now = name, words, label, now

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._words, labels=[self._label])
        for value, number in self._now().items():
            family.add_metric([value], number)
        yield family
