import pytest

from merging.schema.records.curve import Barrier
from merging.visualization.wording import barrier_words, counted, percent, shortened, uncertain


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0.3123, 0.0213, "0.31 ± 0.02"),
        (0.0123, 0.0041, "0.012 ± 0.004"),
        (-0.0001, 0.01, "0.00 ± 0.01"),
        (1.5, 0.0, "1.50 ± 0.00"),
        (12.345, 2.0, "12.35 ± 2.00"),
        (1.25, float("nan"), "1.25"),
        (float("nan"), 0.1, "unknown"),
        (float("inf"), 0.1, "unknown"),
    ],
)
def test_a_value_has_as_many_decimals_as_its_error_deserves(value, error, words):
    assert uncertain(value, error) == words


def test_a_barrier_says_its_height_error_and_place():
    barrier = Barrier(0.312, 0.48, 0.021, "endpoints-mean", "loss")
    assert barrier_words(barrier) == "barrier 0.31 ± 0.02 at λ = 0.48"


def test_shares_and_counts_read_well():
    assert percent(0.9754) == "97.5 %"
    assert percent(float("nan")) == "unknown"
    assert (counted(1, "unit"), counted(0, "unit")) == ("1 unit", "0 units")


@pytest.mark.parametrize("length", [5, 8, 13])
def test_a_shortened_name_keeps_both_ends(length):
    name = "layer3.2.conv2.weight"
    short = shortened(name, length)
    assert len(short) == length
    head, tail = short.split("…")
    assert name.startswith(head)
    assert name.endswith(tail)
    assert shortened("fc1", length) == "fc1"
