from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merging.landscape import LEVELS, SIMPLEX_LEVELS, line_positions, simplex_points
from merging.results import requests
from merging.results.requests import request as requests_request
from merging.schema.cards.matching import METHOD_CARDS
from merging.schema.cards.zoo import list_pairs
from merging.schema.errors import ArchitectureMismatchError, UnknownNameError
from merging.schema.records.scores import Scan

ROOT = Path(__file__).resolve().parents[3]
SUBJECT = requests.bundled_subject("digits-mlp-256")
OTHER = requests.bundled_subject("digits-mlp-undertrained")
WEIGHT = requests.alignment(SUBJECT, "weight")
ACTIVATION = requests.alignment(SUBJECT, "activation", {"examples": 100}, seed=3)
PATH = requests.path(SUBJECT, WEIGHT, "bezier")
CHAIN = requests.path(SUBJECT, None, "chain", {"steps": 5}, seed=2)

FAMILY, SEEDS = requests.bundled_family("mnist-mild"), requests.bundled_family("mnist-seeds")
PART = FAMILY.of((0, 2))
FUSION, MEAN = requests.fusion(FAMILY, "ties"), requests.fusion(FAMILY, "average")

# One request of every kind, and for each of its fields another value.
EXAMPLES = {
    requests.SymmetryRequest(SUBJECT.config): {
        "config": '{"architecture":"vit"}',
        "spec": "ab" * 32,
    },
    requests.SpecRequest(SUBJECT.config): {
        "config": '{"architecture":"vit"}',
        "upload": "ab" * 32,
        "frozen": ("layers.0.weight[0]",),
    },
    requests.EndPointsRequest(SUBJECT): {"subject": OTHER},
    requests.DiagnosisRequest(SUBJECT): {"subject": OTHER},
    requests.ForecastRequest(SUBJECT): {"subject": OTHER},
    WEIGHT: {
        "subject": OTHER,
        "method": "activation",
        "options": '{"max_sweeps":1,"restarts":1}',
        "seed": 1,
    },
    requests.CurveRequest(SUBJECT, WEIGHT): {
        "subject": OTHER,
        "alignment": None,
        "split": "train",
        "statistics": "repair",
        "lams": 9,
        "overshoot": 0.25,
    },
    requests.SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), (ACTIVATION,)): {
        "subject": OTHER,
        "points": ("a", "b", ACTIVATION),
        "shown": (),
        "level": 1,
        "split": "train",
        "statistics": "reset",
        "margin": 0.5,
        "seed": 1,
    },
    PATH: {
        "subject": OTHER,
        "alignment": None,
        "kind": "chain",
        "options": CHAIN.options,
        "seed": 1,
    },
    requests.PathCurveRequest(SUBJECT, PATH): {
        "subject": OTHER,
        "path": CHAIN,
        "split": "train",
        "statistics": "reset",
    },
    requests.SimplexRequest(SUBJECT, ("a", WEIGHT, PATH)): {
        "subject": OTHER,
        "points": ("a", "b", PATH),
        "level": 0,
        "split": "train",
        "statistics": "reset",
    },
    requests.swag(SUBJECT, ("a", "b", WEIGHT)): {
        "subject": OTHER,
        "plane": ("a", "b", PATH),
        "around": ("a", "b"),
        "options": "{}",
        "seed": 1,
        "split": "train",
    },
    requests.UnitsRequest(SUBJECT, WEIGHT): {"subject": OTHER, "alignment": ACTIVATION},
    requests.LayersRequest(SUBJECT, WEIGHT): {"subject": OTHER, "alignment": ACTIVATION},
    requests.ExportRequest(SUBJECT, WEIGHT, "merged"): {
        "subject": OTHER,
        "alignment": None,
        "what": "aligned",
        "lam": 0.25,
        "statistics": "reset",
        "prefix": "module.",
        "container": "pt",
    },
    requests.CheckpointRequest("ab" * 32, "mine.pt"): {
        "upload": "cd" * 32,
        "name": "yours.pt",
        "architecture": "torchvision:resnet18",
        "file": '{"path":"a.pt"}',
    },
    requests.DataRequest("ab" * 32, "mine.npz", SUBJECT.config): {
        "upload": "cd" * 32,
        "name": "yours.npz",
        "config": "{}",
        "file": '{"path":"a.npz"}',
        "function": "mine:data",
    },
    requests.FitRequest(SUBJECT.model_a, SUBJECT.model_b): {"model_a": "x", "model_b": "y"},
    requests.CurvatureRequest(FAMILY.config, "ab" * 32, "mnist", "cd" * 32): {
        "config": "{}",
        "model": "x",
        "data": "digits",
        "data_fingerprint": "y",
        "labels": "true",
        "examples": 10,
        "seed": 1,
    },
    requests.OrderRequest(SEEDS): {"family": PART, "kind": "merge many", "seed": 1},
    FUSION: {
        "family": PART,
        "rule": "dare",
        "options": "{}",
        "weights": (0.5,) * 5,
        "order": requests.OrderRequest(FAMILY),
        "statistics": "reset",
        "labels": "true",
        "seed": 1,
        "split": "validation",
        "moments": requests.Moments(("ef" * 32,) * 5, "01" * 32),
    },
    requests.ReferencesRequest(FAMILY): {"family": PART, "split": "validation"},
    requests.ScanRequest(FUSION, "scale", (0.5, 1.0)): {
        "fusion": MEAN,
        "knob": "density",
        "values": (0.5,),
    },
    requests.MixturesRequest(FAMILY): {
        "family": PART,
        "order": requests.OrderRequest(FAMILY),
        "statistics": "reset",
        "split": "test",
    },
    requests.FusionExportRequest(FUSION): {
        "fusion": MEAN,
        "what": "folder",
        "prefix": "module.",
    },
    requests.TaskVectorsRequest(FAMILY): {"family": PART},
    requests.ImpliedWeightsRequest(FUSION): {"fusion": MEAN},
    requests.ErrorsRequest(FUSION): {"fusion": MEAN},
    requests.RemovalRequest(FAMILY, 1): {
        "family": PART,
        "removed": 2,
        "scales": (1.0,),
        "delta": 1.0,
        "epochs": 1,
        "lr": 1e-3,
        "seed": 1,
    },
}
KINDS = [type(request) for request in EXAMPLES]


