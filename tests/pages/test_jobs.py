"""Computing from the pages: progress, stop, go on, errors in words, and a killed process."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import psutil

from merging.results import requests
from pages.shared import jobs
from tests.pages.conftest import charts, labels, pick, said

SUBJECT = requests.bundled_subject("digits-mlp-256")
# A wide network on a plane: half a minute and more of computing.
SLOW = {"pair": "mnist-resnet-ln-wide", "methods": [], "landscape_plane": "random"}
# 22 pieces of a tenth of a second and more.
QUICK = {"pair": "digits-mlp-256", "methods": [], "landscape_plane": "random"}
LONG = {**QUICK, "landscape_split": "train"}
seeds = itertools.count(100)


def complete(at):
    return not at.get("progress") and charts(at)


def test_results_appear_while_the_rest_is_computed(open_page, wait_for):
    at = open_page("landscape", **QUICK, landscape_side=17, seed=next(seeds))
    wait_for(at, charts, "picture")
    wait_for(at, complete, "complete picture")
    assert not at.error
    (chart,) = charts(at)
    assert re.search(r"\d", chart.alt)
    assert "289 points" in " ".join(said(at))


def test_a_pair_without_packed_results_is_computed(open_page, wait_for):
    for page in ("start", "models", "align", "interpolate", "landscape", "permutations"):
        at = open_page(
            page,
            pair="two-unit-counterexample",
            seed=31,
            **({"landscape_side": 9} if page == "landscape" else {}),
        )
        # What one part of a page finds lets the next be asked for, so it is run once more.
        for _ in range(4):
            wait_for(at, lambda at: not at.get("progress"), f"complete {page}")
            at.run()
        assert not at.exception
        assert not at.error
        if page not in ("start", "models"):
            assert charts(at)
            assert all(re.search(r"\d", chart.alt) for chart in charts(at))


def test_stopping_stops_and_going_on_goes_on(open_page, wait_for):
    at = open_page("landscape", **SLOW, seed=next(seeds))
    wait_for(at, lambda at: "landscape_stop" in [b.key for b in at.button], "stop button")
    wait_for(at, lambda at: any("running" in p.proto.text or "evaluated" in p.proto.text
                                for p in at.get("progress")), "running job")  # fmt: skip
    at.button(key="landscape_stop").click().run()
    wait_for(at, lambda at: "Go on" in labels(at), "way to go on")
    assert not at.get("progress")
    assert re.search(r"stopped at \d+ of \d+ parts", " ".join(said(at)))
    pick(at, "Go on").click().run()
    wait_for(at, lambda at: at.get("progress"), "progress after going on")
    at.button(key="landscape_stop").click().run()
    wait_for(at, lambda at: "Go on" in labels(at), "second stop")
    assert not at.exception


def test_a_stopped_picture_stays_and_is_finished_later(open_page, wait_for):
    at = open_page("landscape", **LONG, seed=next(seeds))
    wait_for(at, charts, "picture")
    at.button(key="landscape_stop").click().run()
    wait_for(at, lambda at: "Go on" in labels(at), "way to go on")
    assert charts(at)
    again = open_page("landscape", **LONG, seed=at.number_input(key="seed").value)
    assert "Go on" in labels(again)
    assert charts(again)
    pick(again, "Go on").click().run()
    wait_for(again, complete, "complete picture")
    assert "1,089 points" in " ".join(said(again))


def compute_processes():
    """The compute process of this one, and its workers."""
    found = []
    for child in psutil.Process().children():
        if "merging.results.compute.service" in " ".join(child.cmdline()):
            found += [child, *child.children(recursive=True)]
    return found


def test_the_page_recovers_when_the_compute_process_is_killed(open_page, wait_for):
    at = open_page("landscape", **LONG, seed=next(seeds))
    wait_for(at, charts, "picture")
    killed = compute_processes()
    assert killed
    for process in killed:
        process.kill()
    psutil.wait_procs(killed, timeout=10)
    at.run()
    assert not at.exception
    wait_for(at, complete, "complete picture")
    assert "1,089 points" in " ".join(said(at))
    assert not at.error
    assert {process.pid for process in compute_processes()}.isdisjoint(p.pid for p in killed)


def test_reset_without_batch_norm_is_refused_in_words(open_page, wait_for):
    at = open_page("interpolate", pair="digits-mlp-256", methods=[], interpolate_statistics="reset")
    wait_for(at, lambda at: at.error, "message")
    message = at.error[0].value
    assert "keeps no running statistics" in message
    assert "use REPAIR or RESCALE" in message
    assert "Traceback" not in message
    assert "Try again" in labels(at)
    assert not at.exception


def test_a_plane_of_equal_models_is_refused_in_words(open_page, wait_for):
    same = replace(SUBJECT, model_b=SUBJECT.model_a)
    at = open_page(
        "landscape", pair="your checkpoints", _uploaded=same, methods=["weight"], landscape_side=9
    )
    wait_for(at, lambda at: at.error, "message")
    assert "the first two models of the plane are equal; choose another" in at.error[0].value
    assert not at.exception


def test_uploaded_models_that_are_gone_are_named(open_page, wait_for):
    gone = replace(SUBJECT, model_b="ab" * 32)
    at = open_page("models", pair="your checkpoints", _uploaded=gone)
    wait_for(at, lambda at: at.error, "message")
    assert "model abababab is no longer in the result store" in at.error[0].value
    assert not at.exception


def test_identical_models_are_said_to_be_identical(open_page, wait_for):
    same = replace(SUBJECT, model_b=SUBJECT.model_a)
    at = open_page("models", pair="your checkpoints", _uploaded=same)
    wait_for(at, lambda at: not at.get("progress"), "complete page")
    assert "Both models are identical" in " ".join(said(at))
    assert not at.exception


def test_the_objective_is_drawn_while_a_method_runs(open_page, wait_for, monkeypatch):
    runs = itertools.count()
    found = jobs._find

    def counted(request):
        if next(runs) > 400:
            raise AssertionError("the page runs again and again")
        return found(request)

    at = open_page("align", pair="digits-mlp-256", methods=["straight_through"], seed=next(seeds))
    at.button(key="align_stop").click().run()
    wait_for(at, lambda at: not at.get("progress"), "stop")
    at.number_input(key="align_straight_through_epochs").set_value(500).run()
    monkeypatch.setattr(jobs, "_find", counted)
    try:
        wait_for(at, charts, "live objective")
        assert "align_stop" in [button.key for button in at.button]
        at.button(key="align_stop").click().run()
        wait_for(at, lambda at: "Go on" in labels(at), "way to go on")
    finally:
        for request in (requests.alignment(SUBJECT, "straight_through", {"epochs": 500}, seed=s)
                        for s in range(100, 120)):  # fmt: skip
            jobs.service().stop(request.job(), at.session_state["_owner"])
