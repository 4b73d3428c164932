"""What a discovery service has seen of a node, for its owner: its score, of what it is made, and what would help."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from discovery.inquiry import Inquiry
from discovery.protocol.errors import FarError
from discovery.score import COUNTS, Observations, Score, score_of, what_helps

SECONDS = 5.0
MOST_BYTES = 1024 * 1024
MOST_PROBERS = 64
PARTS = ("dependability", "honesty", "presence", "standing")


class Known(StrEnum):
    """SEEN: there is a score. UNSEEN: the service has nothing to make one of. UNAVAILABLE: it does not answer, or
    nothing that means anything here. NOWHERE: no service is known to ask."""

    SEEN = "seen"
    UNSEEN = "unseen"
    UNAVAILABLE = "unavailable"
    NOWHERE = "nowhere"


@dataclass(frozen=True)
class Standing:
    """How a node is seen.

    Attributes:
        discovery: the address of the service that was asked.
        why: a sentence, where there is no score.
        probers: how many have looked at it within a day.
        seen: of what the score is made.
    """

    known: Known
    discovery: str | None = None
    why: str = ""
    probers: int = 0
    seen: Observations | None = None

    @property
    def score(self) -> Score | None:
        """The score, as it is reckoned here; None: there is none."""
        return None if self.seen is None else score_of(self.seen)

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "known": self.known.value,
            "discovery": self.discovery,
            "why": self.why or None,
            "probers": self.probers,
            "score": None if self.score is None else {"value": self.score.value} | asdict(self.score),
            "seen": None if self.seen is None else asdict(self.seen),
            "helps": [] if self.seen is None else list(what_helps(self.seen)),
        }


async def standing_of(peer_id: str, url: str | None, seconds: float = SECONDS) -> Standing:
    """What the service at ``url`` has seen of a node. Whatever it answers, this is an answer."""
    if url is None:
        return Standing(Known.NOWHERE, why="no discovery service is known: --discovery with the address of one")
    try:
        async with Inquiry(url, seconds) as service:
            status, body = await service.get(f"/nodes/{peer_id}", most_bytes=MOST_BYTES)
    except FarError as error:
        return Standing(Known.UNAVAILABLE, url, error.message)
    if status == 404:
        return Standing(Known.UNSEEN, url, "the discovery service has not heard of this node yet")
    if status != 200:
        return Standing(Known.UNAVAILABLE, url, f"the discovery service answers with status {status}")
    try:
        told = _Answer.model_validate_json(body)
    except ValidationError:
        told = None
    if told is None or told.node_id != peer_id:
        return Standing(Known.UNAVAILABLE, url, "what the discovery service says means nothing here: is it older?")
    probers = len({one.prober for one in told.probed})
    if told.score is None:
        looked = "it was only looked at" if probers else "no prober has looked at it"
        return Standing(Known.UNSEEN, url, f"nobody has seen it at work yet: {looked}", probers)
    return Standing(Known.SEEN, url, probers=probers, seen=told.score.seen())


Count = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


class _Score(BaseModel):
    """Of what a score was made. The score itself is reckoned anew, so that it agrees with the advice."""

    completed: Count
    failed: Count
    timed_out: Count
    pauses_caused: Count
    receipts_rejected: Count
    probes_right: Count
    probes_wrong: Count
    uptime: Annotated[float, Field(ge=0, le=1)] | None
    age: Count

    def seen(self) -> Observations:
        counts = {name: getattr(self, name) for name in COUNTS}
        return Observations(**counts, uptime=self.uptime, age=self.age)


class _Probed(BaseModel):
    prober: Annotated[str, Field(max_length=128)]


class _Answer(BaseModel):
    node_id: str
    probed: Annotated[list[_Probed], Field(max_length=MOST_PROBERS)]
    score: _Score | None
