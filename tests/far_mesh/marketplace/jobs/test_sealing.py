"""What is sealed is read by who has the key, as what it was sealed as, and by nobody else."""

from __future__ import annotations

import pytest

from far_mesh.marketplace.errors import InvalidSetting, SealBroken
from far_mesh.marketplace.jobs.sealing import Seals
from far_mesh.marketplace.settings import Settings

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SAID = b"what somebody said"


def test_what_is_sealed_is_read_again() -> None:
    seals = Seals([OLD])
    sealed = seals.seal(SAID, "job_1/request")
    assert SAID not in sealed
    assert seals.open(sealed, "job_1/request") == SAID
    assert seals.seal(SAID, "job_1/request") != sealed  # nobody sees that two said the same


def test_the_first_key_writes_and_all_of_them_read() -> None:
    before = Seals([OLD]).seal(SAID, "a")
    both = Seals([NEW, OLD])
    assert both.open(before, "a") == SAID
    after = both.seal(SAID, "a")
    assert Seals([NEW]).open(after, "a") == SAID
    with pytest.raises(SealBroken, match="FAR_JOBS_KEYS"):
        Seals([OLD]).open(after, "a")


def test_it_cannot_be_put_in_the_place_of_something_else() -> None:
    seals = Seals([OLD])
    with pytest.raises(SealBroken):
        seals.open(seals.seal(SAID, "job_1/result"), "job_2/result")


@pytest.mark.parametrize("place", [0, 1, 5, 16, 17, -1])
def test_whatever_is_changed_is_noticed(place: int) -> None:
    seals = Seals([OLD])
    sealed = bytearray(seals.seal(SAID, "a"))
    sealed[place] ^= 1
    with pytest.raises(SealBroken):
        seals.open(bytes(sealed), "a")


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01" * 20])
def test_what_is_too_short_is_noticed(sealed: bytes) -> None:
    with pytest.raises(SealBroken):
        Seals([OLD]).open(sealed, "a")


def test_a_fingerprint_is_of_one_text_and_of_one_thing() -> None:
    seals = Seals([OLD])
    mark = seals.fingerprint(SAID, "job_1")
    assert seals.is_of(mark, SAID, "job_1")
    assert Seals([NEW, OLD]).is_of(mark, SAID, "job_1")
    assert not seals.is_of(mark, SAID + b".", "job_1")
    assert not seals.is_of(mark, SAID, "job_2")
    assert not Seals([NEW]).is_of(mark, SAID, "job_1")


def test_keys_are_not_shown() -> None:
    assert OLD.hex() not in repr(Seals([OLD]))
    assert OLD.hex() not in repr(Settings(jobs_keys=(OLD.hex(),)))


@pytest.mark.parametrize("keys", [["short"], ["zz" * 32], ["11" * 31], ["11" * 32, "11" * 32], [""]])
def test_keys_that_are_none_are_refused_by_the_name_of_the_setting(keys: list[str]) -> None:
    with pytest.raises(InvalidSetting, match="FAR_JOBS_KEYS") as caught:
        Settings.read(jobs_keys=keys).job_keys()
    assert keys[0] == "" or keys[0] not in caught.value.message
