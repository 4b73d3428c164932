"""Who belongs to a private swarm: charters, invitations, passes, and what forgers make of them."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from discovery.protocol.errors import FarError, MembershipInvalid, NotInvited
from discovery.protocol.membership import (
    CHARTER,
    DELEGATION,
    HANDOVER,
    INVITATION,
    MAX_REVOKED,
    Handover,
    SignedCharter,
    Token,
    amend,
    found_swarm,
    hand_over,
    invite,
    membership_of,
    read_charter,
    read_pass,
    read_token,
)
from discovery.protocol.signed import SignedDocument, sign_document
from tests.support.documents import key_of, peer_of, signed_json

OWNER, GUEST, STRANGER = "owner", "guest", "stranger"
HOUR = 3600


@pytest.fixture
def charter() -> SignedCharter:
    return found_swarm("acme", key_of(OWNER), ["/ip4/10.0.0.1/tcp/31337/p2p/" + peer_of("bootstrap")])


def invited(charter: SignedCharter, role: Any = "client", guest: str | None = GUEST, owner: str = OWNER) -> Token:
    return invite(charter, key_of(owner), role, HOUR, None if guest is None else peer_of(guest))


def refused(charter: SignedCharter, token: Token, match: str, *, holder: str = GUEST, **more: Any) -> None:
    with pytest.raises(NotInvited, match=match):
        charter.counts_until(read_pass(token.pass_of(peer_of(holder)).to_text()), peer_of(holder), **more)


def test_a_swarm_is_named_after_who_founded_it(charter: SignedCharter) -> None:
    assert charter.swarm == f"private/acme/{peer_of(OWNER)}"
    assert read_charter(charter.to_bytes()) == charter
    for name in ("", "Acme", "a/b", "-a", "a" * 65):
        with pytest.raises(MembershipInvalid, match="name"):
            found_swarm(name, key_of(OWNER))


def test_who_is_invited_comes_in_for_as_long_as_the_invitation_says(charter: SignedCharter) -> None:
    token = invited(charter)
    shown = read_pass(token.pass_of(peer_of(GUEST)).to_text())
    until = charter.counts_until(shown, peer_of(GUEST))
    assert until == token.invitation.expires_at
    assert charter.counts_until(shown, peer_of(GUEST), now=until - 1) == until
    refused(charter, token, "counts no longer", now=until)
    refused(charter, token, "from the future", now=token.invitation.issued_at - 2 * HOUR)


def test_nobody_else_comes_in_with_it(charter: SignedCharter) -> None:
    token = invited(charter)
    with pytest.raises(NotInvited, match="another peer's"):
        charter.counts_until(token.pass_of(peer_of(GUEST)), peer_of(STRANGER))
    with pytest.raises(NotInvited, match="the invitation is for"):
        token.pass_of(peer_of(STRANGER))


def test_whoever_bears_a_bearers_invitation_comes_in_and_nobody_to_whom_it_was_shown(charter: SignedCharter) -> None:
    token = read_token(invited(charter, guest=None).to_text())
    for holder in (GUEST, STRANGER):
        charter.counts_until(read_pass(token.pass_of(peer_of(holder)).to_text()), peer_of(holder))
    with pytest.raises(NotInvited, match="another peer's"):
        charter.counts_until(token.pass_of(peer_of(GUEST)), peer_of(STRANGER))


def test_a_client_may_not_serve(charter: SignedCharter) -> None:
    refused(charter, invited(charter), "a client's", role="node")
    node = invited(charter, "node").pass_of(peer_of(GUEST))
    assert charter.counts_until(node, peer_of(GUEST), "node") == charter.counts_until(node, peer_of(GUEST))


def test_what_is_revoked_counts_no_longer(charter: SignedCharter) -> None:
    token, other = invited(charter), invited(charter)
    later = amend(charter, key_of(OWNER), revoke=[token.invitation.id])
    refused(later, token, "revoked")
    later.counts_until(other.pass_of(peer_of(GUEST)), peer_of(GUEST))
    assert amend(later, key_of(OWNER)).charter.revoked == (token.invitation.id,)
    with pytest.raises(MembershipInvalid):
        amend(charter, key_of(OWNER), revoke=["not an id"])
    with pytest.raises(MembershipInvalid):
        amend(charter, key_of(OWNER), revoke=[f"{number:032x}" for number in range(MAX_REVOKED + 1)])
    full = amend(charter, key_of(OWNER), revoke=[f"{number:032x}" for number in range(MAX_REVOKED)])
    assert read_charter(full.to_bytes()) == full


def test_an_invitation_to_another_swarm_is_none_to_this_one(charter: SignedCharter) -> None:
    other = found_swarm("other", key_of(OWNER))
    refused(charter, invited(other), "another swarm")


def test_only_the_owner_invites_and_revokes(charter: SignedCharter) -> None:
    for act in (
        lambda: invite(charter, key_of(STRANGER), "node", HOUR),
        lambda: amend(charter, key_of(STRANGER)),
        lambda: hand_over(charter, key_of(STRANGER), key_of(GUEST), 0),
    ):
        with pytest.raises(NotInvited, match="belongs to"):
            act()
    forged = invited(charter).invitation.model_copy(update={"peer_id": peer_of(STRANGER)})
    refused(charter, Token(forged, sign_document(forged, key_of(STRANGER), INVITATION)), "counts no longer")
    with pytest.raises(MembershipInvalid, match="three years"):
        invite(charter, key_of(OWNER), "client", 0)


def test_a_later_charter_counts_and_an_earlier_one_never_again(charter: SignedCharter) -> None:
    later = amend(charter, key_of(OWNER))
    assert later.supersedes(charter)
    assert not charter.supersedes(later)
    assert not charter.supersedes(charter)
    assert not amend(found_swarm("other", key_of(OWNER)), key_of(OWNER)).supersedes(charter)


class TestHandover:
    def test_the_new_owner_invites_and_the_old_one_no_more(self, charter: SignedCharter) -> None:
        before = invited(charter)
        new = hand_over(charter, key_of(OWNER), key_of("heir"), int(time.time()) + 60)
        assert (new.owner, new.swarm) == (peer_of("heir"), charter.swarm)
        assert new.supersedes(charter)
        assert new.counts_until(before.pass_of(peer_of(GUEST)), peer_of(GUEST)) == new.handovers[0].until
        refused(new, before, "counts no longer", now=new.handovers[0].until)
        new.counts_until(invited(new, owner="heir").pass_of(peer_of(GUEST)), peer_of(GUEST))
        with pytest.raises(NotInvited, match="belongs to"):
            amend(new, key_of(OWNER))

    def test_after_a_theft_nothing_of_the_old_key_counts(self, charter: SignedCharter) -> None:
        new = hand_over(charter, key_of(OWNER), key_of("heir"), 0)
        refused(new, invited(charter), "counts no longer")

    def test_the_old_owner_cannot_take_it_back(self, charter: SignedCharter) -> None:
        new = hand_over(charter, key_of(OWNER), key_of("heir"), 0)
        second = hand_over(amend(amend(charter, key_of(OWNER)), key_of(OWNER)), key_of(OWNER), key_of(STRANGER), 0)
        third = hand_over(second, key_of(STRANGER), key_of("accomplice"), 0)
        for stolen in (amend(amend(charter, key_of(OWNER)), key_of(OWNER)), second, third):
            assert not stolen.supersedes(new)
        with pytest.raises(MembershipInvalid, match="does not own"):
            hand_over(new, key_of("heir"), key_of(OWNER), 0)

    def test_a_charter_of_somebody_whom_nobody_gave_the_swarm_is_none(self, charter: SignedCharter) -> None:
        fields = json.loads(charter.document.body) | {"peer_id": peer_of(STRANGER), "serial": 9}
        self.is_refused(signed_json(STRANGER, fields, CHARTER), "does not own")
        gift = Handover(peer_id=peer_of(STRANGER), swarm=charter.swarm, to=peer_of(STRANGER), until=0)
        fields["handovers"] = [sign_document(gift, key_of(STRANGER), HANDOVER).to_bytes().decode()]
        self.is_refused(signed_json(STRANGER, fields, CHARTER), "who did not own it")
        of_another = gift.model_copy(update={"peer_id": peer_of(OWNER), "swarm": "private/other/x"})
        fields["handovers"] = [sign_document(of_another, key_of(OWNER), HANDOVER).to_bytes().decode()]
        self.is_refused(signed_json(STRANGER, fields, CHARTER), "who did not own it")

    @staticmethod
    def is_refused(data: bytes, match: str) -> None:
        with pytest.raises(MembershipInvalid, match=match):
            read_charter(data)


@pytest.mark.parametrize(
    "change",
    [
        {"swarm": "far"},
        {"swarm": "private/acme"},
        {"swarm": "private/ACME/" + peer_of(OWNER)},
        {"serial": 0},
        {"serial": "1"},
        {"revoked": ["x"]},
        {"handovers": ["{}"]},
        {"version": 2},
    ],
    ids=str,
)
def test_a_charter_that_makes_no_sense_is_refused_although_it_is_signed(
    charter: SignedCharter, change: dict[str, Any]
) -> None:
    with pytest.raises(MembershipInvalid):
        read_charter(signed_json(OWNER, json.loads(charter.document.body) | change, CHARTER))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '["a","b","c"]', "[1]", '["{}"]', "[" * 3000, "x" * 5000, '["\\ud800"]'], ids=repr
)
def test_what_is_no_pass_is_refused(text: str) -> None:
    with pytest.raises(MembershipInvalid):
        read_pass(text)


def test_a_pass_of_a_bearer_cannot_be_signed_over_by_another(charter: SignedCharter) -> None:
    token = invited(charter, guest=None)
    shown = token.pass_of(peer_of(GUEST))
    assert shown.delegation is not None
    invitation = token.document.to_bytes().decode()
    body = json.loads(shown.delegation.body)
    for signer, change in (
        (STRANGER, {"peer_id": peer_of(STRANGER), "holder": peer_of(STRANGER)}),
        (STRANGER, {"holder": peer_of(STRANGER)}),
    ):
        forged = signed_json(signer, body | change, DELEGATION).decode()
        with pytest.raises(MembershipInvalid):
            read_pass(json.dumps([invitation, forged]))
    with pytest.raises(MembershipInvalid, match="which peer it is for"):
        read_pass(json.dumps([invitation]))
    named = invited(charter).document.to_bytes().decode()
    with pytest.raises(MembershipInvalid, match="which peer it is for"):
        read_pass(json.dumps([named, shown.delegation.to_bytes().decode()]))


def test_a_delegation_is_for_one_invitation(charter: SignedCharter) -> None:
    token, other = invited(charter, guest=None), invited(charter, guest=None)
    delegation = other.pass_of(peer_of(GUEST)).delegation
    assert isinstance(delegation, SignedDocument)
    with pytest.raises(MembershipInvalid, match="does not bear"):
        read_pass(json.dumps([token.document.to_bytes().decode(), delegation.to_bytes().decode()]))


def test_a_token_is_one_word_and_its_key_is_not_shown(charter: SignedCharter) -> None:
    token = invited(charter, guest=None)
    assert token.key is not None
    text = token.to_text()
    assert len(text.split()) == 1
    read = read_token(f" {text}\n")
    assert read.key is not None
    assert (read.invitation, read.key.private_bytes_raw()) == (token.invitation, token.key.private_bytes_raw())
    assert "key" not in repr(read)
    assert base64.b64encode(token.key.private_bytes_raw()).decode() not in token.pass_of(peer_of(GUEST)).to_text()


def test_what_is_no_token_is_refused(charter: SignedCharter) -> None:
    text = invited(charter, guest=None).to_text()
    packed = base64.urlsafe_b64decode(text.removeprefix("far-invite-") + "==")
    document, _ = json.loads(packed)

    def repacked(value: object) -> str:
        return "far-invite-" + base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    wrong = ["", "far-invite-", text[:-40], text + "A" * 9000, "far-invite-é", repacked([document]), repacked(7)]
    wrong += [repacked([document, None]), repacked([document, "x"]), repacked([document, "AA=="]), repacked([1, None])]
    wrong += [repacked([document, base64.b64encode(b"k" * 32).decode()])]
    for one in wrong:
        with pytest.raises(MembershipInvalid):
            read_token(one)


def test_a_swarms_file_and_an_invitation_belong_together(charter: SignedCharter, tmp_path: Path) -> None:
    file, word = tmp_path / "acme.swarm", tmp_path / "invitation"
    file.write_bytes(charter.to_bytes())
    text = invited(charter).to_text()
    word.write_text(text)
    assert membership_of(None, None) is None
    for given in (text, str(word)):
        membership = membership_of(file, given)
        assert membership is not None
        assert membership.charter == charter
        assert membership.file == file
    strange = invited(found_swarm("other", key_of(OWNER))).to_text()
    wrong: list[tuple[Path | None, str | None]] = [(file, None), (None, text), (tmp_path / "none", text)]
    for here, asked in (*wrong, (file, strange), (file, str(tmp_path))):
        with pytest.raises(FarError):
            membership_of(here, asked)
