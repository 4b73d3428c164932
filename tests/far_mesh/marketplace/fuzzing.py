"""The whole document of the interface, tried against a running gateway by schemathesis.

From the document come requests that keep to it and requests that break it in one place, and each answer is held
against what the document says: its status, its kind, its shape, its headers; that what is broken is refused and what is
right is not, that no method works which is not there, that what needs a credential does not work without one.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.config import (
    ChecksConfig,
    FuzzingPhaseConfig,
    GenerationConfig,
    OperationConfig,
    OperationsConfig,
    PhasesConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
    StatefulPhaseConfig,
)
from schemathesis.engine import events, from_schema
from schemathesis.filters import FilterSet

MEANS_MORE = {
    "POST /api/account/deposit": "a transaction is written as its chain does",
    "POST /api/account/keys": "a key ends in the future",
    "POST /api/auth/login": "a wallet has a checksum, a message the form of EIP-4361",
    "POST /api/auth/nonce": "a wallet has a checksum",
    "POST /api/channels/{channel_id}/vouchers": "a voucher is signed",
    "POST /api/inference/distributed/generate": "options that contradict one another; ways to pay",
    "POST /api/inference/quote": "one of three ways to say how long a prompt is",
    "POST /api/nodes/heartbeat": "a peer id has a checksum, and a node has signed this",
    "POST /api/nodes/register": "a peer id has a checksum, a place a form, and a node has signed this",
    "POST /api/nodes/register-distributed": "as above",
    "POST /deposit": "a transaction is written as its chain does",
    "POST /nodes/heartbeat": "as above",
    "POST /nodes/register": "as above",
    "POST /api/provider/nodes": "a node and a wallet have signed this, for one gateway and one chain",
    "POST /submit": "options that contradict one another; ways to pay; webhooks",
    "POST /v1/chat/completions": "options that contradict one another; ways to pay; parts that are no text",
    "POST /v1/completions": "options that contradict one another; ways to pay",
    "POST /v1/embeddings": "ways to pay; a parameter that is refused unless it asks for nothing",
    "POST /workers": "a wallet has a checksum",
    "PUT /api/operator/pools/{wallet_address}": "a wallet has a checksum",
}
"""Operations that refuse more with 400 than a schema can say, and what that is. Elsewhere what keeps to the schema is
taken; a new operation that does so too is to be named here."""

DISCOVERY_MEANS_MORE = {"POST /probes/reports": "a prober has signed this"}
"""The same of the discovery service, as far as the gateway does not have it as well."""

WRITTEN_OTHERWISE = frozenset({"cursor", "location", "node_id", "prober", "wallet_address", "worker_id"})
"""Parameters of which a schema does not say how they are written: by us, with a checksum, in one of several ways."""

SIGNS_OUT = "^/api/auth/logout"
"""Where the credential would end that everything else needs."""

_TAKEN = ("2xx", "3xx", "401", "402", "403", "404", "409", "429", "502", "503")


@dataclass
class Found:
    """What a run has found: failures with the request that shows them, and how many requests there were."""

    failures: dict[tuple[str, str, str], str] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return "\n".join(f"{' · '.join(name)}\n    {shown}" for name, shown in self.failures.items())


def fuzz(
    document: Mapping[str, Any],
    url: str,
    token: str | None,
    *,
    seed: int = 1,
    share: int = 1,
    examples: int = 0,
    only: str | None = None,
    stateful: bool = False,
) -> Found:
    """Try every operation.

    Args:
        token: of who asks; None for nobody.
        share: of the requests at the edges of each schema one in so many is sent.
        examples: so many requests by chance for each operation.
        only: operations whose path matches this regular expression, and whatever that is.
        stateful: go on with what answers tell of, such as the id of what was just made.
    """
    paths = {
        path: operations
        for path, operations in document["paths"].items()
        if (re.search(only, path) if only is not None else not re.search(SIGNS_OUT, path))
    }
    mean_more = sorted(MEANS_MORE.keys() | DISCOVERY_MEANS_MORE.keys() | _written_otherwise(paths))
    config = _config(url, token, seed, examples, mean_more, stateful=stateful)
    schema: Any = schemathesis.openapi.from_dict({**document, "paths": paths}, config=config)

    @schema.hook  # type: ignore[untyped-decorator]
    def filter_case(_context: Any, case: Any) -> bool:
        written = repr((case.method, case.path, case.path_parameters, case.query, case.headers, case.body))
        return zlib.crc32(written.encode()) % share == 0

    found = Found()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _take(event, found)
        elif isinstance(event, events.NonFatalError):
            found.failures[(str(event.label), "error", event.info.title)] = event.info.format()
        elif isinstance(event, events.FatalError):
            raise event.exception
    return found


def _written_otherwise(paths: Mapping[str, Any]) -> set[str]:
    return {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if WRITTEN_OTHERWISE & {one["name"] for one in operation.get("parameters", ())}
    }


def _config(
    url: str, token: str | None, seed: int, examples: int, mean_more: Sequence[str], *, stateful: bool
) -> SchemathesisConfig:
    project = ProjectConfig(
        base_url=url,
        headers=None if token is None else {"Authorization": f"Bearer {token}"},
        continue_on_failure=True,
        generation=GenerationConfig(max_examples=examples or None, database="none", no_shrink=True),
        phases=PhasesConfig(
            fuzzing=FuzzingPhaseConfig(enabled=examples > 0), stateful=StatefulPhaseConfig(enabled=stateful)
        ),
        checks=ChecksConfig(positive_data_acceptance=PositiveDataAcceptanceConfig(expected_statuses=_TAKEN)),
        operations=OperationsConfig(operations=[_means_more(name) for name in mean_more]),
    )
    return SchemathesisConfig(seed=seed, projects=ProjectsConfig(default=project))


def _means_more(name: str) -> OperationConfig:
    filters = FilterSet()
    filters.include(name=name)
    taken = PositiveDataAcceptanceConfig(expected_statuses=(*_TAKEN, "400"))
    return OperationConfig(filter_set=filters, checks=ChecksConfig(positive_data_acceptance=taken))


def _take(event: events.ScenarioFinished, found: Found) -> None:
    recorder = event.recorder
    found.requests[recorder.label] += len(recorder.cases)
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is None:
                continue
            failure = check.failure_info.failure
            case, exchange = recorder.cases[case_id].value, recorder.interactions.get(case_id)
            answer = exchange.response if exchange is not None else None
            said = "" if answer is None else f"\n    {answer.status_code} {answer.text[:500]}"
            name = (recorder.label, check.name, failure.message.partition("\n")[0])
            found.failures.setdefault(name, f"{case.as_curl_command()[:1000]}{said}")
