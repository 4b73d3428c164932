"""What the discovery service counts, for the operator's Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from discovery.service.mirror import View
from discovery.service.service import DiscoveryService

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Owner of the counters.

    Args:
        watched: models, by name or digest, whose coverage is told. Strangers announce what they like, so the operator
            says which of them are to be watched.
    """

    def __init__(self, watched: Sequence[str] = ()) -> None:
        self._watched = tuple(dict.fromkeys(watched))
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "far_discovery_requests", "Requests, by path and status.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "far_discovery_request_seconds",
            "How long answers took, by path.",
            ["path"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def watch(self, path: str, status: int, seconds: float) -> None:
        """An answer was given."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self, service: DiscoveryService) -> bytes:
        """Everything, in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(_Seen(service, self._watched))
        return generate_latest(self._registry) + generate_latest(registry)


class _Seen:
    """What the mirror has now."""

    def __init__(self, service: DiscoveryService, watched: Sequence[str]) -> None:
        self._service, self._watched = service, watched

    def collect(self) -> list[GaugeMetricFamily]:
        """Gauges."""
        service, now = self._service, time.time()
        announced = GaugeMetricFamily(
            "far_discovery_announcements",
            "Active announcements, by state and source.",
            labels=["state", "source"],
        )
        counts: dict[tuple[str, str], int] = {}
        peers = set()
        for one in service.mirror.active(now):
            key = one.announcement.state, one.source.value
            counts[key] = counts.get(key, 0) + 1
            peers.add(one.peer_id)
        for (state, source), number in sorted(counts.items()):
            announced.add_metric([state, source], number)
        nodes = GaugeMetricFamily("far_discovery_nodes", "Nodes that announce a model.")
        nodes.add_metric([], len(peers))
        models = GaugeMetricFamily("far_discovery_models", "Models that are announced.")
        models.add_metric([], len(service.mirror.digests(now)))
        covered = GaugeMetricFamily(
            "far_discovery_coverage_ratio",
            "Share of the blocks of a watched model that nodes serve which mean to stay.",
            labels=["model"],
        )
        for model in self._watched:
            covered.add_metric([model], _share(service.mirror.view(model, now)))
        since = GaugeMetricFamily("far_discovery_followed_seconds", "How long ago the DHT was read to the end.")
        if service.followed_seconds is not None:
            since.add_metric([], service.followed_seconds)
        read = GaugeMetricFamily(
            "far_discovery_read",
            "Announcements read on the DHT: taken, or refused and why.",
            labels=["outcome"],
        )
        for outcome, number in sorted(service.taken().items()):
            read.add_metric([outcome], number)
        reports = GaugeMetricFamily(
            "far_discovery_probe_reports", "Reports of probers: taken, or refused and why.", labels=["outcome"]
        )
        for outcome, number in sorted(service.probes.outcomes.items()):
            reports.add_metric([outcome], number)
        seen = GaugeMetricFamily(
            "far_discovery_probes",
            "What probers have seen: how a node was reached, what became of the probe, whether the answer was right.",
            labels=["reach", "fate", "verdict"],
        )
        for labels, number in sorted(service.probes.seen.items()):
            seen.add_metric(labels, number)
        return [announced, nodes, models, covered, since, read, reports, seen]


def _share(view: View) -> float:
    """How much of a model is served, of the weights that most of its nodes have; 0 where nobody announces it."""
    if not view:
        return 0.0
    replicas = view.variant(view.digests[0][1]).replicas
    return sum(1 for one in replicas if one) / len(replicas)
