"""Trained paths, samples and mixtures on the Interpolate and Landscape pages."""

from __future__ import annotations

import json

import pytest

from merging.results import requests
from tests.pages.conftest import charts, figure, said

SUBJECT = requests.bundled_subject("digits-mlp-256")
WEIGHT = requests.alignment(SUBJECT, "weight")


def wanted(asked):
    """The requests behind the jobs that were asked for."""
    return {requests.from_payload(json.loads(job.pieces[0].payload)["request"]) for job in asked}


def test_no_path_is_trained_before_somebody_asks(nothing_asked, open_page):
    at = open_page("interpolate", pair="digits-mlp-256", methods=["weight"])
    assert "any path but the straight one" in " ".join(said(at))


@pytest.mark.parametrize("kind", ["bezier", "chain", "neb"])
def test_paths_are_asked_for_before_and_after_alignment(kind, asked, open_page):
    open_page(
        "interpolate", pair="digits-mlp-256", methods=["weight"], interpolate_path=kind, seed=0
    )
    paths = [requests.path(SUBJECT, alignment, kind) for alignment in (None, WEIGHT)]
    assert wanted(asked) == {requests.PathCurveRequest(SUBJECT, path) for path in paths}


def test_the_options_of_a_path_count_on_both_pages(asked, open_page):
    at = open_page("interpolate", pair="digits-mlp-256", methods=[], interpolate_path="bezier")
    at.number_input(key="align_bezier_steps").set_value(7).run()
    path = requests.path(SUBJECT, None, "bezier", {"steps": 7})
    assert requests.PathCurveRequest(SUBJECT, path) in wanted(asked)
    asked.clear()
    at.switch_page("pages/landscape.py").run()
    asked.clear()
    at.session_state["landscape_plane"] = "path"
    at.run()
    assert {request.points[-1] for request in wanted(asked)} == {path}


def test_paths_of_models_with_batch_norm_have_statistics_of_their_own(asked, open_page):
    open_page("interpolate", pair="mnist-resnet-bn", methods=[], interpolate_path="chain")
    assert {request.statistics for request in wanted(asked)} == {"reset"}


def test_planes_with_a_path_are_asked_for_before_and_after_alignment(asked, open_page):
    open_page("landscape", pair="digits-mlp-256", methods=["weight"], landscape_plane="path")
    naive, aligned = (requests.path(SUBJECT, a, "bezier") for a in (None, WEIGHT))
    assert {request.points for request in wanted(asked)} == {
        ("a", "b", naive),
        ("a", WEIGHT, aligned),
    }


def test_samples_are_asked_for_on_the_plane_that_is_shown(asked, open_page):
    open_page("landscape", pair="digits-mlp-256", methods=["weight"], landscape_swag=True)
    plane = ("a", "b", WEIGHT)
    assert wanted(asked) == {requests.swag(SUBJECT, plane, ("a", WEIGHT))}


def test_three_models_are_mixed(asked, open_page):
    at = open_page(
        "landscape", pair="digits-mlp-256", methods=["weight"], landscape_plane="simplex"
    )
    assert wanted(asked) == {requests.SimplexRequest(SUBJECT, ("a", "b", WEIGHT), 2)}
    asked.clear()
    at.multiselect(key="landscape_mix").set_value(["a", "b", "bezier naive"]).run()
    bend = requests.path(SUBJECT, None, "bezier")
    assert wanted(asked) == {requests.SimplexRequest(SUBJECT, ("a", "b", bend), 2)}
    at.multiselect(key="landscape_mix").set_value(["a", "b"]).run()
    assert "Choose three or four models" in " ".join(said(at))


def test_a_path_is_trained_and_shown_beside_the_line(open_page, wait_for):
    at = open_page(
        "interpolate",
        pair="digits-mlp-256",
        methods=[],
        interpolate_path="chain",
        align_chain_steps=5,
    )
    wait_for(at, lambda at: "Trained paths" in [s.value for s in at.subheader], "path")
    wait_for(at, lambda at: not at.get("progress"), "end of the path")
    assert "Chain path, not aligned" in [t.get("name") for t in figure(charts(at)[0])["data"]]
    rows = at.dataframe[-1].value
    assert rows["Steps"].tolist() == [5]
    assert rows["Seed"].tolist() == [0]
    text = " ".join(said(at))
    assert "It does not show that the straight line is low" in text
    at.switch_page("pages/landscape.py")
    at.session_state["landscape_plane"] = "path"
    at.session_state["landscape_path"] = "chain"
    at.session_state["landscape_side"] = 9
    at.run()
    wait_for(at, lambda at: "bend" in (charts(at) or [at])[0].alt if charts(at) else False, "plane")
    names = [trace.get("name") for trace in figure(charts(at)[0])["data"]]
    assert "trained path" in names


def test_mixtures_are_computed_and_their_lowest_is_named(open_page, wait_for):
    at = open_page(
        "landscape",
        pair="digits-mlp-256",
        methods=["weight"],
        landscape_plane="simplex",
        landscape_side=9,
    )
    wait_for(at, lambda at: bool(charts(at)) and not at.get("progress"), "triangle")
    assert "15 weighted means of 3 models" in charts(at)[0].alt
    assert "Lowest of the mixtures" in " ".join(said(at))