def words(request):
    return request.task


@pytest.mark.parametrize("request_", EXAMPLES, ids=words)
def test_every_field_counts_for_the_key(request_):
    others = EXAMPLES[request_]
    assert set(others) == {field.name for field in fields(request_)}
    keys = [request_.key, *(replace(request_, **{k: v}).key for k, v in others.items())]
    assert len(set(keys)) == len(keys)


def test_a_spec_that_was_chosen_counts_for_the_key_and_none_leaves_old_keys_as_they_were():
    request = requests.CurveRequest(SUBJECT, WEIGHT)
    assert "spec" not in requests.canonical(request.payload)
    chosen = replace(SUBJECT, spec="ab" * 32)
    assert requests.CurveRequest(chosen, replace(WEIGHT, subject=chosen)).key != request.key


def test_every_kind_has_keys_of_its_own():
    assert len({request.key for request in EXAMPLES}) == len(EXAMPLES)
    assert len({request.job().key for request in EXAMPLES}) == len(EXAMPLES)
    tasks = {kind.task for kind in requests.Request.__subclasses__()}
    assert tasks == {kind.task for kind in KINDS}


def test_a_key_is_the_digest_of_canonical_json_and_the_schema():
    value = {"task": "fit", "model_a": "x", "model_b": "y"}
    text = json.dumps(
        {"schema": requests.SCHEMA, "value": value}, sort_keys=True, separators=(",", ":")
    )
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert requests.FitRequest("x", "y").key == expected


