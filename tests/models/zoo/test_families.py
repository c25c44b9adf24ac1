"""What the bundled families are, that their cards hold, and what they must show."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

import merging
from merging.files.checkpoints.fingerprint import fingerprint
from merging.files.data.batches import concatenate
from merging.files.data.bundled import load_dataset
from merging.fusion import diagonal_fisher, fuse
from merging.landscape import evaluate
from merging.models.zoo.families import (
    FAMILIES,
    FamilyRecipe,
    Member,
    load_family,
    members,
    train_family,
    training_examples,
)
from merging.models.zoo.training import Recipe
from merging.schema.cards.zoo import (
    ASSETS,
    family_files,
    list_families,
    read_family_card,
    read_family_cards,
)
from merging.schema.errors import UnknownNameError

OF_TASKS = [name for name, recipe in FAMILIES.items() if recipe.kind == "tasks"]


def states(family):
    return [s for s in (family.base, *family.models, family.joint) if s is not None]


def entries(card):
    return [entry for entry in (card["base"], *card["models"], card["joint"]) if entry is not None]


def accuracy(family, params, data):
    return float(evaluate(family.model, params, data.test).accuracy[0])


def mean_accuracy(family, params):
    return sum(accuracy(family, params, task) for task in family.tasks) / len(family.tasks)


@cache
def curvatures(name):
    """Of models and base, on the scale of the sum."""
    family = load_family(name)
    pairs = [*zip(family.models, family.tasks, strict=True), (family.base, family.data)]
    found = []
    for params, data in pairs:
        fisher = diagonal_fisher(family.model, params, data.train)
        found.append({key: len(data.train) * value for key, value in fisher.items()})
    return found[:-1], found[-1]


def fused(name, rule, weight=1.0):
    family = load_family(name)
    fishers, base_fisher = curvatures(name)
    return fuse(
        rule,
        models=family.models,
        base=family.base,
        weights=[weight] * len(family.models),
        fishers=fishers,
        base_fisher=base_fisher,
    )


# The files


def test_the_families_are_those_of_the_recipes_in_their_order():
    assert list_families() == list(FAMILIES)
    assert merging.list_families() == list(FAMILIES)


def test_the_families_take_up_little_room():
    files = [path for path in (ASSETS / "families").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6
    expected = {
        f"{recipe.name}/{member.name}.safetensors"
        for recipe in FAMILIES.values()
        for member in members(recipe)
    } | {f"{name}/card.json" for name in FAMILIES}
    assert {f"{path.parent.name}/{path.name}" for path in files} == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_the_card_is_that_of_the_recipe_and_the_files(name):
    card, recipe, family = read_family_card(name), FAMILIES[name], load_family(name)
    assert family.card is card
    for key in ("title", "shows", "kind"):
        assert card[key] == getattr(recipe, key)
    assert card["config"] == dict(recipe.config)
    assert card["tasks"] == list(recipe.tasks) == [task.name for task in family.tasks]
    assert card["parameters"] == sum(p.numel() for p in family.model.parameters())
    for entry, member, params in zip(entries(card), members(recipe), states(family), strict=True):
        assert entry["fingerprint"] == fingerprint(params)
        assert (entry["name"], entry["seed"]) == (member.name, member.seed)
        assert entry["data"] == list(member.data)
        assert entry["examples"] == len(training_examples(member))
    assert len({entry["fingerprint"] for entry in entries(card)}) == len(entries(card))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_data_of_the_card_are_found_again(name):
    for entry in read_family_card(name)["data"]:
        data = load_dataset(entry["name"])
        assert (entry["title"], entry["fingerprint"]) == (data.title, data.fingerprint)
        sizes = [len(split) for split in (data.train, data.validation, data.test)]
        assert [entry[split] for split in ("train", "validation", "test")] == sizes


@pytest.mark.parametrize("name", FAMILIES)
def test_the_accuracies_of_the_card_are_found_again(name):
    card, family = read_family_card(name), load_family(name)
    sets = {data.name: data for data in (family.data, *family.tasks)}
    for entry, params in zip(entries(card), states(family), strict=True):
        assert set(entry["accuracy"]) == set(sets)
        task = entry["data"][-1]  # one set each; the tests of one network take a second for all
        assert accuracy(family, params, sets[task]) == pytest.approx(entry["accuracy"][task])


def test_files_are_found_by_their_fingerprint():
    files = family_files()
    cards = read_family_cards().values()
    assert set(files) == {entry["fingerprint"] for card in cards for entry in entries(card)}
    wanted = read_family_card("mnist-mild")["joint"]["fingerprint"]
    assert files[wanted] == ASSETS / "families" / "mnist-mild" / "joint.safetensors"
    assert all(path.exists() for path in files.values())


def test_an_unknown_family_is_refused():
    with pytest.raises(UnknownNameError, match=r"unknown family 'none'; choose from mnist-mild"):
        load_family("none")


# What the recipes promise


@pytest.mark.parametrize("name", OF_TASKS)
def test_a_family_of_tasks_has_five_models_of_different_data_and_a_joint_model_of_all(name):
    recipe = FAMILIES[name]
    assert len(recipe.models) == len(recipe.tasks) == 5
    assert recipe.joint.data == (*recipe.base.data, *recipe.tasks)
    union = concatenate([load_dataset(n).train for n in recipe.joint.data], "train")
    assert torch.equal(training_examples(recipe.joint).targets, union.targets)


@pytest.mark.parametrize("name", OF_TASKS)
def test_every_model_is_best_at_its_own_task(name):
    card = read_family_card(name)
    for task, entry in zip(card["tasks"], card["models"], strict=True):
        others = [other["accuracy"][task] for other in card["models"] if other is not entry]
        assert entry["accuracy"][task] > max(others)


def test_checkpoints_of_a_run_come_in_order_from_one_training():
    recipe = FAMILIES["mnist-run"]
    epochs = [member.epoch for member in recipe.models]
    assert epochs == sorted(epochs)
    assert len(epochs) == 8
    assert {(m.data, m.recipe, m.seed) for m in recipe.models} == {
        (recipe.models[0].data, recipe.models[0].recipe, recipe.models[0].seed)
    }


# What the families must show


def test_gradient_matching_comes_near_the_joint_model_on_mild_shifts():
    family = load_family("mnist-mild")
    joint = mean_accuracy(family, family.joint)
    for weight in (0.3, 1.0):
        merged = mean_accuracy(family, fused("mnist-mild", "gradient_matching", weight))
        assert joint - 0.03 < merged < joint
        assert merged > mean_accuracy(family, family.base) + 0.01


def test_task_arithmetic_collapses_on_harsh_shifts_where_gradient_matching_stays():
    family = load_family("mnist-harsh")
    found = {
        (rule, weight): mean_accuracy(family, fused("mnist-harsh", rule, weight))
        for rule in ("task_arithmetic", "gradient_matching")
        for weight in (0.3, 1.0)
    }
    assert found["task_arithmetic", 1.0] < found["task_arithmetic", 0.3] - 0.15
    assert found["gradient_matching", 1.0] > found["gradient_matching", 0.3] - 0.02
    assert mean_accuracy(family, family.joint) > max(found.values()) + 0.2


def test_a_merged_model_knows_the_digits_that_its_parents_forgot():
    family = load_family("mnist-classes")
    merged = mean_accuracy(family, fuse("average", models=family.models))
    assert merged > max(mean_accuracy(family, params) for params in family.models) + 0.03


@pytest.mark.parametrize("name", ["mnist-soup", "mnist-run"])
def test_the_mean_of_one_task_is_better_than_the_best_model(name):
    family = load_family(name)
    models = family.models[:6] if name == "mnist-soup" else family.models
    best = max(mean_accuracy(family, params) for params in models)
    assert mean_accuracy(family, fuse("average", models=models)) > best


def test_one_fine_tuning_spoils_the_uniform_soup():
    family = load_family("mnist-soup")
    uniform = mean_accuracy(family, fuse("average", models=family.models))
    assert uniform < mean_accuracy(family, fuse("average", models=family.models[:-1]))


def test_seeds_without_a_base_lie_in_different_basins():
    family = load_family("mnist-seeds")
    assert family.base is None
    assert family.joint is None
    assert len(family.models) >= 4
    assert mean_accuracy(family, fuse("average", models=family.models)) < 0.7
    assert min(mean_accuracy(family, params) for params in family.models) > 0.9


# Training


def small(name, kind="tasks", **changes) -> FamilyRecipe:
    config = {"architecture": "mlp", "widths": [784, 4, 10]}
    recipe = Recipe("sgd", 0.01, 2, 200)

    def shrunk(member: Member | None) -> Member | None:
        return None if member is None else replace(member, recipe=recipe)

    family = FAMILIES[name]
    return replace(
        family,
        config=config,
        models=tuple(shrunk(member) for member in family.models[:2]),
        base=shrunk(family.base),
        joint=shrunk(family.joint),
    )


def test_training_a_family_again_gives_it_again_and_another_run_gives_another():
    recipe = small("mnist-classes")
    one, two, other = (train_family(recipe, run=run) for run in (0, 0, 1))
    for a, b, c in zip(states(one), states(two), states(other), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert not torch.equal(a["layers.0.weight"], c["layers.0.weight"])


def test_models_start_from_the_base():
    recipe = small("mnist-classes")
    still = replace(recipe.models[0], recipe=Recipe("sgd", 0.0, 1, 200))
    family = train_family(replace(recipe, models=(still,), joint=None))
    assert all(torch.equal(family.models[0][name], family.base[name]) for name in family.base)


def test_a_run_is_trained_once_and_its_checkpoints_are_kept_on_the_way():
    recipe = FAMILIES["mnist-run"]
    sgd = Recipe("sgd", 0.01, 3, 200)
    models = tuple(
        replace(member, recipe=sgd, epoch=epoch)
        for member, epoch in zip(recipe.models, (1, 3), strict=False)
    )
    trained = []
    run = replace(recipe, config={"architecture": "mlp", "widths": [784, 4, 10]}, models=models)
    family = train_family(run, on_member=lambda name, done, *_: trained.append((name, done)))
    assert trained == [(models[0].name, epoch) for epoch in (1, 2, 3)]
    shorter = replace(run, models=(replace(models[0], recipe=replace(sgd, epochs=1)),))
    first = train_family(shorter).models[0]
    assert all(torch.equal(first[name], family.models[0][name]) for name in first)
    assert not torch.equal(family.models[0]["layers.0.weight"], family.models[1]["layers.0.weight"])


def test_cards_are_read_in_the_order_of_the_recipes():
    positions = [card["position"] for card in read_family_cards().values()]
    assert positions == sorted(positions)
