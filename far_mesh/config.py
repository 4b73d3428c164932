"""Settings of the client half, checked once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from discovery.dht.keys import DEFAULT_PREFIX
from discovery.geo import Point, check_point
from discovery.protocol.announcement import MAX_ASKED_UNITS, REGION_PATTERN, Announcement, Quantization
from discovery.protocol.errors import FarError, InvalidArgument
from discovery.protocol.ids import check_peer_id, check_wallet
from discovery.protocol.membership import Membership
from discovery.protocol.messages import MAX_SCOPE_BYTES, Priority
from discovery.protocol.trace import TraceParent

if TYPE_CHECKING:
    from discovery.web.outbound import Policy

Goal = Literal["fastest", "cheapest", "balanced"]
GrammarKind = Literal["json_schema", "regex", "lark"]

MAX_GRAMMAR_BYTES = 64 * 1024
MAX_LOGPROBS = 20
MAX_BIASES = 1024
MAX_STOP_TOKENS = 64
FORBIDDEN = 100.0
"""A token whose bias is so far below zero does not occur."""


@dataclass(frozen=True)
class Preference:
    """Which route is wanted. What is None or empty is no limit.

    Attributes:
        goal: least time per token; least price, and among equals least time; or, where a share of the price of the
            fastest route is worth the same share of its time, the least sum of both.
        max_price: the most that the route's blocks may ask for on average, in 1e-9 FAR for 1,000 token-layers.
        max_latency: milliseconds that a token may take round the ring, as it is estimated when the route is planned.
        region: nodes that say to be in it, or in a part of it: ``eu`` has ``eu-west`` in it.
        near: nodes within ``max_distance_km`` of this latitude and longitude; one of which nobody knows where it is is
            not.
        quantization: forms of weights that will do.
        trusted_only: peer ids or wallets; no other node is used.
        min_tps: tokens per second that each node must compute through all blocks it serves.
        max_load: how full a node may be: 0.8 of the sessions it takes.
        max_hops: most nodes of the route.
    """

    goal: Goal = "fastest"
    max_price: int | None = None
    max_latency: float | None = None
    region: str | None = None
    quantization: frozenset[Quantization] = frozenset()
    trusted_only: frozenset[str] = frozenset()
    min_tps: float | None = None
    max_load: float | None = None
    max_hops: int | None = None
    near: Point | None = None
    max_distance_km: float = 1000.0

    def __post_init__(self) -> None:
        if self.goal not in get_args(Goal):
            raise InvalidArgument(f"{self.goal!r} is not one of {', '.join(get_args(Goal))}", param="goal")
        if self.max_price is not None and not 0 <= self.max_price <= MAX_ASKED_UNITS:
            raise InvalidArgument(f"max_price must be from 0 to {MAX_ASKED_UNITS}", param="max_price")
        for name, value in (("max_latency", self.max_latency), ("min_tps", self.min_tps)):
            if value is not None and not 0 < value < float("inf"):
                raise InvalidArgument(f"{name} must be more than 0, not {value}", param=name)
        if self.region is not None and not re.fullmatch(REGION_PATTERN, self.region):
            raise InvalidArgument(f"a region is written like eu-west, not {self.region!r}", param="region")
        if self.near is not None:
            check_point(self.near, "near")
        if not self.max_distance_km > 0:
            raise InvalidArgument(
                f"max_distance_km must be more than 0, not {self.max_distance_km}", param="max_distance_km"
            )
        if unknown := self.quantization - set(get_args(Quantization)):
            kinds = ", ".join(get_args(Quantization))
            raise InvalidArgument(f"quantization {min(unknown)!r} is not one of {kinds}", param="quantization")
        for identity in self.trusted_only:
            _check_identity(identity)
        if self.max_load is not None and not 0 <= self.max_load <= 1:
            raise InvalidArgument(f"max_load must be from 0 to 1, not {self.max_load}", param="max_load")
        if self.max_hops is not None and self.max_hops < 1:
            raise InvalidArgument(f"max_hops must be at least 1, not {self.max_hops}", param="max_hops")


def _check_identity(text: str) -> None:
    check = check_wallet if text.startswith("0x") else check_peer_id
    try:
        check(text)
    except FarError:
        raise InvalidArgument(f"{text!r} is neither a peer id nor a wallet", param="trusted_only") from None


@dataclass(frozen=True)
class MeshConfig:
    """Times are in seconds.

    ``step_timeout`` bounds one step round the ring, ``open_timeout`` the opening of a session on one route,
    ``close_timeout`` the wait for last receipts; ``open_attempts`` is how many routes are tried before giving up, and
    ``view_age`` how old a picture of the swarm may be when a route is planned on it. ``preference`` says which route is
    wanted.

    When an answer takes longer than ``suspect_after`` (or four times as long as such answers did), all nodes of the
    route are asked whether they are there, and one that says nothing for ``ping_timeout`` is replaced. Where nobody can
    take its place the session waits for ``mend_timeout``; a node that failed is not tried again for ``shun_seconds``.

    ``speculation``: whether guesses are sent ahead where that is quicker.

    Where blocks have no node but sleeping ones, those are called, and are waited for up to ``wake_timeout``; 0: none is
    called. ``wake_policy`` says which of the addresses may be asked that strangers have registered: by default public
    ones over TLS.

    ``membership``: the private swarm that we are invited to, whose name ``prefix`` is.

    ``host_maddrs``: where to listen, so that nodes behind routers come to us directly, and not through their relays;
    for who stays. By default nobody comes to us.

    ``geoip_db``: a city database, by which nodes are found on the map; ``location``: where we are. Both are for guesses
    at round trips that nobody has measured, and the first for :attr:`Preference.near`.
    """

    prefix: str = DEFAULT_PREFIX
    step_timeout: float = 60.0
    open_timeout: float = 5.0
    close_timeout: float = 5.0
    open_attempts: int = 10
    view_age: float = 5.0
    speculation: bool = True
    preference: Preference = Preference()
    suspect_after: float = 0.5
    ping_timeout: float = 2.0
    mend_timeout: float = 20.0
    shun_seconds: float = 5.0
    host_maddrs: tuple[str, ...] = ()
    geoip_db: Path | None = None
    location: Point | None = None
    membership: Membership | None = None
    wake_timeout: float = 60.0
    wake_policy: Policy | None = None

    def __post_init__(self) -> None:
        if self.location is not None:
            check_point(self.location)
        if min(self.step_timeout, self.open_timeout, self.close_timeout) <= 0 or self.open_attempts < 1:
            raise InvalidArgument("timeouts must be positive and at least one attempt is needed")


@dataclass(frozen=True)
class Treatment:
    """How nodes are asked to treat a session.

    Attributes:
        priority: whose steps go first on a busy node.
        prefix_scope: up to 32 bytes; nodes reuse what they computed of a prompt in sessions with the same scope. Who
            asks for several users gives each a scope of its own, or a quick answer tells one what another has asked.
        share_prefix: reuse it in sessions of all clients who say the same, whatever their scope.
        trace_parent: the span that it is part of, which every node is told.
    """

    priority: Priority = Priority.NORMAL
    prefix_scope: bytes = b""
    share_prefix: bool = False
    trace_parent: TraceParent | None = None

    def __post_init__(self) -> None:
        if len(self.prefix_scope) > MAX_SCOPE_BYTES:
            raise InvalidArgument(f"prefix_scope takes at most {MAX_SCOPE_BYTES} bytes", param="prefix_scope")


@dataclass(frozen=True)
class Pool:
    """The nodes that may serve a session; no other node gets to see anything of it. They are named by peer ids alone: a
    node can say of itself that it earns for any wallet.

    Attributes:
        name: of the pool, for who is told that it does not serve all blocks: ``the private pool of …``.
    """

    name: str
    members: frozenset[str]

    def has(self, node: Announcement) -> bool:
        """Whether a node is in it."""
        return node.peer_id in self.members


def parse_priority(name: str) -> Priority:
    """``high``, ``normal`` or ``low``.

    Raises:
        InvalidArgument: none of them.
    """
    try:
        return Priority[name.upper()]
    except KeyError:
        raise InvalidArgument(f"priority {name!r} is not one of high, normal, low", param="priority") from None


@dataclass(frozen=True)
class Grammar:
    """What an answer must look like; made by its class methods.

    ``text`` is a JSON schema, a regular expression that the whole answer matches, or a grammar in llguidance's variety
    of Lark. Whether it can be kept to is found out when it is compiled: :mod:`far_mesh.model.grammar`.
    """

    kind: GrammarKind
    text: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(GrammarKind):
            raise InvalidArgument(f"{self.kind!r} is not one of {', '.join(get_args(GrammarKind))}", param="grammar")
        if not self.text:
            raise InvalidArgument("the grammar is empty", param="grammar")
        try:
            size = len(self.text.encode())
        except UnicodeEncodeError:
            raise InvalidArgument("the grammar is not Unicode: it holds half a character", param="grammar") from None
        if size > MAX_GRAMMAR_BYTES:
            raise InvalidArgument(f"a grammar takes at most {MAX_GRAMMAR_BYTES} bytes, not {size}", param="grammar")

    @classmethod
    def json_object(cls) -> Grammar:
        """Any JSON object."""
        return cls("json_schema", '{"type":"object"}')

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str) -> Grammar:
        """JSON that a schema (draft 2020-12) describes; its properties come in the order in which the schema has them.

        Raises:
            InvalidArgument: no JSON, neither an object nor true, nested too deep, or too long.
        """
        try:
            parsed = json.loads(schema, parse_constant=_no_number) if isinstance(schema, str) else schema
            if parsed is True:
                parsed = {}
            if not isinstance(parsed, Mapping):
                raise InvalidArgument("a JSON schema is an object, or true", param="grammar")
            return cls("json_schema", json.dumps(parsed, allow_nan=False, ensure_ascii=False, separators=(",", ":")))
        except RecursionError:
            raise InvalidArgument("the JSON schema is nested too deep", param="grammar") from None
        except (ValueError, TypeError) as error:
            raise InvalidArgument(f"the JSON schema is no JSON: {error}", param="grammar") from None

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Text that matches a regular expression from its beginning to its end."""
        return cls("regex", pattern)

    @classmethod
    def lark(cls, grammar: str) -> Grammar:
        """Text of a context-free grammar."""
        return cls("lark", grammar)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