def test_keys_are_the_same_in_another_process():
    code = (
        "import sys; from merging.results import requests as r;"
        "s = r.bundled_subject('digits-mlp-256'); w = r.alignment(s, 'weight');"
        "a = r.alignment(s, 'activation', {'examples': 100}, seed=3);"
        "sys.stdout.write(r.SurfaceRequest(s, ('a', 'b', w), (a,)).key)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout == requests.SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), (ACTIVATION,)).key


def test_the_schema_counts_for_the_key(monkeypatch):
    before = WEIGHT.key
    monkeypatch.setattr(requests_request, "SCHEMA", requests_request.SCHEMA + 1)
    assert WEIGHT.key != before


@pytest.mark.parametrize(
    "options",
    [None, {}, {"restarts": 3}, {"restarts": 3, "max_sweeps": 100}, {"max_sweeps": 100}],
)
def test_options_that_are_left_out_are_the_defaults(options):
    assert requests.alignment(SUBJECT, "weight", options).key == WEIGHT.key


def test_the_order_of_options_does_not_matter():
    one = {"epochs": 2, "lr": 0.1}
    other = dict(reversed(one.items()))
    assert (
        requests.alignment(SUBJECT, "straight_through", one).key
        == requests.alignment(SUBJECT, "straight_through", other).key
    )


def test_equal_numbers_are_equal_options():
    one, other = (requests.alignment(SUBJECT, "straight_through", {"lr": lr}) for lr in (1, 1.0))
    assert one.key == other.key


def test_whole_numbers_are_asked_for():
    with pytest.raises(UnknownNameError, match="restarts"):
        requests.alignment(SUBJECT, "weight", {"restarts": 2.5})


def test_the_names_of_pairs_are_not_in_keys():
    for name in list_pairs():
        subject = requests.bundled_subject(name)
        assert name not in requests.canonical(requests.EndPointsRequest(subject).payload)


def test_requests_for_an_uploaded_copy_of_a_bundled_pair_have_its_keys():
    uploaded = requests.Subject(**{f.name: getattr(SUBJECT, f.name) for f in fields(SUBJECT)})
    assert requests.CurveRequest(uploaded).key == requests.CurveRequest(SUBJECT).key


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("magic", None, r"unknown matching method 'magic'; choose from weight"),
        ("weight", {"sweeps": 1}, r"has no option 'sweeps'; it has max_sweeps, restarts"),
        ("weight", {"restarts": 0}, r"'restarts': got 0, expected a whole number from 1 to 50"),
        ("activation", {"similarity": "l2"}, r"got 'l2', expected one of 'inner product'"),
    ],
)
def test_unknown_methods_and_options_are_named(method, options, match):
    with pytest.raises(UnknownNameError, match=match):
        requests.alignment(SUBJECT, method, options)


def test_unknown_pairs_are_named():
    with pytest.raises(UnknownNameError, match=r"unknown pair 'none'; choose from mnist-mlp-512"):
        requests.bundled_subject("none")


def test_unknown_tasks_are_named():
    with pytest.raises(UnknownNameError, match=r"unknown task 'dance'; choose from symmetry"):
        requests.from_payload({"task": "dance"})


ALIGNMENTS = st.builds(
    lambda method, seed: requests.alignment(SUBJECT, method, None, seed=seed),
    st.sampled_from(list(METHOD_CARDS)),
    st.integers(0, 2**31 - 1),
)
MODELS = st.sampled_from(["a", "b"]) | ALIGNMENTS
CURVES = st.builds(
    requests.CurveRequest,
    st.sampled_from([SUBJECT, OTHER, replace(SUBJECT, spec="ab" * 32)]),
    st.none() | ALIGNMENTS,
    st.sampled_from(["train", "test"]),
    st.sampled_from(["interpolated", "reset", "repair", "rescale"]),
    st.integers(2, 101),
    st.floats(0, 1),
)
SURFACES = st.builds(
    requests.SurfaceRequest,
    st.just(SUBJECT),
    st.tuples(MODELS, MODELS, MODELS) | st.tuples(MODELS),
    st.lists(MODELS, max_size=2).map(tuple),
    st.integers(0, 3),
    st.sampled_from(["train", "test"]),
    st.sampled_from(["interpolated", "reset"]),
    st.floats(0, 1),
    st.integers(0, 2**31 - 1),
)
EXPORTS = st.builds(
    requests.ExportRequest,
    st.just(SUBJECT),
    st.none() | ALIGNMENTS,
    st.sampled_from(["permutation", "aligned", "merged"]),
    st.floats(0, 1),
    st.sampled_from(["interpolated", "reset", "repair", "rescale"]),
)
UPLOADS = st.builds(requests.CheckpointRequest, st.text(max_size=8), st.text())
SOME = st.sampled_from(list(EXAMPLES)) | ALIGNMENTS | CURVES | SURFACES | EXPORTS | UPLOADS


