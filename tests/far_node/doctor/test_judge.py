"""What facts mean, where they cannot be made here: other machines' routers, drivers and clocks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from discovery.dht.dialback import Answer, Outcome
from discovery.dht.probe import Meeting
from discovery.protocol.errors import WeightsDamaged
from far_node.doctor import judge
from far_node.doctor.facts import (
    Card,
    DeviceFacts,
    DiskFacts,
    HttpFacts,
    IdentityFacts,
    ListenFacts,
    ModelFacts,
    SwarmFacts,
)

GIB = 1 << 30
HERE = frozenset({"127.0.0.1", "192.168.1.5"})
OPEN = ListenFacts(("/ip4/0.0.0.0/tcp/31330",), 31330, in_use=False, is_ours=False, relay=False)
CARD = Card("nvidia", "NVIDIA GeForce RTX 3060", "550.54")


def met(ip: str | None, port: int | None = 4000, outcome: Outcome = "reached", ahead: float = 0.0) -> Meeting:
    return Meeting(
        "/ip4/1.1.1.1/tcp/1/p2p/x", None, 20.0, Answer(time=0, ip=ip, source_port=port, outcome=outcome), ahead
    )


def swarm(*meetings: Meeting) -> SwarmFacts:
    return SwarmFacts(meetings, HERE)


@pytest.mark.parametrize(
    ("ahead", "verdict"),
    [
        (0.0, "good"),
        (1.9, "good"),
        (-1.9, "good"),
        (2.5, "warning"),
        (-120.0, "warning"),
        (301.0, "bad"),
        (-3600, "bad"),
    ],
)
def test_the_clock_by_peers(ahead: float, verdict: str) -> None:
    assert judge.clock([met("8.8.8.8", ahead=ahead)], []).verdict == verdict


def test_one_peer_with_a_wrong_clock_does_not_make_ours_wrong() -> None:
    assert judge.clock([met("8.8.8.8", ahead=seconds) for seconds in (0.1, 7200.0, -0.2)], []).verdict == "good"


def test_a_date_of_http_is_true_to_a_second_and_peers_come_first() -> None:
    def dated(ahead: float) -> HttpFacts:
        return HttpFacts("https://far.example", 200, None, 10.0, ahead)

    assert judge.clock([], [dated(2.4)]).verdict == "good"
    assert judge.clock([], [dated(-3.6)]).verdict == "warning"
    assert judge.clock([], [dated(-600.0)]).verdict == "bad"
    assert judge.clock([met("8.8.8.8")], [dated(600.0)]).verdict == "good"
    assert judge.clock([], []).verdict == "unknown"


@pytest.mark.parametrize(
    ("outcome", "verdict", "words"),
    [
        ("reached", "good", "is reached from outside"),
        ("refused", "bad", "connections are refused"),
        ("silent", "bad", "nothing answers"),
        ("stranger", "bad", "another program answers"),
        ("too_often", "unknown", "in a minute"),
        ("not_asked", "unknown", "nobody could be asked"),
        ("relayed", "unknown", "nobody could be asked"),
    ],
)
def test_the_port_by_what_came_of_dialing(outcome: Outcome, verdict: str, words: str) -> None:
    finding = judge.port(OPEN, swarm(met("8.8.8.8", outcome=outcome)))
    assert (finding.verdict, words in finding.says) == (verdict, True), finding.says


@pytest.mark.parametrize(
    ("reasons", "verdict", "says"),
    [
        ((None,), "good", "1 of 1 initial peers relay for this machine"),
        ((None, "the relay refuses: it has no slot left"), "good", "1 of 2 initial peers relay"),
        (("the relay refuses: it has no slot left",), "bad", "no slot left"),
        ((), "unknown", "nobody could be asked to relay"),
    ],
    ids=["willing", "one of two", "full", "nobody"],
)
def test_who_is_to_be_reached_through_relays_needs_one(
    reasons: tuple[str | None, ...], verdict: str, says: str
) -> None:
    meetings = tuple(Meeting(f"peer-{number}", no_slot=reason) for number, reason in enumerate(reasons))
    finding = judge.port(replace(OPEN, relay=True), SwarmFacts(meetings, frozenset()))
    assert finding.verdict == verdict
    assert says in finding.says
    if verdict == "bad":
        assert "--initial-peers" in finding.todo


def test_one_who_reaches_us_is_enough_and_a_private_network_is_not_the_internet() -> None:
    assert judge.port(OPEN, swarm(met("8.8.8.8", outcome="silent"), met("8.8.8.8"))).verdict == "good"
    assert "the Internet did not try" in judge.port(OPEN, swarm(met("192.168.1.5"))).says


@pytest.mark.parametrize(
    ("seen", "verdict", "kind"),
    [
        ([("192.168.1.5", 1)], "good", "none"),
        ([("8.8.8.8", 1)], "good", "not known"),
        ([("8.8.8.8", 1), ("8.8.8.8", 1)], "good", "cone"),
        ([("8.8.8.8", 1), ("8.8.8.8", 2)], "good", "symmetric"),
        ([("8.8.8.8", 1), ("9.9.9.9", 1)], "warning", "address-dependent"),
    ],
)
def test_the_kind_of_nat_by_how_others_see_us(seen: list[tuple[str, int]], verdict: str, kind: str) -> None:
    finding = judge.nat(swarm(*(met(ip, port) for ip, port in seen)))
    assert (finding.verdict, finding.facts["kind"]) == (verdict, kind)


def test_addresses_of_a_carrier() -> None:
    assert judge.is_carrier_grade("100.64.0.1")
    assert not judge.is_carrier_grade("100.128.0.1")
    assert not judge.is_carrier_grade("2001:db8::1")


def device(**changes: object) -> DeviceFacts:
    usual = {"wanted": "auto", "found": "cpu", "error": None, "torch": "2.13.0", "built_for": "12.8", "cards": ()}
    return DeviceFacts(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "verdict", "words"),
    [
        (device(), "good", "no GPU is known"),
        (device(found="cuda:0", cards=(CARD,)), "good", "cuda:0"),
        (device(wanted="cpu", cards=(CARD,)), "good", "as chosen"),
        (device(cards=(CARD,), built_for=None), "warning", "built for the CPU alone"),
        (device(cards=(CARD,)), "warning", "may be too old"),
        (
            device(wanted="cuda:0", found=None, error="no CUDA device", cards=(CARD,), built_for=None),
            "bad",
            "CPU alone",
        ),
        (device(wanted="cuda:0", found=None, error="no CUDA device", cards=(CARD,)), "bad", "may be too old"),
        (
            device(wanted="cuda:3", found=None, error="there is no cuda:3: …", cards=(CARD,)),
            "bad",
            "there is no cuda:3",
        ),
        (device(wanted="cuda:0", found=None, error="no CUDA device"), "bad", "no driver tells"),
    ],
)
def test_driver_and_build_and_choice_are_told_apart(facts: DeviceFacts, verdict: str, words: str) -> None:
    finding = judge.device(facts)
    assert (finding.verdict, words in finding.says) == (verdict, True), finding.says


def test_room_for_what_is_still_to_come() -> None:
    def of(free: int, needed: int | None) -> str:
        return judge.disk(DiskFacts("/models", free, 1 << 40, needed)).verdict

    assert of(100 * GIB, 50 * GIB) == "good"
    assert of(50 * GIB, 50 * GIB) == "bad"
    assert (of(20 * GIB, 0), of(3 * GIB, None), of(GIB // 2, None)) == ("good", "warning", "bad")


def test_a_key_that_others_can_read() -> None:
    finding = judge.identity(IdentityFacts("/home/ann/.far/identity", True, 0o644, "12D3"))
    assert (finding.verdict, finding.command) == ("bad", "chmod 600 /home/ann/.far/identity")
    assert judge.identity(IdentityFacts("/home/ann/.far/identity", True, 0o600, "12D3")).verdict == "good"


def test_damaged_weights_are_not_taken_for_a_wrong_path() -> None:
    finding = judge.model(ModelFacts("m", error=WeightsDamaged("model.safetensors is not what its manifest says")))
    assert (finding.verdict, finding.facts["code"]) == ("bad", "weights_damaged")
    assert "not paid" in finding.why


def test_what_nobody_named_is_not_blamed() -> None:
    assert {
        judge.wallet(None).verdict,
        judge.model(None).verdict,
        judge.memory(None).verdict,
        judge.bootstrap(swarm()).verdict,
        judge.nat(swarm()).verdict,
        judge.service("gateway", None).verdict,
    } == {"unknown"}


def test_some_initial_peers_that_do_not_answer_are_a_warning() -> None:
    finding = judge.bootstrap(swarm(met("8.8.8.8"), Meeting("/ip4/2.2.2.2/tcp/1/p2p/y", "it does not answer")))
    assert finding.verdict == "warning"
    assert "2.2.2.2" in finding.says


def test_a_service_that_fails_is_a_warning_only() -> None:
    for status, reason in ((None, "does not answer"), (503, None)):
        assert judge.service("discovery", HttpFacts("https://far.example", status, reason)).verdict == "warning"
    assert judge.service("gateway", HttpFacts("https://far.example", 200, None, 3.0)).verdict == "good"
