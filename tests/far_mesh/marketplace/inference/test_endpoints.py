"""The whole walk through the front door, against a real chain."""

from __future__ import annotations

from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import STORY


def test_a_plain_answer_is_paid_to_the_unit_on_chain(open_house: OpenHouse) -> None:
    house = open_house()
    user = house.user()
    answer = user.generate().json()
    assert answer["text"] == "".join(STORY)
    print(answer)
    report = user.settled(answer["request_id"])
    print(report)
    print(house.books())