@dataclass(frozen=True)
class GenerationOptions:
    """How tokens are chosen and when to stop.

    What is worth how much is settled in this order, which is that of transformers: what ``grammar``, ``min_tokens`` and
    ``logit_bias`` forbid; ``logit_bias``; ``repetition_penalty``; ``frequency_penalty`` and ``presence_penalty``;
    ``temperature``; ``top_k``; ``top_p``; ``min_p``. Each of the last three sees what those before it have left.

    Attributes:
        max_tokens: longest answer.
        temperature: 0 is greedy; ``top_k``, ``top_p`` and ``min_p`` have no say then.
        top_p: the smallest set of tokens whose probability reaches it (nucleus sampling, arXiv:1904.09751).
        seed: the same gives the same text on the same weights.
        stop: the text ends before the first of these.
        top_k: only so many of the likeliest; 0 is all.
        min_p: only tokens with at least this share of the likeliest one's probability (arXiv:2407.01082).
        presence_penalty: what each token loses that the answer has; over the tokens of the answer alone, not of the
            prompt, as OpenAI's reference of its API has it.
        frequency_penalty: what it loses for each time that it has occurred there.
        repetition_penalty: above 1 makes tokens of prompt and answer less likely: it divides what is positive and
            multiplies what is negative (CTRL, arXiv:1909.05858), as transformers does; 1 is none.
        logit_bias: added to tokens' logits, from -100 to 100; -100 forbids a token.
        logprobs: tell each token's log probability, and those of so many of the likeliest tokens, up to 20. They are
            the model's own: of its logits, before anything above.
        min_tokens: no token that ends the text among so many first ones.
        stop_token_ids: tokens that end the text, beside the model's own; their text is part of it.
        grammar: what the answer must look like. The text ends where that is complete, or at ``max_tokens``.
        shown_tokens: special tokens whose written form is part of the text; others are left out.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    grammar: Grammar | None = None
    shown_tokens: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InvalidArgument(f"max_tokens must be at least 1, not {self.max_tokens}", param="max_tokens")
        if not 0.0 <= self.temperature <= 2.0:
            raise InvalidArgument(f"temperature must be from 0 to 2, not {self.temperature}", param="temperature")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidArgument(f"top_p must be above 0 and at most 1, not {self.top_p}", param="top_p")
        if len(self.stop) > 16 or not all(0 < len(word) <= 256 for word in self.stop):
            raise InvalidArgument("stop takes up to 16 strings of 1 to 256 characters", param="stop")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise InvalidArgument("seed must fit in 64 bits", param="seed")
        if not 0 <= self.top_k < 2**31:
            raise InvalidArgument(f"top_k must be 0 (all) or more, not {self.top_k}", param="top_k")
        if not 0.0 <= self.min_p <= 1.0:
            raise InvalidArgument(f"min_p must be from 0 to 1, not {self.min_p}", param="min_p")
        self._check_penalties()
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise InvalidArgument(f"logprobs must be from 0 to {MAX_LOGPROBS}, not {self.logprobs}", param="logprobs")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise InvalidArgument(f"min_tokens must be from 0 to max_tokens, not {self.min_tokens}", param="min_tokens")
        if len(self.stop_token_ids) > MAX_STOP_TOKENS:
            raise InvalidArgument(f"stop_token_ids takes up to {MAX_STOP_TOKENS}", param="stop_token_ids")

    def _check_penalties(self) -> None:
        for name, value in (
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ):
            if not -2.0 <= value <= 2.0:
                raise InvalidArgument(f"{name} must be from -2 to 2, not {value}", param=name)
        if not 0.0 < self.repetition_penalty <= 2.0:
            raise InvalidArgument(
                f"repetition_penalty must be above 0 and at most 2, not {self.repetition_penalty}",
                param="repetition_penalty",
            )
        if len(self.logit_bias) > MAX_BIASES:
            raise InvalidArgument(f"logit_bias takes up to {MAX_BIASES} tokens", param="logit_bias")
        if not all(-FORBIDDEN <= bias <= FORBIDDEN for bias in self.logit_bias.values()):
            raise InvalidArgument("logit_bias takes numbers from -100 to 100", param="logit_bias")
