"""Identity files: made once, private, and refused when they are damaged or of another kind."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.dht.identity import discard_identity, ephemeral_identity, load_identity
from discovery.protocol.errors import InvalidIdentity
from discovery.protocol.ids import sign, signature_is_valid

RSA_HEADER = bytes([0x08, 0x00, 0x12, 0xA7, 0x09])


def test_an_absent_identity_is_made_once_and_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "identity"
    made = load_identity(path)
    assert load_identity(path).peer_id == made.peer_id
    assert load_identity(tmp_path / "other").peer_id != made.peer_id
    assert signature_is_valid(made.peer_id, "d", b"body", sign(made.key, "d", b"body"))


def test_nobody_else_can_read_a_new_identity(tmp_path: Path) -> None:
    path = load_identity(tmp_path / "identity").path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_p2p_daemon_reads_the_same_file_as_the_same_peer(tmp_path: Path) -> None:
    from hivemind.p2p import P2P

    identity = load_identity(tmp_path / "identity")
    daemon = await P2P.create(identity_path=str(identity.path), auto_nat=False, nat_port_map=False)
    try:
        assert daemon.peer_id.to_base58() == identity.peer_id
    finally:
        await daemon.shutdown()


def test_an_identity_with_any_one_byte_changed_is_refused_or_another_peer(tmp_path: Path) -> None:
    right = load_identity(tmp_path / "identity")
    data, path = right.path.read_bytes(), tmp_path / "changed"
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(InvalidIdentity, match=r"not an ed25519|damaged"):
            load_identity(path)


@pytest.mark.parametrize(
    "data", [b"", b"hello", RSA_HEADER + bytes(1191), bytes(68)], ids=["empty", "text", "rsa", "zeros"]
)
def test_a_file_that_is_no_ed25519_identity_is_refused_with_its_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "identity"
    path.write_bytes(data)
    with pytest.raises(InvalidIdentity, match=str(path)):
        load_identity(path)
    assert path.read_bytes() == data, "what somebody keeps there is not overwritten"


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("identity") / "identity"
    path.write_bytes(data)
    with pytest.raises(InvalidIdentity):
        load_identity(path)


def test_a_place_where_no_file_can_be_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path, tmp_path / "file" / "identity"):
        with pytest.raises(InvalidIdentity, match="cannot be used"):
            load_identity(path)


def test_an_ephemeral_identity_leaves_nothing_behind() -> None:
    identity = ephemeral_identity()
    assert identity.path.is_file()
    discard_identity(identity)
    assert not identity.path.parent.exists()
