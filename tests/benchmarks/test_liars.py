"""Small runs of the benchmark of liars: lies about speed are seen through, and wrong receipts are the end."""

from __future__ import annotations

from benchmarks.liars import HONEST, KINDS, compare, many

SIZES = 3, 24, 75, 1


def test_who_signs_what_is_not_true_is_left() -> None:
    odd, honest = many(KINDS["wrong"], *SIZES), many(HONEST, *SIZES)
    assert sum(map(sum, honest)) > 0
    assert compare(KINDS["wrong"], odd, honest)["settled_over_honest"] == 0.0


def test_a_gateway_that_learns_is_deceived_less_than_one_that_does_not() -> None:
    deceived = [sum(map(sum, many(KINDS[name], *SIZES))) for name in ("speed and queue", "nobody looks")]
    assert deceived[0] < 0.8 * deceived[1]


def test_a_run_is_the_same_again() -> None:
    assert many(KINDS["speed"], 1, 24, 20, 5) == many(KINDS["speed"], 1, 24, 20, 5)
