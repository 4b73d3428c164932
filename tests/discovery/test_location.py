"""Places as people write them into a query."""

from __future__ import annotations

import pytest

from discovery.location import is_in, parse_location
from discovery.protocol.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("52.5,13.4", (52.5, 13.4)),
        (" -33.9, 151 ", (-33.9, 151.0)),
        ("eu", "eu"),
        ("US-East", "us-east"),
        (" eu-west-1 ", "eu-west-1"),
    ],
)
def test_a_point_or_a_region(text: str, means: object) -> None:
    assert parse_location(text) == means


@pytest.mark.parametrize(
    "text",
    ["", " ", ",", "91,0", "0,181", "nan,nan", "1e1,2", "1,2,3", "eu_west", "eu west", "-eu", "eu--w", "e" * 17, "é"],
)
def test_anything_else_is_refused_by_the_name_of_the_parameter(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_location(text, "near")
    assert refused.value.facts["param"] == "near"
    assert len(refused.value.message) < 200


def test_a_region_holds_its_parts_and_no_other_that_begins_alike() -> None:
    assert is_in("eu-west", "eu")
    assert is_in("eu", "eu")
    assert not is_in("europe", "eu")
    assert not is_in("eu", "eu-west")
    assert not is_in(None, "eu")