@given(SOME)
def test_comes_back_from_its_payload(request_):
    there = json.loads(requests.canonical(request_.payload))
    back = requests.from_payload(there)
    assert back == request_
    assert (back.key, back.job()) == (request_.key, request_.job())


@given(SOME, SOME)
def test_keys_are_equal_exactly_when_requests_are(one, other):
    assert (one.key == other.key) == (one == other)


@given(SOME)
def test_pieces_have_keys_of_their_own_and_carry_the_request(request_):
    job = request_.job()
    assert len({piece.key for piece in job.pieces}) == len(job.pieces) == len(request_.parts())
    for piece, part in zip(job.pieces, request_.parts(), strict=True):
        values = json.loads(piece.payload)
        assert requests.from_payload(values["request"]) == request_
        assert values["part"] == part
    assert [need.key for need in job.needs] == [need.job().key for need in request_.needs()]
    assert job.title


@given(CURVES)
def test_the_pieces_of_a_curve_hold_every_position_once(curve):
    positions = [lam for part in curve.parts() for lam in part["positions"]]
    assert sorted(positions) == curve.positions()
    assert len(set(positions)) == len(positions)
    assert {0.0, 1.0} <= set(positions)
    first = curve.parts()[0]["positions"]
    assert (first[0], first[-1]) == (curve.positions()[0], curve.positions()[-1])


@pytest.mark.parametrize(("lams", "overshoot"), [(25, 0.0), (25, 0.25), (9, 0.5), (2, 0.0)])
def test_the_positions_of_a_curve_are_those_of_the_library(lams, overshoot):
    curve = requests.CurveRequest(SUBJECT, lams=lams, overshoot=overshoot)
    np.testing.assert_array_equal(curve.positions(), line_positions(lams, overshoot))


@pytest.mark.parametrize("level", range(4))
def test_the_pieces_of_a_surface_hold_every_point_once(level):
    surface = requests.SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), level=level)
    models, *runs = surface.parts()
    assert models == {"models": True}
    assert [run["level"] for run in runs] == sorted(run["level"] for run in runs)
    held: Counter[tuple[int, int]] = Counter()
    for run in runs:
        n, step = LEVELS[run["level"]], 2 ** (level - run["level"])
        fresh = [
            (row, column)
            for row in range(n)
            for column in range(n)
            if run["level"] == 0 or row % 2 or column % 2
        ]
        assert 0 <= run["start"] < run["stop"] <= len(fresh)
        held.update((r * step, c * step) for r, c in fresh[run["start"] : run["stop"]])
    assert set(held) == {(r, c) for r in range(LEVELS[level]) for c in range(LEVELS[level])}
    assert set(held.values()) == {1}


def _piece_keys(request_):
    return {piece.key for piece in request_.job().pieces}


@pytest.mark.parametrize("level", range(3))
def test_a_finer_surface_has_all_pieces_of_a_coarser_one(level):
    coarse = requests.SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), level=level)
    fine = replace(coarse, level=level + 1)
    assert _piece_keys(coarse) < _piece_keys(fine)
    assert coarse.key != fine.key


def test_what_is_drawn_on_top_does_not_change_the_points():
    plain = requests.SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), level=1)
    with_more = replace(plain, shown=(ACTIVATION,))
    assert len(_piece_keys(plain) - _piece_keys(with_more)) == 1  # where the models lie


