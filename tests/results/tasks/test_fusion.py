"""Tasks of families end to end, in this process; truth from direct calls of the library."""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

import merging
from merging.files.data.batches import concatenate
from merging.fusion import diagonal_fisher, zip_models
from merging.landscape import evaluate
from merging.landscape.evaluate.predictions import answers, predict
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.compute.store import Store
from merging.results.tasks import run_piece
from merging.schema.errors import MergingError
from tests.results.tasks.test_tasks import computed

NAME = "mnist-classes"
FAMILY = requests.bundled_family(NAME)
SEEDS = requests.bundled_family("mnist-seeds").of((0, 1, 2))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def family():
    return merging.load_family(NAME)


def accuracy(family, params):
    return [float(evaluate(family.model, params, t.test).accuracy[0]) for t in family.tasks]


def test_a_mean_is_judged_on_every_task(family, store):
    score = computed(requests.fusion(FAMILY, "average"), store)
    fused = merging.fuse("average", models=family.models)
    assert [task.accuracy for task in score.tasks] == pytest.approx(accuracy(family, fused))
    assert score.accuracy == pytest.approx(np.mean(accuracy(family, fused)))
    distance = sum(((fused[n] - family.base[n]) ** 2).sum() for n in fused) ** 0.5
    assert score.base_distance == pytest.approx(float(distance), rel=1e-5)
    assert len(score.disagreement) == len(family.models)
    own = torch.cat([answers(predict(family.model, fused, t.test)) for t in family.tasks])
    first = [answers(predict(family.model, family.models[0], t.test)) for t in family.tasks]
    assert score.disagreement[0] == pytest.approx(float((own != torch.cat(first)).double().mean()))
    assert math.isfinite(score.mismatch)


def test_weights_options_and_the_base_reach_the_rule(family, store):
    wanted = requests.fusion(FAMILY, "ties", {"density": 0.5}, weights=(1.0, 2.0, 1.0, 1.0, 1.0))
    score = computed(wanted, store)
    fused = merging.fuse(
        "ties",
        models=family.models,
        base=family.base,
        weights=[1, 2, 1, 1, 1],
        options={"density": 0.5},
    )
    assert [task.accuracy for task in score.tasks] == pytest.approx(accuracy(family, fused))


def test_gradient_matching_has_curvatures_on_the_scale_of_each_training_set(family, store):
    score = computed(requests.fusion(FAMILY, "gradient_matching"), store)

    def fisher(params, data):
        some = data.train.take(requests.CURVATURE_EXAMPLES)
        found = diagonal_fisher(family.model, params, some, seed=0)
        return {name: len(data.train) * value for name, value in found.items()}

    fused = merging.fuse(
        "gradient_matching",
        models=family.models,
        base=family.base,
        fishers=[fisher(m, t) for m, t in zip(family.models, family.tasks, strict=True)],
        base_fisher=fisher(family.base, family.data),
    )
    assert [task.accuracy for task in score.tasks] == pytest.approx(
        accuracy(family, fused), abs=0.006
    )


def test_the_switches_lead_to_task_arithmetic_and_to_fisher_averaging(store):
    weights = (0.4,) * 5
    none = requests.fusion(FAMILY, "gradient_matching", {"ht": "left out"}, weights=weights)
    plain = requests.fusion(FAMILY, "task_arithmetic", weights=weights)
    assert computed(none, store).distances == pytest.approx(
        computed(plain, store).distances, rel=1e-4
    )
    flat = requests.fusion(FAMILY, "gradient_matching", {"h0": "left out"})
    fisher = requests.fusion(FAMILY, "fisher")
    # Where all curvatures are 0 one keeps the base and the other takes the mean: the rest agrees.
    assert computed(flat, store).accuracy == pytest.approx(
        computed(fisher, store).accuracy, abs=0.02
    )


def test_references_are_every_model_the_base_the_joint_model_and_ensembles(family, store):
    found = {score.name: score for score in computed(requests.ReferencesRequest(FAMILY), store)}
    assert list(found) == [
        *(f"model {k}" for k in range(5)), "base", "joint", "logits", "probabilities", "vote",
    ]  # fmt: skip
    for name, params in (("model 3", family.models[3]), ("joint", family.joint)):
        assert [t.accuracy for t in found[name].tasks] == pytest.approx(accuracy(family, params))
    assert found["model 3"].disagreement[3] == 0
    assert found["vote"].bytes == 5 * found["base"].bytes


