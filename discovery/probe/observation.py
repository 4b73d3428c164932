"""What a prober has seen of nodes, as it tells others: a :class:`Report`, signed with the prober's own key.

A report is a signed document as announcements are (:mod:`discovery.protocol.signed`). ``sequence`` counts up with every
report of a prober, so that one that was heard before, or that others hold back, is known by it. It names the swarm and
no service: what was seen is as true for everybody, and a prober may tell several.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, model_validator

from discovery.protocol.announcement import MAX_BLOCK_MS, MAX_SWARM_LENGTH, MIN_BLOCK_MS, Digest
from discovery.protocol.errors import FarError
from discovery.protocol.ids import check_peer_id
from discovery.protocol.signed import Body, SignedDocument, read_body, sign_document

DOMAIN = "far-mesh/probe-report/v1"
MAX_OBSERVATIONS = 24
"""Of one report: what is signed has at most 16 KiB."""
FRESH_SECONDS = 300.0
"""An older report is refused, and so is an observation that is older than its report by more than :data:`OLDEST`."""
OLDEST = 3600.0
KEEP_REPORT_SECONDS = 86_400.0
"""For so long a report is handed on; who hears of an older one passes it over."""
MAX_TOKEN_LAYERS = 2**20
MAX_ROUND_TRIP_MS = 600_000.0


class Reach(StrEnum):
    """How a prober came to a node: at an address of its own, through a relay, or not at all."""

    DIRECT = "direct"
    RELAY = "relay"
    NONE = "none"


class Fate(StrEnum):
    """What became of a probe. COMPLETED: it was answered. REFUSED: the node was full or leaving. FAILED: it broke off,
    or said what no node says. TIMED_OUT: it said nothing. UNASKED: nothing was to be computed, for the prober does not
    know the model, or has asked enough."""

    COMPLETED = "completed"
    REFUSED = "refused"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    UNASKED = "unasked"


class Verdict(StrEnum):
    """Whether an answer was right. UNDECIDED: too few have answered to tell, or they do not agree."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


class ReportInvalid(FarError):
    """A report of a prober whose shape, signature, swarm or time is wrong."""

    code = "report_invalid"
    status = 400


Milliseconds = Annotated[float, Field(ge=0, le=MAX_ROUND_TRIP_MS, allow_inf_nan=False)]
BlockMilliseconds = Annotated[float, Field(ge=MIN_BLOCK_MS, le=MAX_BLOCK_MS, allow_inf_nan=False)]


class Observation(BaseModel):
    """What was seen of one node that announces a model, at one time.

    Attributes:
        at: when, in Unix seconds.
        reason: the code of what failed; empty: nothing did.
        round_trip_ms: the shortest of some questions.
        token_layers: what it was asked to compute.
        block_ms: that a token took it in a block, alone, with what the way there and back takes taken off;
            ``claimed_block_ms`` what it announced at the time.
        error: how far its answer was from the right one, as a share of what the blocks change; None: none was known.
        by: who knew the answer: the prober's own weights, or most of those who were asked the same.
        receipt: whether its receipt said what was done; None: no session came so far.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    peer_id: str
    model_digest: Digest
    at: Annotated[int, Field(ge=0)]
    reach: Annotated[Reach, Field(strict=False)]
    fate: Annotated[Fate, Field(strict=False)]
    verdict: Annotated[Verdict, Field(strict=False)] | None = None
    by: Literal["weights", "majority"] | None = None
    reason: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9_]*$")] = ""
    round_trip_ms: Milliseconds | None = None
    token_layers: Annotated[int, Field(ge=0, le=MAX_TOKEN_LAYERS)] = 0
    block_ms: BlockMilliseconds | None = None
    claimed_block_ms: BlockMilliseconds | None = None
    error: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    receipt: bool | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        try:
            check_peer_id(self.peer_id)
        except FarError as error:
            raise ValueError(error.message) from None
        if self.reach is Reach.NONE and self.fate is not Fate.UNASKED:
            raise ValueError("who was not reached was asked nothing")
        if (self.verdict is None) != (self.fate is not Fate.COMPLETED):
            raise ValueError("a verdict is on an answer, and each answer has one")
        return self


class Report(Body):
    """What the prober ``peer_id`` has seen since its last report."""

    version: Literal[1] = 1
    swarm: Annotated[str, Field(max_length=MAX_SWARM_LENGTH)]
    sequence: Annotated[int, Field(ge=1, le=2**53)]
    issued_at: Annotated[int, Field(ge=0)]
    observations: Annotated[tuple[Observation, ...], Field(min_length=1, max_length=MAX_OBSERVATIONS)]

    @model_validator(mode="after")
    def _is_of_its_time(self) -> Self:
        for one in self.observations:
            if not self.issued_at - OLDEST <= one.at <= self.issued_at + FRESH_SECONDS:
                raise ValueError("an observation is not of the report's time")
        return self

    def is_of_today(self, now: float) -> bool:
        """Whether it was signed within :data:`KEEP_REPORT_SECONDS`, and not in the future (Unix seconds)."""
        return -FRESH_SECONDS <= now - self.issued_at <= KEEP_REPORT_SECONDS

    def is_fresh(self, now: float | None = None) -> bool:
        """Whether it was signed just now (Unix seconds)."""
        return abs((time.time() if now is None else now) - self.issued_at) <= FRESH_SECONDS


@dataclass(frozen=True)
class SignedReport:
    """A report with the document that proves it."""

    report: Report
    document: SignedDocument


def sign_report(report: Report, key: Ed25519PrivateKey) -> SignedReport:
    """Sign with the prober's key."""
    return SignedReport(report, sign_document(report, key, DOMAIN))


def read_report(data: bytes) -> SignedReport:
    """A stranger's bytes as a report: shape, signature and owner checked. Whether it is fresh, and whether anybody
    asked this prober, is for those who know to see.

    Raises:
        ReportInvalid: with the first thing that is wrong.
    """
    return SignedReport(*read_body(data, Report, DOMAIN, ReportInvalid))