@pytest.mark.parametrize(
    "change",
    [
        {"split": "train"},
        {"statistics": "reset"},
        {"margin": 0.5},
        {"points": ("a", "b", ACTIVATION)},
        {"seed": 1},
        {"subject": OTHER},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_surfaces_share_no_piece(change):
    surface = requests.SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), level=1)
    assert not _piece_keys(surface) & _piece_keys(replace(surface, **change))


def test_a_permutation_that_is_needed_twice_is_asked_for_once():
    surface = requests.SurfaceRequest(SUBJECT, ("a", WEIGHT, ACTIVATION), (WEIGHT,))
    assert surface.needs() == (WEIGHT, ACTIVATION)


def test_making_requests_loads_no_torch():
    code = (
        "import sys; from merging.results import requests;"
        "s = requests.bundled_subject('mnist-vit');"
        "requests.CurveRequest(s, requests.alignment(s, 'weight')).job();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_plane_may_pass_through_a_bend_and_needs_its_path():
    surface = requests.SurfaceRequest(SUBJECT, ("a", WEIGHT, PATH), ("b", CHAIN))
    assert set(surface.needs()) == {WEIGHT, PATH, CHAIN}
    assert requests.from_payload(json.loads(json.dumps(surface.payload))) == surface
    assert "with the path" in surface.title


def test_corners_have_names_of_their_own():
    corners = ("a", "b", WEIGHT, ACTIVATION, PATH)
    assert requests.corner_names(corners) == ("A", "B", "weight", "activation", "bend")
    several = requests.corner_names(("a", PATH, CHAIN))
    assert several == ("A", "bend bezier weight", "bend chain naive")


@pytest.mark.parametrize("corners", [3, 4])
def test_pieces_of_a_simplex_are_all_its_points_once(corners):
    counts = [0] * 4
    for part in requests.simplex_parts(2, corners):
        assert 0 < part["stop"] - part["start"] <= 52
        counts[part["level"]] += part["stop"] - part["start"]
    for level in range(3):
        assert sum(counts[: level + 1]) == len(simplex_points(SIMPLEX_LEVELS[level], corners))


def test_a_finer_simplex_shares_the_pieces_of_a_coarser_one():
    coarse, fine = (requests.SimplexRequest(SUBJECT, ("a", "b", WEIGHT), k) for k in (0, 2))
    keys = [fine.piece_key(part) for part in fine.parts()]
    assert [coarse.piece_key(part) for part in coarse.parts()] == keys[:1]
    assert len(set(keys)) == len(keys)


def test_pieces_of_a_path_curve_are_all_positions_once_and_the_first_spans_it():
    parts = requests.PathCurveRequest(SUBJECT, PATH).parts()
    assert {parts[0]["positions"][0], parts[0]["positions"][-1]} == {0, 1}
    every = sorted(position for part in parts for position in part["positions"])
    assert every == line_positions(requests.PATH_POSITIONS).tolist()


def test_unknown_options_of_paths_and_samples_are_refused():
    with pytest.raises(UnknownNameError, match="Chain has no option 'pivots'"):
        requests.path(SUBJECT, None, "chain", {"pivots": 3})
    with pytest.raises(UnknownNameError, match="SWAG, option 'rank': got 1, expected a whole"):
        requests.swag(SUBJECT, ("a", "b", WEIGHT), options={"rank": 1})


def test_a_family_without_its_base_is_another_family():
    bare = FAMILY.without_base()
    assert (bare.base, bare.base_on) == ("", None)
    assert requests.ReferencesRequest(bare).key != requests.ReferencesRequest(FAMILY).key
    assert "base" not in requests.ReferencesRequest(bare).names()


def uploaded(widths, **more):
    config = requests_request.canonical({"architecture": "mlp", "widths": widths, **more})
    return requests.UploadedCheckpoint(f"{widths}.pt", str(widths), config, 4, 9, ())


def test_uploaded_models_of_one_width_are_a_family_like_any_other():
    family = requests.uploaded_family([uploaded([4, 3, 2])] * 2, uploaded([4, 3, 2]))
    assert family.configs == ()
    assert "configs" not in requests.ReferencesRequest(family).payload["family"]
    assert family.base == "[4, 3, 2]"


def test_a_family_of_several_widths_has_those_of_its_first_model():
    examples = requests.Examples("mnist", "ab")
    models = [uploaded(widths) for widths in ([4, 3, 2], [4, 9, 2], [4, 3, 2])]
    family = requests.uploaded_family(models, examples=examples)
    assert family.config == models[0].config
    assert requests.usable_rules(family) == ["transport"]
    turned = family.of((1, 0))
    assert (turned.config, turned.configs) == (
        models[1].config,
        (models[1].config, models[0].config),
    )
    assert family.of((0, 2)) == requests.uploaded_family([models[0], models[2]], examples=examples)
    request = requests.fusion(turned, "transport")
    assert requests.from_payload(json.loads(requests_request.canonical(request.payload))) == request


@pytest.mark.parametrize(
    "other",
    [
        uploaded([4, 3, 3, 2]),
        uploaded([5, 3, 2]),
        uploaded([4, 3, 1]),
        uploaded([4, 3, 2], norm="batch"),
        requests.UploadedCheckpoint(
            "vit.pt", "v", '{"architecture":"vit","widths":[4,3,2]}', 1, 1, ()
        ),
    ],
)
def test_models_that_differ_in_more_than_hidden_widths_are_named(other):
    with pytest.raises(ArchitectureMismatchError, match=f"{re.escape(other.name)}: another arch"):
        requests.uploaded_family([uploaded([4, 3, 2]), other])


def test_models_of_another_width_than_their_base_are_named():
    models = [uploaded([4, 3, 2]), uploaded([4, 9, 2])]
    with pytest.raises(ArchitectureMismatchError, match=r"^\[4, 9, 2\].pt: .* than the base"):
        requests.uploaded_family(models, uploaded([4, 3, 2]))
    with pytest.raises(ArchitectureMismatchError, match=r"^\[4, 3, 2\].pt, .* than the base"):
        requests.uploaded_family([models[0], models[0]], models[1])


def test_a_rule_waits_for_the_curvatures_that_it_needs():
    assert not requests.fusion(FAMILY, "average").needs()
    assert len(requests.fusion(FAMILY, "fisher").needs()) == 5
    needs = requests.fusion(FAMILY, "gradient_matching").needs()
    assert [need.model for need in needs] == [*FAMILY.models, FAMILY.base]
    assert needs[0].data == FAMILY.tasks[FAMILY.trained_on[0]].data
    assert needs[-1].data == FAMILY.base_on.data


def test_a_grid_of_shares_is_as_fine_as_its_points_allow():
    steps = {n: requests.MixturesRequest(SEEDS.of(tuple(range(n)))).steps() for n in (2, 3, 5)}
    assert steps[2] == steps[3] == 20 > steps[5] > 2


def test_a_tuned_fusion_has_the_best_value_of_the_scan():
    nan = np.full(2, np.nan)
    accuracy = np.array([[0.4, 0.4], [0.6, 0.5]])
    found = Scan("task_arithmetic", np.array([0.2, 0.7]), 1 - accuracy, accuracy, accuracy, nan, "")
    wanted = requests.tuned(requests.fusion(FAMILY, "task_arithmetic"), found)
    assert wanted.weights == (0.7,) * 5
    assert requests.tuning(requests.fusion(FAMILY, "average")) is None


@given(st.integers(2, 6), st.data())
def test_a_request_about_some_models_is_read_back_from_its_payload(n, data):
    members = tuple(sorted(data.draw(st.sets(st.integers(0, 4), min_size=min(n, 5)))))
    weights = (0.5,) * len(members)
    request = requests.fusion(FAMILY.of(members), "gradient_matching", weights=weights)
    assert requests.from_payload(json.loads(requests_request.canonical(request.payload))) == request
