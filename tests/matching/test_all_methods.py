"""What every matching method promises; a new method is tested by being in the table."""

import copy
import dataclasses
import math

import pytest
import torch

from merging.files.data.batches import Batches
from merging.matching import METHODS, match
from merging.schema.cards.matching import METHOD_CARDS
from merging.schema.errors import (
    ArchitectureMismatchError,
    DataError,
    MergingError,
    StoppedError,
    SymmetryError,
    UnknownNameError,
)
from merging.symmetry import find_symmetry
from merging.symmetry.permutation import check_permutations, identity_permutations, invert, permute
from tests.cases import (
    CONFIGS,
    architecture,
    architecture_inputs,
    architecture_symmetry,
    perceptron,
    random_state,
    synthetic_batches,
)
from tests.oracles import moving_permutations, outputs, relative_difference

QUICK = {"straight_through": {"epochs": 2, "batch_size": 12}}

every_method = pytest.mark.parametrize("method", METHODS)


def promised(names=tuple(CONFIGS)):
    """Every method on every architecture."""
    return pytest.mark.parametrize(
        ("method", "name"), [(method, name) for method in METHODS for name in names]
    )


every_pair = promised()


def models(name):
    """The architecture, two random settings of it, its spec and examples."""
    model = architecture(name)
    spec = architecture_symmetry(name).spec
    return model, random_state(model, 1), random_state(model, 2), spec, synthetic_batches(name)


def run(method, name, **options):
    model, a, b, spec, batches = models(name)
    given = {"spec": spec, "batches": batches, "options": QUICK.get(method)} | options
    return match(method, model, a, b, **given)


def is_no_worse(found, than):
    """Whether the end of an objective is no worse than a value; losses are to be small."""
    slack = 1e-6 * max(1.0, abs(than))
    if "loss" in found.objective_name:
        return found.objective[-1] <= than + slack
    return found.objective[-1] >= than - slack


def one_hidden_layer(n=16, examples=200):
    model = perceptron(6, n, 3)
    a = random_state(model, 3)
    x = torch.randn(examples, 6, generator=torch.Generator().manual_seed(0))
    spec = find_symmetry(model, (x[:2],))
    return model, a, spec, Batches(x, outputs(model, a, x).argmax(1), 64)


@every_pair
def test_every_group_gets_a_permutation_and_the_function_of_b_is_kept(method, name):
    found = run(method, name)
    model, _, b, spec, _ = models(name)
    assert set(found.permutations) == set(spec.sizes)
    check_permutations(spec, found.permutations)
    wide = copy.deepcopy(model).double()
    b = {key: v.double() if v.is_floating_point() else v for key, v in b.items()}
    x = architecture_inputs(name, 6, seed=3)[0].double()
    aligned = outputs(wide, permute(spec, found.permutations, b), x)
    assert relative_difference(outputs(wide, b, x), aligned) < 1e-9


@every_pair
def test_the_result_is_never_worse_than_the_start(method, name):
    found = run(method, name)
    assert all(math.isfinite(value) for value in found.objective)
    assert is_no_worse(found, found.objective[0])
    assert found.method == method
    assert found.seconds > 0
    assert not found.stopped


@every_pair
def test_a_model_and_itself_get_the_score_of_the_identity(method, name):
    model, a, _, spec, batches = models(name)
    found = match(
        method, model, a, a, spec=spec, batches=batches,
        options={"epochs": 1, "batch_size": 24, "lr": 1e-5} if method in QUICK else None,
    )  # fmt: skip
    assert is_no_worse(found, found.objective[0])
    if "loss" not in found.objective_name:
        assert found.objective[-1] == pytest.approx(found.objective[0], rel=1e-6)


@every_method
def test_a_planted_permutation_of_one_hidden_layer_is_undone_exactly(method):
    model, a, spec, batches = one_hidden_layer()
    for seed in range(3):
        planted = moving_permutations(spec.shapes, seed)
        options = {"epochs": 1, "lr": 1e-5} if method == "straight_through" else None
        found = match(
            method, model, a, permute(spec, planted, a), spec=spec, batches=batches, seed=seed,
            options=options,
        )  # fmt: skip
        (group,) = spec.sizes
        assert torch.equal(found.permutations[group], invert(planted[group]))


