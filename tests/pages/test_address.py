"""Addresses that somebody made up: every page opens, and says what it could not follow."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from pages.shared.address import MOST_SEED, Address, read
from tests.pages.conftest import ROOT, said

USUAL = Address("one", ("weight",), 0)
PAGES = ["start", "models", "align", "interpolate", "landscape", "permutations", "merge"]
KEYS = [
    "pair", "methods", "seed", "interpolate_splits", "interpolate_statistics",
    "interpolate_baseline", "interpolate_beyond", "interpolate_log", "interpolate_path",
    "landscape_plane", "landscape_side", "landscape_metric", "landscape_split", "landscape_swag",
    "landscape_statistics", "landscape_path", "permutations_order", "permutations_quantity",
    "models_where", "models_examine", "merge_family", "merge_order", "merge_view", "merge_tuned",
]  # fmt: skip
HOSTILE = [
    "1e999", "-1e999", "nan", "9" * 400, "-1", "0x10", "١٢", "", " ", "null", "[]", "{", "true",
    "x" * 10_000, "![d](http://evil.example/d.png)", "\u202e", "\x00", "../..", "<b>",
]  # fmt: skip


class Params(dict):
    """Parameters as Streamlit gives them."""

    def get_all(self, key):
        return self.get(key, [])


def test_what_can_be_followed_is_followed():
    params = Params(pair=["two"], methods=["activation", "weight"], seed=[str(MOST_SEED)])
    found = read(params, ["one", "two"], ["weight", "activation"], USUAL)
    assert found == Address("two", ("weight", "activation"), MOST_SEED)


def test_what_is_not_there_is_not_refused():
    assert read(Params(), ["one"], ["weight"], USUAL) == USUAL


@pytest.mark.parametrize("seed", ["1e999", "-1", str(MOST_SEED + 1), "١٢", "9" * 5000, "1.0", ""])
def test_a_seed_that_is_none_is_refused_in_words(seed):
    found = read(Params(seed=[seed]), ["one"], ["weight"], USUAL)
    assert found.seed == 0
    (words,) = found.refused
    assert "expected a whole number from 0 to 2,147,483,647; the usual one is used" in words
    assert len(words) < 250


def test_pairs_and_methods_that_are_none_are_refused_in_words():
    found = read(Params(pair=["x"], methods=["y", "weight"]), ["one"], ["weight"], USUAL)
    assert (found.pair, found.methods) == ("one", ("weight",))
    pair, method = found.refused
    assert pair.startswith("The address asks for the pair of models 'x', expected one of the list")
    assert method.startswith("The address asks for the matching method 'y', expected one of weight")


@given(st.dictionaries(st.sampled_from(["pair", "methods", "seed"]), st.lists(st.text())))
def test_any_address_can_be_read(params):
    found = read(Params(params), ["one"], ["weight"], USUAL)
    assert found.pair == "one"
    assert 0 <= found.seed <= MOST_SEED


def opened(page, params):
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    for key, value in params.items():
        at.query_params[key] = value
    if page != "start":
        at.switch_page(f"pages/{page}.py")
    return at.run()


@pytest.mark.usefixtures("asked")
def test_an_infinite_seed_opens_the_page_and_is_named():
    at = opened("align", {"seed": "1e999"})
    assert not at.exception
    assert at.number_input(key="seed").value == 0
    assert any("the seed '1e999', expected a whole number" in text for text in said(at))


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("page", PAGES)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(params=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(HOSTILE), max_size=len(KEYS)))
def test_no_address_breaks_a_page(page, params):
    at = opened(page, params)
    assert not at.exception, (page, params, at.exception[0].message)
