"""What is chosen in the sidebar and on pages decides what is asked for; links hold it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from merging.results import requests
from merging.schema.cards.zoo import list_pairs, read_card
from tests.pages.conftest import ROOT, charts, labels, pick, said

SUBJECT = requests.bundled_subject("digits-mlp-256")


def wanted(asked):
    """The requests behind the jobs that were asked for."""
    return {requests.from_payload(json.loads(job.pieces[0].payload)["request"]) for job in asked}


def test_the_seed_counts(asked, open_page):
    at = open_page("align", pair="digits-mlp-256")
    assert not asked
    at.number_input(key="seed").set_value(7).run()
    assert {
        requests.alignment(SUBJECT, "weight", seed=7),
        requests.alignment(SUBJECT, "activation", seed=7),
    } <= wanted(asked)


def test_the_methods_count(asked, open_page):
    open_page("align", pair="digits-mlp-256", methods=["straight_through"], seed=3)
    assert wanted(asked) == {requests.alignment(SUBJECT, "straight_through", seed=3)}


def test_the_options_count_on_every_page(asked, open_page):
    at = open_page("align", pair="digits-mlp-256", methods=["weight"])
    at.number_input(key="align_weight_restarts").set_value(1).run()
    changed = requests.alignment(SUBJECT, "weight", {"restarts": 1})
    assert changed in wanted(asked)
    asked.clear()
    at.switch_page("pages/interpolate.py").run()
    assert requests.CurveRequest(SUBJECT, changed) in wanted(asked)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"interpolate_splits": ["train"]}, {"split": "train"}),
        ({"interpolate_statistics": "repair"}, {"statistics": "repair"}),
        ({"interpolate_beyond": True}, {"overshoot": 0.25}),
    ],
)
def test_the_choices_of_interpolate_count(choices, expected, asked, open_page):
    open_page("interpolate", pair="digits-mlp-256", methods=[], **choices)
    assert wanted(asked) == {requests.CurveRequest(SUBJECT, None, **expected)}


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"landscape_side": 65}, {"level": 3}),
        ({"landscape_split": "train"}, {"split": "train"}),
        ({"landscape_plane": "random", "seed": 4}, {"points": ("a",), "seed": 4}),
    ],
)
def test_the_choices_of_landscape_count(choices, expected, asked, open_page):
    open_page("landscape", pair="digits-mlp-256", methods=["weight"], **choices)
    points = ("a", "b", requests.alignment(SUBJECT, "weight"))
    fields = {"points": points, **expected}
    assert wanted(asked) == {requests.SurfaceRequest(SUBJECT, **fields)}


def test_a_coarser_picture_is_there_while_a_finer_one_is_computed(asked, open_page):
    at = open_page("landscape", pair="digits-mlp-256", methods=["weight"], landscape_side=65)
    assert asked
    (chart,) = charts(at)
    assert any(character.isdigit() for character in chart.alt)
    assert "1,089 points" in " ".join(said(at))


def test_a_coarser_surface_costs_nothing(nothing_asked, open_page):
    at = open_page("landscape", pair="digits-mlp-256", methods=["weight"], landscape_side=9)
    assert "81 points" in " ".join(said(at))


def test_a_plane_of_two_models_is_not_asked_for(asked, open_page):
    at = open_page("landscape", pair="digits-mlp-256", landscape_plane="three")
    at.multiselect(key="landscape_three").set_value(["a", "b"]).run()
    assert not at.exception
    assert "Choose three models" in " ".join(said(at))


def test_what_is_not_computed_yet_can_be_asked_for(asked, open_page):
    at = open_page("align", pair="digits-mlp-256", methods=["weight"], seed=8)
    assert "not computed yet" in " ".join(said(at))
    asked.clear()
    pick(at, "Compute").click().run()
    assert requests.alignment(SUBJECT, "weight", seed=8) in wanted(asked)


def test_a_file_is_written_only_when_asked_for(asked, open_page):
    at = open_page("align", pair="digits-mlp-256", methods=["weight"])
    assert not asked
    pick(at, "Write the file").click().run()
    assert wanted(asked) == {
        requests.ExportRequest(SUBJECT, requests.alignment(SUBJECT, "weight"), "permutation")
    }
    assert "Write the file" not in labels(at)


def opened(page="start", **query):
    at = AppTest.from_file(str(Path(ROOT / "app.py")), default_timeout=30)
    for name, value in query.items():
        at.query_params[name] = value
    at.run()
    if page != "start":
        at.switch_page(f"pages/{page}.py").run()
    assert not at.exception
    return at


def test_a_link_names_the_pair(nothing_asked):
    at = opened(pair="digits-mlp-256")
    assert at.selectbox(key="pair").value == "digits-mlp-256"


def test_a_link_names_the_methods(nothing_asked):
    assert opened(methods="straight_through").session_state["methods"] == ["straight_through"]


def test_a_link_holds_the_seed(nothing_asked):
    assert opened(seed="7").number_input(key="seed").value == 7


def test_choices_are_in_the_link_and_a_new_session_has_them(asked, open_page):
    at = open_page("start", pair="mnist-mlp-32", methods=["weight"], seed=9)
    link = dict(at.query_params)
    assert {name: str(value).strip("[']") for name, value in link.items()} == {
        "pair": "mnist-mlp-32",
        "methods": "weight",
        "seed": "9",
    }
    again = opened(**link)
    assert again.selectbox(key="pair").value == "mnist-mlp-32"
    assert again.session_state["methods"] == ["weight"]
    assert again.number_input(key="seed").value == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pair", "no-such-pair"),
        ("pair", "<script>alert(1)</script>"),
        ("pair", "your checkpoints"),
        ("methods", "magic"),
        ("seed", "-1"),
        ("seed", "99999999999999"),
        ("seed", "nan"),
        ("landscape_side", "1000000"),
        ("interpolate_statistics", "magic"),
        ("models_where", "../../etc"),
    ],
)
def test_bad_values_in_a_link_fall_back(name, value, asked):
    for page in ("start", name.split("_")[0] if "_" in name else "align"):
        at = opened(page, **{name: value})
        assert at.selectbox(key="pair").value == list_pairs()[0]
        assert at.number_input(key="seed").value == 0
        assert at.session_state["methods"] == ["weight", "activation"]
        assert not at.error
        # What the frame reads is refused in words; what a widget cannot have, Streamlit drops.
        refused = [text for text in said(at) if "the usual one is used" in text]
        assert len(refused) == (name in ("pair", "methods", "seed"))
        assert all(f"{value!r}, expected" in text for text in refused)
    assert not asked


def test_choices_stay_from_page_to_page(asked, open_page):
    at = open_page("models", pair="mnist-mlp-32", methods=["activation"], seed=2)
    for page in ("align", "interpolate", "landscape", "permutations", "models"):
        at.switch_page(f"pages/{page}.py").run()
        assert not at.exception
        assert at.selectbox(key="pair").value == "mnist-mlp-32"
        assert at.session_state["methods"] == ["activation"]
        assert at.number_input(key="seed").value == 2
        assert read_card("mnist-mlp-32")["title"] in " ".join(said(at))
    assert {request.seed for request in wanted(asked) if request.task == "alignment"} == {2}


def mixed(asked):
    """Requests that apply a permutation of one pair to another."""
    return [
        request
        for request in wanted(asked)
        if getattr(request, "alignment", None) and request.alignment.subject != request.subject
    ]


def test_a_permutation_of_one_pair_is_never_used_on_another(asked, open_page):
    at = open_page("align", pair="digits-mlp-256", methods=["weight"])
    at.number_input(key="seed").set_value(5).run()
    at.selectbox(key="pair").set_value("digits-mlp-undertrained").run()
    assert not at.exception
    assert not mixed(asked)


def test_the_result_of_one_pair_is_not_said_to_be_that_of_another(asked, open_page):
    at = open_page("landscape", pair="digits-mlp-256", methods=["weight"])
    at.number_input(key="seed").set_value(5).run()
    at.selectbox(key="pair").set_value("digits-mlp-undertrained").run()
    title = read_card("digits-mlp-undertrained")["title"]
    assert f"Computed from {title} · 1,089 points" not in " ".join(said(at))