@promised(("cnn", "resnet-batch"))
def test_nothing_that_is_given_is_written_into(method, name):
    model, a, b, spec, batches = models(name)
    kept = [copy.deepcopy(thing) for thing in (a, b, model.state_dict())]
    inputs, targets = batches.inputs.clone(), batches.targets.clone()
    match(method, model, a, b, spec=spec, batches=batches, options=QUICK.get(method))
    for before, after in zip(kept, (a, b, model.state_dict()), strict=True):
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert not any(value.requires_grad for value in after.values())
    assert torch.equal(batches.inputs, inputs)
    assert torch.equal(batches.targets, targets)
    assert all(parameter.grad is None for parameter in model.parameters())


@promised(("mlp", "resnet-batch", "vit"))
def test_the_same_seed_gives_the_same_result_whatever_the_global_state(method, name):
    one = run(method, name, seed=7)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    two = run(method, name, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.objective == two.objective
    assert one.restarts == two.restarts
    assert one.seed == 7
    assert all(torch.equal(one.permutations[g], two.permutations[g]) for g in one.permutations)


@every_method
def test_layers_of_other_widths_are_named(method):
    model, a, spec, batches = one_hidden_layer(8)
    b = random_state(perceptron(6, 9, 3), 1)
    with pytest.raises(ArchitectureMismatchError, match=r"'layers\.0\.weight'"):
        match(method, model, a, b, spec=spec, batches=batches)


@every_method
def test_a_spec_of_other_models_is_refused(method):
    model, a, _, batches = one_hidden_layer(8)
    spec = find_symmetry(perceptron(6, 9, 3), (torch.randn(2, 6),))
    with pytest.raises(SymmetryError, match=r"'layers.0.weight' has shape \[8, 6\]"):
        match(method, model, a, a, spec=spec, batches=batches)


@every_method
def test_progress_is_reported_and_ends_within_its_total(method):
    seen, partial = [], []
    found = run(
        method, "mlp", on_progress=lambda *report: seen.append(report), on_partial=partial.append
    )
    assert seen
    done = [report[0] for report in seen]
    assert done == sorted(done)
    assert all(0 < report[0] <= report[1] for report in seen)
    assert all(isinstance(note, str) and note for *_, note in seen)
    for result in partial:
        assert set(result.permutations) == set(found.permutations)


class StopsAt:
    """Stops the work at its k-th report."""

    def __init__(self, k):
        self.left = k

    def __call__(self, done, total, note):
        self.left -= 1
        if self.left <= 0:
            raise StoppedError("stop")


@pytest.mark.parametrize("at", [1, 2])
@every_method
def test_stopped_work_returns_what_it_has(method, at):
    _, _, _, spec, _ = models("mlp")
    found = run(method, "mlp", on_progress=StopsAt(at))
    assert found.stopped
    check_permutations(spec, found.permutations)
    assert set(found.permutations) == set(spec.sizes)
    assert all(math.isfinite(value) for value in found.objective)
    assert is_no_worse(found, found.objective[0])


@every_method
def test_an_error_of_the_caller_s_own_is_not_swallowed(method):
    def fail(*report):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(method, "mlp", on_progress=fail)


@every_method
def test_options_are_kept_in_the_result_with_their_defaults(method):
    found = run(method, "mlp", options=QUICK.get(method))
    defaults = dataclasses.asdict(METHODS[method].options())
    assert found.options == defaults | QUICK.get(method, {})


@every_method
def test_unknown_options_and_values_out_of_range_are_refused(method):
    card = METHOD_CARDS[method]
    with pytest.raises(UnknownNameError, match=f"{card.title} has no option 'speed'; it has "):
        run(method, "mlp", options={"speed": 1})
    for field in dataclasses.fields(card.options):
        assert field.metadata["label"]
        if "choices" in field.metadata:
            with pytest.raises(UnknownNameError, match="expected one of"):
                run(method, "mlp", options={field.name: "other"})
            continue
        for value in (
            field.metadata["min"] - 1, field.metadata["max"] + 1, math.nan, "3", None
        ):  # fmt: skip
            with pytest.raises(UnknownNameError, match=f"option '{field.name}': got .*, expected"):
                run(method, "mlp", options={field.name: value})


@pytest.mark.parametrize(
    ("method", "option"), [("weight", "restarts"), ("straight_through", "epochs")]
)
def test_a_fraction_is_refused_where_a_whole_number_is_needed(method, option):
    with pytest.raises(UnknownNameError, match=f"option '{option}': got 2.5"):
        run(method, "mlp", options={option: 2.5})


def test_an_unknown_method_is_refused_and_the_choices_are_named():
    with pytest.raises(
        UnknownNameError, match="unknown matching method 'best'; choose from weight"
    ):
        run("best", "mlp")


@every_method
def test_methods_that_need_examples_say_so(method):
    model, a, b, spec, _ = models("mlp")
    empty = Batches(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    for batches in (None, [], empty, [(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))]):
        if not METHOD_CARDS[method].needs_data:
            match(method, model, a, b, spec=spec, batches=batches)
            continue
        with pytest.raises(DataError, match="none were given; give batches"):
            match(method, model, a, b, spec=spec, batches=batches)


@every_method
def test_an_empty_first_batch_does_no_harm(method):
    model, a, b, spec, batches = models("mlp")
    nothing = (batches.inputs[:0], batches.targets[:0])
    plain = match(method, model, a, b, spec=spec, batches=batches, options=QUICK.get(method))
    found = match(
        method, model, a, b, spec=spec, batches=[nothing, *batches], options=QUICK.get(method)
    )
    assert all(torch.equal(found.permutations[g], plain.permutations[g]) for g in spec.sizes)


@every_method
def test_batches_may_be_any_iterable_that_can_be_read_again(method):
    model, a, b, spec, batches = models("mlp")
    listed = match(method, model, a, b, spec=spec, batches=list(batches), options=QUICK.get(method))
    found = match(method, model, a, b, spec=spec, batches=batches, options=QUICK.get(method))
    assert all(torch.equal(found.permutations[g], listed.permutations[g]) for g in spec.sizes)


@every_method
def test_a_model_without_groups_is_matched_with_nothing(method):
    model = torch.nn.Linear(6, 3).eval()
    spec = find_symmetry(model, (torch.randn(2, 6),))
    batches = synthetic_batches("mlp")
    found = match(
        method, model, random_state(model, 0), random_state(model, 1), spec=spec, batches=batches,
        options=QUICK.get(method),
    )  # fmt: skip
    assert found.permutations == {}


@every_method
def test_parameters_that_require_gradients_are_matched_like_others(method):
    model, a, b, spec, batches = models("mlp")
    plain = match(method, model, a, b, spec=spec, batches=batches, options=QUICK.get(method))
    leaves = [{n: v.clone().requires_grad_() for n, v in p.items()} for p in (a, b)]
    found = match(method, model, *leaves, spec=spec, batches=batches, options=QUICK.get(method))
    assert all(torch.equal(found.permutations[g], plain.permutations[g]) for g in spec.sizes)


@every_method
def test_models_in_another_precision_than_the_architecture_are_matched(method):
    model, a, b, spec, batches = models("mlp")
    wide = [{n: v.double() for n, v in p.items()} for p in (a, b)]
    examples = Batches(batches.inputs.double(), batches.targets, 10)
    found = match(method, model, *wide, spec=spec, batches=examples, options=QUICK.get(method))
    check_permutations(spec, found.permutations)


@every_method
def test_weights_that_are_not_finite_are_refused_in_the_user_s_terms(method):
    model, a, b, spec, batches = models("mlp")
    broken = {**b, "layers.0.weight": torch.full_like(b["layers.0.weight"], math.nan)}
    with pytest.raises(MergingError, match="finite"):
        match(method, model, a, broken, spec=spec, batches=batches, options=QUICK.get(method))


def test_the_table_of_methods_and_the_table_of_cards_are_one():
    assert list(METHODS) == list(METHOD_CARDS)
    for name, method in METHODS.items():
        assert method.name == name
        assert method.card is METHOD_CARDS[name]
        method.options()
        assert method.card.title
        assert method.card.about.endswith(".")
        assert method.card.reference


def test_the_identity_is_where_matching_starts():
    model, a, b, spec, batches = models("mlp")
    found = match("weight", model, a, b, spec=spec, batches=batches)
    start = identity_permutations(spec)
    moved = permute(spec, start, b)
    names = [n for n, v in a.items() if any(e.groups for e in spec.axes[n])]
    expected = sum(float((a[n].double() * moved[n].double()).sum()) for n in names)
    assert found.objective[0] == pytest.approx(expected)