def test_the_best_coefficient_is_chosen_on_validation_examples(family, store):
    wanted = requests.fusion(FAMILY, "wise_ft")
    scan = requests.tuning(wanted)
    scan = replace(scan, values=(0.2, 0.6, 1.0))
    found = computed(scan, store)
    assert found.split == "validation"
    by_hand = []
    for t in (0.2, 0.6, 1.0):
        fused = merging.fuse("wise_ft", models=family.models, base=family.base, options={"t": t})
        by_hand.append([
            float(evaluate(family.model, fused, task.validation).accuracy[0])
            for task in family.tasks
        ])
    np.testing.assert_allclose(found.accuracy, by_hand, atol=1e-9)
    best = (0.2, 0.6, 1.0)[int(np.mean(by_hand, axis=1).argmax())]
    assert json.loads(requests.tuned(wanted, found).options)["t"] == best == found.best


def test_models_of_different_seeds_are_lined_up_before_they_are_merged(store):
    order = requests.OrderRequest(SEEDS, "merge many")
    found = computed(order, store)
    assert all((perm == np.arange(perm.size)).all() for perm in found.permutations[0].values())
    assert found.objective[-1] > found.objective[0]
    assert found.cycle_error == 0
    naive = computed(requests.fusion(SEEDS, "average"), store)
    aligned = computed(requests.fusion(SEEDS, "average", order=order), store)
    assert naive.accuracy < 0.7 < 0.8 < aligned.accuracy


def test_curvature_moves_with_the_units(store):
    order = requests.OrderRequest(SEEDS, "first")
    aligned = computed(requests.fusion(SEEDS, "fisher", order=order), store)
    naive = computed(requests.fusion(SEEDS, "fisher"), store)
    assert naive.accuracy + 0.2 < aligned.accuracy


def test_mixtures_cover_the_simplex_and_end_at_the_models(family, store):
    some = FAMILY.of((0, 1, 2))
    wanted = requests.MixturesRequest(some)
    found = computed(wanted, store)
    assert np.allclose(found.shares.sum(1), 1)
    assert len(np.unique(found.shares, axis=0)) == len(found.shares) <= 300
    for k in range(3):
        (row,) = np.flatnonzero(found.shares[:, k] == 1)
        alone = [
            float(evaluate(family.model, family.models[k], t.validation).accuracy[0])
            for t in family.tasks
        ]
        np.testing.assert_allclose(found.accuracy[row], alone)


def test_the_file_is_the_merged_model_with_its_card_and_recipe(family, store):
    fusion = requests.fusion(FAMILY, "task_arithmetic", weights=(0.3,) * 5)
    file = computed(requests.FusionExportRequest(fusion, "folder"), store)
    with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
        params = safetensors.torch.load(archive.read("model.safetensors"))
        card = archive.read("README.md").decode()
        recipe = json.loads(archive.read("recipe.json"))
    fused = merging.fuse(
        "task_arithmetic", models=family.models, base=family.base, weights=[0.3] * 5
    )
    for name, value in fused.items():
        torch.testing.assert_close(params[name], value)
    assert "# Task arithmetic of 5 models" in card
    assert all(mark in card for mark in FAMILY.models)
    assert requests.from_payload(recipe) == fusion
    plain = computed(requests.FusionExportRequest(fusion), store)
    assert set(safetensors.torch.load(plain.data)) == set(fused)


def test_task_vectors_are_compared(family, store):
    found = computed(requests.TaskVectorsRequest(FAMILY), store)
    a, b = (
        torch.cat([(m[n] - family.base[n]).flatten() for n in m]).double()
        for m in family.models[:2]
    )
    assert found.norms[0] == pytest.approx(float(a.norm()), rel=1e-6)
    assert found.cosines[0, 1] == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-6)
    both = (a != 0) & (b != 0)
    opposite = float(((a * b)[both] < 0).double().mean())
    assert found.conflicts[0, 1] == pytest.approx(opposite, abs=1e-6)
    np.testing.assert_allclose(found.contributions.sum(1), 1)


