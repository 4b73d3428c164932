"""The status of a node as numbers for Prometheus (its text format, version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

OF_NODE = (
    ("uptime_seconds", "gauge", "uptime_seconds", "seconds since the node was started"),
    ("memory_free_bytes", "gauge", "memory_free_bytes", "free memory of the device"),
    ("memory_total_bytes", "gauge", "memory_total_bytes", "memory of the device"),
    ("resident_bytes", "gauge", "resident_bytes", "memory of the process"),
    ("open_sessions", "gauge", "open_sessions", "sessions that are open"),
    ("queued_steps", "gauge", "queued_steps", "steps that wait for the device"),
    ("batch_rows", "gauge", "batch_rows", "rows of the last pass"),
    ("decode_tokens_per_second", "gauge", "decode_tokens_per_second", "measured speed of answers"),
    ("prefill_tokens_per_second", "gauge", "prefill_tokens_per_second", "measured speed of prompts"),
    ("token_layers", "counter", "token_layers_served", "work done since the start"),
)
"""Name, type, what it is in the status, what it means."""

OF_MODEL = (
    ("model_parameter_bytes", "gauge", "parameter_bytes", "memory of the weights"),
    ("model_cache_budget_bytes", "gauge", "cache_budget_bytes", "what the attention cache may take"),
    ("model_cache_used_bytes", "gauge", "cache_used_bytes", "what it takes"),
    ("model_open_sessions", "gauge", "open_sessions", "sessions of the model that are open"),
    ("model_prefix_bytes", "gauge", "prefix_bytes", "memory of beginnings of prompts"),
    ("model_prefix_hits", "counter", "prefix_hits", "prompts whose beginning was known"),
)
"""The same for each model, with the label ``model``."""

_KINDS = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}


def samples(status: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], float]]:
    """The same one by one: name, labels, value."""
    for family in _OfStatus(status).collect():
        for sample in family.samples:
            yield sample.name, dict(sample.labels), float(sample.value)


def exposition(status: Mapping[str, Any]) -> str:
    """The answer to ``far-node status`` in Prometheus' words."""
    registry = CollectorRegistry()
    registry.register(_OfStatus(status))
    return generate_latest(registry).decode()


class _OfStatus(Collector):
    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        about = InfoMetricFamily("far_node", "who the node is and what it runs on")
        versions = status["versions"]
        who = {name: status[name] for name in ("peer_id", "wallet", "device")}
        about.add_metric([], who | {"version": versions["far-mesh"], "torch": versions.get("torch", "")})
        yield about
        ready = GaugeMetricFamily("far_node_ready", "whether it serves and takes new sessions")
        ready.add_metric([], float(status["state"] == "ready"))
        yield ready
        for name, kind, key, meaning in OF_NODE:
            family = _KINDS[kind](f"far_node_{name}", meaning)
            family.add_metric([], float(status[key]))
            yield family
        blocks = GaugeMetricFamily("far_node_model_blocks", "blocks that are served", labels=["model"])
        for model in status["models"]:
            first, end = model["blocks"]
            blocks.add_metric([model["model_id"]], end - first)
        yield blocks
        for name, kind, key, meaning in OF_MODEL:
            family = _KINDS[kind](f"far_node_{name}", meaning, labels=["model"])
            for model in status["models"]:
                family.add_metric([model["model_id"]], float(model[key]))
            yield family
