"""Every task end to end, in this process; truth from direct calls of the library."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import safetensors.torch
import torch

import merging
from merging.files.checkpoints.write import checkpoint_bytes
from merging.landscape import evaluate, layer_barriers, layer_distances, reset, variance_ratios
from merging.landscape.statistics.repair import line_policy
from merging.models.architectures.registry import example_inputs
from merging.results import requests, tasks
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks import alignment as tasks_alignment
from merging.results.tasks import run_piece
from merging.schema.errors import MergingError, StoppedError
from merging.schema.records.alignment import Alignment
from tests.bad_files import bad_examples, examples, truncated, with_prefix

NAME = "digits-mlp-256"
SUBJECT = requests.bundled_subject(NAME)
# Few restarts and epochs: what they find is compared, not judged.
QUICK = {
    "weight": requests.alignment(SUBJECT, "weight", {"restarts": 1}, seed=2),
    "activation": requests.alignment(SUBJECT, "activation", {"examples": 200}),
    "straight_through": requests.alignment(SUBJECT, "straight_through", {"epochs": 1}),
}
WEIGHT = QUICK["weight"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair():
    return merging.load_pair(NAME)


@pytest.fixture(scope="module")
def spec(pair):
    return merging.find_symmetry(pair.model, example_inputs(pair.card["config"]))


def computed(request, store):
    """Compute a request and what it needs, as workers do, and read it back."""
    for need in request.needs():
        computed(need, store)
    for piece in request.job().pieces:
        if not store.has([piece.key]):
            store.put(piece.key, *run_piece(piece.payload, Context(store, piece.key)))
    found = request.read(store)
    assert found is not None
    return found


def aligned(pair, spec, store, request=WEIGHT):
    perms = {k: torch.from_numpy(v) for k, v in computed(request, store).permutations.items()}
    return merging.permute(spec, perms, pair.params_b)


def equal(params, others):
    assert params.keys() == others.keys()
    for name, value in params.items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=0)


def test_every_kind_of_request_has_its_task():
    assert set(tasks.TASKS) == set(requests.KINDS.values())


def test_symmetry_is_that_of_the_library(pair, spec, store):
    summary = computed(requests.SymmetryRequest(SUBJECT.config), store)
    assert {group.name: group.units for group in summary.groups} == dict(spec.sizes)
    assert summary.certified
    assert summary.max_relative_difference <= summary.tolerance
    assert summary.log10_orderings == pytest.approx(
        3 * sum(np.log10(k) for k in range(1, 257)), rel=1e-9
    )
    assert 0 < summary.share_moved < 1
    assert summary.unknown_operators == ()


def test_end_points_are_the_models_by_themselves(pair, store):
    ends = computed(requests.EndPointsRequest(SUBJECT), store)
    for letter, params in (("a", pair.params_a), ("b", pair.params_b)):
        assert [point.split for point in ends[letter]] == ["train", "test"]
        for point, split in zip(ends[letter], (pair.data.train, pair.data.test), strict=True):
            found = evaluate(pair.model, params, split)
            assert point.examples == len(split)
            assert point.loss == pytest.approx(float(found.loss[0]), rel=1e-9)
            assert point.accuracy == pytest.approx(float(found.accuracy[0]), rel=1e-9)
            assert point.loss_standard_error == pytest.approx(
                float(found.standard_error[0]), rel=1e-9
            )


@pytest.mark.parametrize("method", QUICK)
def test_alignments_are_those_of_the_library(method, pair, spec, store):
    request = QUICK[method]
    found = computed(request, store)
    direct = merging.match(
        method,
        pair.model,
        pair.params_a,
        pair.params_b,
        spec=spec,
        batches=pair.data.train,
        seed=request.seed,
        options=json.loads(request.options),
    )
    assert found.permutations.keys() == direct.permutations.keys()
    for group, perm in direct.permutations.items():
        np.testing.assert_array_equal(found.permutations[group], perm.numpy())
    assert found.objective == pytest.approx(direct.objective, rel=1e-9)
    assert (found.method, found.seed, found.converged, found.stopped) == (
        method,
        request.seed,
        direct.converged,
        False,
    )
    assert dict(found.options) == dict(direct.options) == json.loads(request.options)
    assert 0 <= found.max_relative_difference < 1e-9
    assert found.seconds > 0


class _Stopping(Context):
    """Whom somebody tells to stop at a report."""

    def __init__(self, store, key, reports):
        super().__init__(store, key)
        self.left = reports

    def report(self, done, total, note=""):
        self.left -= 1
        if self.left < 0:
            raise StoppedError("stopped as asked")


@pytest.mark.parametrize("method", ["weight", "straight_through"])
def test_a_stopped_alignment_keeps_a_partial_and_no_result(method, spec, tmp_path):
    store = Store(tmp_path)
    request = requests.alignment(SUBJECT, method, seed=11)
    (piece,) = request.job().pieces
    context = _Stopping(store, piece.key, reports=3)
    with pytest.raises(StoppedError):
        run_piece(piece.payload, context)
    context.flush()
    assert request.read(store) is None
    part = request.read_partial(store)
    assert part is not None
    assert part.stopped
    assert part.max_relative_difference < 1e-9
    assert {k: sorted(v.tolist()) for k, v in part.permutations.items()} == {
        group: list(range(n)) for group, n in spec.sizes.items()
    }
    store.close()


def test_straight_through_matching_goes_on_where_it_was_stopped(store, tmp_path):
    request = requests.alignment(SUBJECT, "straight_through", {"epochs": 2}, seed=13)
    (piece,) = request.job().pieces
    some = Store(tmp_path)
    with pytest.raises(StoppedError):
        run_piece(piece.payload, _Stopping(some, piece.key, reports=3))
    context = _Stopping(some, piece.key, reports=100)
    some.put(piece.key, *run_piece(piece.payload, context))
    whole, found = computed(request, store), request.read(some)
    assert 100 - context.left == len(whole.objective) - 1 - 4, "the fourth step was kept"
    assert found.objective == whole.objective
    for group, perm in whole.permutations.items():
        np.testing.assert_array_equal(found.permutations[group], perm)
    some.close()


@pytest.mark.parametrize("method", ["weight", "straight_through"])
def test_a_partial_says_what_it_is_part_of(method, store, monkeypatch):
    parts = []
    monkeypatch.setattr(Context, "partial", lambda self, arrays, meta: parts.append(meta))
    request = requests.alignment(SUBJECT, method, seed=12)
    (piece,) = request.job().pieces
    run_piece(piece.payload, Context(store, piece.key))
    assert parts
    for meta in parts:
        assert (meta["method"], meta["seed"]) == (method, 12)
        assert dict(meta["options"]) == json.loads(request.options)


def test_a_permutation_that_changes_the_function_is_never_handed_over(monkeypatch, store):
    class Refused:
        ok, max_relative_difference, tolerance = False, 0.5, 1e-9

    monkeypatch.setattr(tasks_alignment, "certify", lambda *_, **__: Refused())
    (piece,) = requests.alignment(SUBJECT, "activation", seed=9).job().pieces
    with pytest.raises(MergingError, match=r"changes the function of model B by 5.0e-01"):
        run_piece(piece.payload, Context(store, piece.key))
    assert not store.has([piece.key])


@pytest.mark.parametrize("alignment", [None, WEIGHT], ids=["naive", "weight"])
@pytest.mark.parametrize(
    ("split", "statistics", "overshoot"),
    [("test", "interpolated", 0.25), ("train", "interpolated", 0.0), ("test", "repair", 0.0)],
)
def test_curves_are_those_of_the_library(
    alignment, split, statistics, overshoot, pair, spec, store
):
    request = requests.CurveRequest(SUBJECT, alignment, split, statistics, 9, overshoot)
    curve = computed(request, store)
    params_b = pair.params_b if alignment is None else aligned(pair, spec, store)
    batches = pair.data.test if split == "test" else pair.data.train.take(1000)
    direct = merging.interpolate(
        pair.model,
        pair.params_a,
        params_b,
        batches,
        9,
        overshoot=overshoot,
        prepare=line_policy(
            statistics,
            pair.model,
            pair.params_a,
            params_b,
            pair.data.train.take(500 if statistics == "repair" else 1000),
        ),
    )
    np.testing.assert_array_equal(curve.lams, direct.lams)
    np.testing.assert_allclose(curve.loss, direct.loss, rtol=1e-5)
    np.testing.assert_allclose(curve.example_losses, direct.example_losses, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(curve.example_correct, direct.example_correct)
    assert curve.barrier() == pytest.approx(direct.barrier(), abs=1e-6)
    assert (curve.split, curve.examples) == (split, len(batches))
    words = {"interpolated": "interpolated", "repair": "REPAIR on 500 training examples"}
    assert curve.statistics == words[statistics]


def test_the_ends_of_a_curve_are_the_models_bit_for_bit(pair, store):
    curve = computed(requests.CurveRequest(SUBJECT), store)
    for k, params in ((0, pair.params_a), (-1, pair.params_b)):
        found = evaluate(pair.model, params, pair.data.test)
        np.testing.assert_array_equal(curve.example_losses[k], found.losses[0])


def test_a_curve_is_shown_before_it_is_complete(store, tmp_path):
    request, some = requests.CurveRequest(SUBJECT), Store(tmp_path)
    whole = computed(request, store)
    assert request.read_partial(some) is None
    first = request.job().pieces[0]
    some.put(first.key, *run_piece(first.payload, Context(some, first.key)))
    assert request.read(some) is None
    part = request.read_partial(some)
    assert {0.0, 1.0} < set(part.lams) < set(whole.lams)
    where = np.isin(whole.lams, part.lams)
    np.testing.assert_allclose(part.loss, whole.loss[where], rtol=1e-5)
    some.close()


def test_reset_on_a_model_without_batch_norm_says_what_to_use(store):
    request = requests.CurveRequest(SUBJECT, statistics="reset")
    piece = request.job().pieces[0]
    with pytest.raises(MergingError, match=r"no running statistics.*use REPAIR or RESCALE"):
        run_piece(piece.payload, Context(store, piece.key))


def test_a_curve_without_its_permutation_says_so(tmp_path):
    empty = Store(tmp_path)
    piece = requests.CurveRequest(SUBJECT, WEIGHT).job().pieces[0]
    with pytest.raises(MergingError, match=r"result of weight matching is missing; run it again"):
        run_piece(piece.payload, Context(empty, piece.key))
    empty.close()


@pytest.fixture(scope="module")
def surface(store):
    return computed(requests.SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), level=1), store)


def test_surfaces_are_those_of_the_library(surface, pair, spec, store):
    plane = merging.plane_through(pair.params_a, pair.params_b, aligned(pair, spec, store))
    direct = merging.evaluate_plane(pair.model, plane, pair.data.test, 17)
    np.testing.assert_array_equal(surface.x, direct.x)
    np.testing.assert_array_equal(surface.y, direct.y)
    assert surface.complete
    np.testing.assert_allclose(surface.loss, direct.loss, rtol=2e-5)
    np.testing.assert_allclose(surface.accuracy, direct.accuracy, atol=1e-6)
    np.testing.assert_allclose(surface.standard_error, direct.standard_error, rtol=1e-4)


def test_a_surface_says_where_the_models_lie(surface, pair):
    places = {point.name: point for point in surface.points}
    assert list(places) == ["A", "B", "weight"]
    distance = merging.plane_through(
        pair.params_a, pair.params_b, {k: v + 1 for k, v in pair.params_b.items()}
    ).corners[1][0]
    assert (places["A"].x, places["A"].y) == pytest.approx((0, 0), abs=1e-5)
    assert (places["B"].x, places["B"].y) == pytest.approx((distance, 0), rel=1e-5, abs=1e-4)
    assert places["weight"].y > 0
    assert max(point.residual for point in places.values()) < 1e-3 * distance
    assert surface.scale == pytest.approx(distance)


def test_a_finer_surface_takes_over_the_points_of_a_coarser_one(surface, store):
    coarse = computed(requests.SurfaceRequest(SUBJECT, ("a", "b", WEIGHT), level=0), store)
    np.testing.assert_array_equal(coarse.loss, surface.loss[::2, ::2])


def test_a_surface_is_shown_before_it_is_complete(tmp_path):
    some = Store(tmp_path)
    request = requests.SurfaceRequest(SUBJECT, ("a",), level=1)
    models, first = request.job().pieces[:2]
    some.put(models.key, *run_piece(models.payload, Context(some, models.key)))
    assert request.read_partial(some) is None
    some.put(first.key, *run_piece(first.payload, Context(some, first.key)))
    part = request.read_partial(some)
    assert not part.complete
    assert part.evaluated.sum() == np.isfinite(part.loss).sum() == 52
    some.close()


def test_random_directions_have_the_seed_of_the_request(store, pair):
    one, other = (
        computed(requests.SurfaceRequest(SUBJECT, ("b",), level=0, seed=seed), store)
        for seed in (0, 1)
    )
    plane = merging.filter_normalized_plane(pair.params_b, torch.Generator().manual_seed(1))
    direct = merging.evaluate_plane(pair.model, plane, pair.data.test, 9)
    np.testing.assert_allclose(other.loss, direct.loss, rtol=2e-5)
    assert not np.allclose(one.loss[0], other.loss[0])
    assert one.loss[4, 4] == other.loss[4, 4]


def test_a_plane_of_equal_models_says_which_to_change(store):
    request = requests.SurfaceRequest(SUBJECT, ("a", "a", "a"), level=0)
    with pytest.raises(MergingError, match=r"first two models of the plane are equal"):
        computed(request, store)
    with pytest.raises(MergingError, match=r"lie on one line \(two may be equal\)"):
        computed(replace(request, points=("a", "b", "b")), store)


def test_units_are_paired_as_the_permutation_says(store, pair):
    units = computed(requests.UnitsRequest(SUBJECT, WEIGHT), store)
    found = computed(WEIGHT, store)
    assert [u.group for u in units] == list(found.permutations)
    first = units[0]
    perm = found.permutations[first.group]
    np.testing.assert_array_equal(first.permutation, perm)
    assert sum(first.cycles) == perm.size
    assert first.fixed_points == int((perm == np.arange(perm.size)).sum())
    assert first.fixed_points == sum(length == 1 for length in first.cycles)
    assert first.block == 1
    np.testing.assert_array_equal(first.after, first.before[:, perm])
    np.testing.assert_allclose(np.diag(first.after) / 127, first.matched, atol=0.5 / 127 + 1e-6)
    best_other = np.where(np.eye(perm.size, dtype=bool), -2, first.after / 127.0).max(1)
    np.testing.assert_allclose(first.matched - best_other, first.margin, atol=1 / 127 + 1e-6)


def test_layers_are_compared_before_and_after(store, pair, spec):
    rows = computed(requests.LayersRequest(SUBJECT, WEIGHT), store)
    batches = pair.data.test.take(requests.LAYER_EXAMPLES)
    for params_b, when in ((pair.params_b, "before"), (aligned(pair, spec, store), "after")):
        distances = layer_distances(pair.params_a, params_b)
        barriers = layer_barriers(pair.model, pair.params_a, params_b, batches)
        variances = variance_ratios(pair.model, pair.params_a, params_b, batches)
        assert [row.layer for row in rows] == list(distances)
        for row in rows:
            assert getattr(row, f"distance_{when}") == pytest.approx(distances[row.layer][0])
            assert getattr(row, f"cosine_{when}") == pytest.approx(distances[row.layer][1])
            assert getattr(row, f"barrier_{when}") == pytest.approx(barriers[row.layer], rel=1e-5)
            expected = variances.get(row.layer, float("nan"))
            assert getattr(row, f"variance_{when}") == pytest.approx(expected, nan_ok=True)
    assert all(row.distance_after < row.distance_before for row in rows[:-1])


def _notes(data):
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def test_the_permutation_file_is_read_by_numpy_alone(store):
    file = computed(requests.ExportRequest(SUBJECT, WEIGHT, "permutation"), store)
    assert file.name.endswith("-weight.npz")
    with np.load(io.BytesIO(file.data), allow_pickle=False) as arrays:
        found = {group: arrays[group] for group in arrays.files}
    expected = computed(WEIGHT, store).permutations
    assert found.keys() == expected.keys()
    for group, perm in expected.items():
        assert found[group].dtype == np.int64
        np.testing.assert_array_equal(found[group], perm)


def test_the_aligned_file_is_model_b_in_another_order(store, pair, spec):
    request = requests.ExportRequest(SUBJECT, WEIGHT, "aligned")
    file = computed(request, store)
    assert file.name.endswith("-weight-aligned.safetensors")
    loaded = safetensors.torch.load(file.data)
    equal(dict(sorted(loaded.items())), dict(sorted(aligned(pair, spec, store).items())))
    x = pair.data.test.inputs[:64]
    before, after = (
        torch.func.functional_call(pair.model, params, x) for params in (pair.params_b, loaded)
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert requests.from_payload(json.loads(_notes(file.data)["recipe"])) == request


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_the_merged_file_is_the_point_on_the_line(lam, store, pair, spec):
    request = requests.ExportRequest(SUBJECT, WEIGHT, "merged", lam)
    file = computed(request, store)
    loaded, other = safetensors.torch.load(file.data), aligned(pair, spec, store)
    assert loaded.keys() == pair.params_a.keys()
    for name, value in loaded.items():
        expected = (1 - lam) * pair.params_a[name].double() + lam * other[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
    notes = _notes(file.data)
    assert notes["what"] == "merged"
    assert requests.from_payload(json.loads(notes["recipe"])) == request
    assert merging.interpolate(pair.model, loaded, loaded, pair.data.test, 2).accuracy[0] > 0.9


def test_the_merged_file_has_the_statistics_that_were_asked_for(store, pair, spec):
    file = computed(requests.ExportRequest(SUBJECT, WEIGHT, "merged", 0.5, "repair"), store)
    expected = merging.repair(
        pair.model,
        pair.params_a,
        aligned(pair, spec, store),
        0.5,
        pair.data.train.take(500),
        kind="repair",
    )
    equal(dict(sorted(safetensors.torch.load(file.data).items())), dict(sorted(expected.items())))


def test_the_naive_merge_needs_no_permutation(store, pair):
    file = computed(requests.ExportRequest(SUBJECT, None, "merged"), store)
    assert file.name.endswith("-naive-merged.safetensors")
    midpoint = {k: (v + pair.params_b[k]) / 2 for k, v in pair.params_a.items()}
    for name, value in safetensors.torch.load(file.data).items():
        torch.testing.assert_close(value, midpoint[name])


def test_there_is_no_permutation_file_without_a_method(store):
    with pytest.raises(MergingError, match=r"no permutation without a matching method"):
        computed(requests.ExportRequest(SUBJECT, None, "permutation"), store)


def test_reset_in_a_merged_file_needs_batch_norm(store):
    with pytest.raises(MergingError, match=r"no running statistics"):
        computed(requests.ExportRequest(SUBJECT, WEIGHT, "merged", 0.5, "reset"), store)


def test_reset_renews_the_running_statistics_of_the_merged_model(store):
    subject = requests.bundled_subject("mnist-resnet-bn")
    pair = merging.load_pair("mnist-resnet-bn")
    file = computed(requests.ExportRequest(subject, None, "merged", 0.5, "reset"), store)
    midpoint = merging.repair(
        pair.model, pair.params_a, pair.params_b, 0.5, pair.data.train.take(1000), kind="reset"
    )
    loaded = safetensors.torch.load(file.data)
    for name, value in midpoint.items():
        torch.testing.assert_close(loaded[name], value, rtol=1e-5, atol=1e-6)
    assert loaded.keys() == pair.model.state_dict().keys()
    assert reset(pair.model, midpoint, pair.data.train.take(100)).keys() == loaded.keys()


def uploaded(data, store):
    key = hashlib.sha256(data).hexdigest()
    store.files.put(key, data, ".upload")
    return key


def test_an_uploaded_pair_goes_all_the_way(store, pair):
    kept = []
    for letter, data in (
        ("a", checkpoint_bytes(pair.params_a)),
        ("b", with_prefix(pair.params_b)),
    ):
        request = requests.CheckpointRequest(uploaded(data, store), f"{letter}.bin")
        kept.append(computed(request, store))
    a, b = kept
    assert (a.fingerprint, b.fingerprint) == (SUBJECT.model_a, SUBJECT.model_b)
    assert a.config == b.config == SUBJECT.config
    assert (a.notes, b.notes) == ((), ("The prefix 'module.' was cut off all names.",))
    assert a.tensors == len(pair.params_a)
    assert a.parameters == sum(v.numel() for v in pair.params_a.values())
    data = computed(
        requests.DataRequest(uploaded(examples((64,), 30), store), "mine.npz", a.config), store
    )
    assert (data.examples, data.classes) == (30, 10)
    subject = requests.Subject(
        a.config, a.fingerprint, b.fingerprint, data.fingerprint, data.fingerprint
    )
    curve = computed(requests.CurveRequest(subject, lams=5), store)
    assert curve.examples == 15
    assert computed(requests.alignment(subject, "activation"), store).units == 3 * 256


def test_a_bad_checkpoint_is_refused_by_the_name_it_came_with(store, pair):
    request = requests.CheckpointRequest(uploaded(truncated(pair.params_a), store), "half.bin")
    with pytest.raises(MergingError, match=r"half\.bin: .*copy or download it again"):
        computed(request, store)


@pytest.mark.parametrize("kind", bad_examples((64,)))
def test_bad_examples_are_refused(kind, store):
    data, words = bad_examples((64,))[kind]
    request = requests.DataRequest(uploaded(data, store), "mine.npz", SUBJECT.config)
    with pytest.raises(MergingError) as caught:
        computed(request, store)
    assert words in str(caught.value)


def test_the_fit_names_what_does_not_fit_first(store):
    same = computed(requests.FitRequest(SUBJECT.model_a, SUBJECT.model_a), store)
    assert {row.verdict for row in same} == {"equal values"}
    both = computed(requests.FitRequest(SUBJECT.model_a, SUBJECT.model_b), store)
    assert {row.verdict for row in both} == {"fits"}
    other = requests.bundled_subject("mnist-cnn")
    rows = computed(requests.FitRequest(SUBJECT.model_a, other.model_a), store)
    assert rows[0].verdict == "does not fit"
    verdicts = [row.verdict for row in rows]
    assert verdicts == sorted(verdicts, key=lambda verdict: verdict != "does not fit")
    assert any("missing" in (row.shape_a, row.shape_b) for row in rows)


def test_a_result_depends_on_the_request_only(tmp_path, store):
    fresh = Store(tmp_path)
    again = computed(QUICK["activation"], fresh)
    before = computed(QUICK["activation"], store)
    assert isinstance(again, Alignment)
    same = [asdict(replace(found, seconds=0, permutations={})) for found in (again, before)]
    assert same[0] == same[1]
    for group, perm in before.permutations.items():
        np.testing.assert_array_equal(again.permutations[group], perm)
    fresh.close()
