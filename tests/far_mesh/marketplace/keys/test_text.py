"""A key is random, whole or nothing, and recognised by a pattern."""

from __future__ import annotations

import re

import pytest

from far_mesh.marketplace.errors import Unauthorized
from far_mesh.marketplace.keys.text import hash_of, new_key, shown

KEY = new_key()


def test_keys_are_of_one_form_and_differ() -> None:
    keys = {new_key() for _ in range(1_000)}
    assert len(keys) == len({hash_of(key) for key in keys}) == 1_000
    assert all(re.fullmatch(r"sk-far-[0-9A-Za-z]{49}", key) for key in keys)
    # Every place of the random part takes many values: nothing of it is fixed.
    assert all(len({key[place] for key in keys}) > 30 for place in range(8, 50))


def test_what_is_kept_is_not_the_key() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", hash_of(KEY))
    assert hash_of(KEY) == hash_of(str(KEY))
    assert KEY.startswith(shown(KEY))
    assert len(shown(KEY)) == 15


@pytest.mark.parametrize("place", range(7, 56))
def test_one_mistyped_letter_is_noticed(place: int) -> None:
    other = "a" if KEY[place] != "a" else "b"
    with pytest.raises(Unauthorized, match="checksum"):
        hash_of(KEY[:place] + other + KEY[place + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-far-",
        KEY[:-1],
        KEY + "a",
        KEY[7:],
        " " + KEY,
        KEY + "\n",
        KEY.upper(),
        KEY.swapcase(),
        "sk-far-" + "\u00e9" * 49,
    ],
    ids=["nothing", "prefix", "cut", "longer", "no prefix", "space", "line", "upper", "swapped", "accents"],
)
def test_what_is_no_key_has_no_hash(text: str) -> None:
    with pytest.raises(Unauthorized):
        hash_of(text)


def test_two_letters_that_change_places_are_noticed() -> None:
    place = next(place for place in range(4, 46) if KEY[place] != KEY[place + 1])
    swapped = KEY[:place] + KEY[place + 1] + KEY[place] + KEY[place + 2 :]
    with pytest.raises(Unauthorized):
        hash_of(swapped)