def test_implied_weights_count_every_entry_and_errors_cover_every_tensor(family, store):
    fusion = requests.fusion(FAMILY, "gradient_matching")
    entries = sum(value.numel() for value in family.base.values())
    weights = computed(requests.ImpliedWeightsRequest(fusion), store)
    assert weights.counts.sum(1).tolist() == [entries] * 5
    rows = computed(requests.ErrorsRequest(fusion), store)
    assert {(row.rule, row.tensor) for row in rows} == {
        (rule, name) for rule in ("task_arithmetic", "gradient_matching") for name in family.base
    }
    assert all(row.measured <= row.bound * (1 + 1e-6) for row in rows)


def test_a_task_is_taken_out_of_the_joint_model(family, store):
    wanted = requests.RemovalRequest(FAMILY, 1, (0.3,), delta=1.0, epochs=2)
    joint, negated, removed = computed(wanted, store)
    parts = accuracy(family, family.joint)
    assert joint.removed_accuracy == pytest.approx(parts.pop(1))
    assert joint.others_accuracy == pytest.approx(np.mean(parts))
    assert negated.name == "negation"
    assert math.isnan(negated.clamped)
    assert 0 <= removed.clamped <= 1
    assert removed.removed_accuracy <= joint.removed_accuracy


def test_a_rule_that_lacks_something_says_what(store):
    request = requests.fusion(SEEDS, "ties")
    with pytest.raises(MergingError, match="TIES needs a base model; choose another rule"):
        run_piece(request.job().pieces[0].payload, Context(store, request.key))


def test_rules_are_offered_where_they_can_be_used():
    assert "ties" not in requests.usable_rules(SEEDS)
    assert "slerp" not in requests.usable_rules(SEEDS)
    assert "slerp" in requests.usable_rules(SEEDS.of((0, 1)))
    assert "krum" not in requests.usable_rules(SEEDS.of((0, 1)))
    blind = replace(FAMILY, tasks=(), trained_on=(-1,) * 5)
    assert "fisher" not in requests.usable_rules(blind)
    assert "ties" in requests.usable_rules(blind)


def test_heads_of_their_own_answer_the_tasks_of_their_models(family, store):
    some = FAMILY.of((0, 1))
    score = computed(requests.fusion(some, "zipit", {"depth": 1}), store)
    spec = merging.find_symmetry(family.model, (family.data.test.inputs[:2],))
    share = -(-requests.SHOWN_EXAMPLES // len(family.tasks))
    examples = concatenate([task.train.take(share) for task in family.tasks], "train")
    heads = zip_models(spec, family.model, family.models[:2], examples, options={"depth": 1}).heads
    for k in (0, 1):
        own = float(evaluate(family.model, heads[k], family.tasks[k].test).accuracy[0])
        assert score.tasks[k].accuracy == pytest.approx(own)
    both = [predict(family.model, head, family.tasks[3].test) for head in heads]
    right = (answers(both[0] + both[1]) == family.tasks[3].test.targets).double().mean()
    assert score.tasks[3].accuracy == pytest.approx(float(right))
    distance = sum(float(((heads[1][n] - family.models[1][n]) ** 2).sum()) for n in heads[1])
    assert score.distances[1] == pytest.approx(distance**0.5, rel=1e-5)
    one = sum(value.nbytes for value in heads[0].values())
    shared = sum(heads[0][f"layers.0.{part}"].nbytes for part in ("weight", "bias"))
    assert score.bytes == 2 * one - shared
    assert math.isnan(score.mismatch)
    assert score.notes["heads"] == 2


@pytest.mark.parametrize("rule", ["zipit", "transport", "distillation"])
def test_whole_networks_are_made_one(rule, store):
    options = {"epochs": 2} if rule == "distillation" else {}
    order = requests.OrderRequest(SEEDS, "first") if rule == "distillation" else None
    score = computed(requests.fusion(SEEDS, rule, options, order=order), store)
    naive = computed(requests.fusion(SEEDS, "average"), store)
    assert naive.accuracy + 0.2 < score.accuracy
    assert score.bytes < 2 * naive.bytes
    if rule == "distillation":
        first, last = score.notes["divergence"]
        assert last < first
