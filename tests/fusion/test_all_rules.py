"""What every fusion rule promises."""

from __future__ import annotations

import inspect
import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import merging
from merging.files.checkpoints.read import open_checkpoint
from merging.fusion import RULES, fuse
from merging.schema.cards.fusion.table import RULE_CARDS, find_card, read_rule_options
from merging.schema.errors import MergingError, StoppedError, UnknownNameError
from tests.fusion.given import (
    BASE,
    FISHERS,
    GRAMS,
    MODELS,
    STATISTICS,
    assert_equal,
    count,
    fused,
    state,
)

NAMES = list(RULES)
# Rules that take the steps from the base apart or add them up, so that three equal models are not
# that model again.
STEPS = {"wise_ft", "task_arithmetic", "dare", "ties", "gradient_matching", "remove_task"}
NEEDS = {
    "needs_base": ("base", "needs the base"),
    "needs_fishers": ("fishers", "needs `fishers`"),
    "needs_base_fisher": ("base_fisher", "needs `base_fisher`"),
    "needs_grams": ("grams", "needs `grams`"),
    "needs_sizes": ("sizes", "needs `sizes`"),
    "needs_data": ("batches", "needs validation examples"),
}
UNMET = [
    (rule, *NEEDS[need]) for rule in NAMES for need in NEEDS if getattr(RULES[rule].card, need)
]


def test_every_card_has_its_rule_and_the_order_of_both_is_one():
    assert list(RULES) == [card.name for card in RULE_CARDS.values() if not card.on_networks]
    assert all(RULES[name].card is RULE_CARDS[name] for name in NAMES)


@pytest.mark.parametrize("rule", NAMES)
def test_every_option_has_a_label_and_what_it_may_be(rule):
    card = find_card(rule)
    defaults = read_rule_options(card, None)
    for name, option in card.options.__dataclass_fields__.items():
        assert option.metadata["label"]
        assert "choices" in option.metadata or {"min", "max"} <= set(option.metadata)
        assert read_rule_options(card, {name: getattr(defaults, name)}) == defaults


@pytest.mark.parametrize("rule", NAMES)
def test_it_has_its_paragraph(rule):
    root = Path(__file__).resolve().parents[2]
    headings = re.findall(
        r"^## (.*) \(`(\w+)`\)$", (root / "docs/fusion-rules.md").read_text("utf-8"), re.M
    )
    assert (RULES[rule].card.title, rule) in headings
    assert len(headings) == len(RULES)


@pytest.mark.parametrize("rule", NAMES)
def test_inputs_stay_and_the_result_shares_no_memory_with_them(rule):
    given = (BASE, *MODELS, *FISHERS)
    before = [{k: v.clone() for k, v in s.items()} for s in given]
    result = fused(rule).params
    for now, then in zip(given, before, strict=True):
        assert all(torch.equal(now[k], then[k]) for k in now)
    places = {v.data_ptr() for s in given for v in s.values()}
    assert not places & {v.data_ptr() for v in result.values()}


@pytest.mark.parametrize("rule", NAMES)
def test_names_shapes_and_counters_are_kept(rule):
    result = fused(rule).params
    assert list(result) == list(MODELS[0])
    assert all(result[k].shape == v.shape for k, v in MODELS[0].items())
    assert int(result["norm.num_batches_tracked"]) in {1, 2, 3}
    assert result["norm.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types_are_kept(rule, dtype):
    models = [state(k + 1, dtype) for k in range(count(rule))]
    changes = {"base": state(0, dtype)} if RULES[rule].card.needs_base else {}
    result = fused(rule, models, **changes).params
    for name, value in models[0].items():
        assert result[name].dtype == value.dtype
        assert result[name].isfinite().all()


@pytest.mark.parametrize("rule", NAMES)
def test_files_are_read_as_they_are_needed(rule, tmp_path):
    states = [state(k, torch.float32) for k in range(count(rule) + 1)]
    paths = [tmp_path / f"{k}.safetensors" for k in range(len(states))]
    for path, params in zip(paths, states, strict=True):
        merging.write_checkpoint(path, params)
    needs_base = RULES[rule].card.needs_base
    with ExitStack() as files:
        base, *opened = (files.enter_context(open_checkpoint(path)) for path in paths)
        found = fused(rule, opened, **({"base": base} if needs_base else {})).params
    expected = fused(rule, states[1:], **({"base": states[0]} if needs_base else {})).params
    assert_equal(found, expected, 1e-6)


@pytest.mark.parametrize("rule", NAMES)
def test_equal_models_are_that_model(rule):
    n = count(rule)
    changes = {}
    if rule in STEPS:  # one step in all, or the model and the base are one
        changes = {"base": MODELS[0]}
    result = fused(rule, [MODELS[0]] * n, **changes).params
    assert_equal(result, MODELS[0], 1e-9)


@pytest.mark.parametrize("rule", NAMES)
def test_the_same_seed_gives_the_same_result(rule):
    one, same = fused(rule), fused(rule)
    assert all(torch.equal(one.params[k], same.params[k]) for k in one.params)
    assert one.notes == same.notes


@pytest.mark.parametrize("rule", NAMES)
def test_notes_are_plain_values(rule):
    assert json.loads(json.dumps(dict(fused(rule).notes))) == fused(rule).notes


@pytest.mark.parametrize(
    "rule", [n for n in NAMES if n not in ("slerp", "dare", "swa", "ema", "lawa", "krum")]
)
def test_the_order_of_the_models_does_not_count(rule):
    card, changes = RULES[rule].card, {}
    for need, name in (("needs_fishers", "fishers"), ("needs_grams", "grams")):
        if getattr(card, need):
            changes[name] = {"fishers": FISHERS, "grams": GRAMS}[name][::-1]
    if card.needs_sizes:
        changes["sizes"] = [30, 20, 10]
    tolerance = 1e-5 if card.needs_data else 1e-12
    assert_equal(fused(rule, MODELS[::-1], **changes).params, fused(rule).params, tolerance)


@pytest.mark.parametrize("rule", NAMES)
def test_statistics_follow_the_named_policy(rule):
    rule_free = {p: fused(rule, buffers=p) for p in ("mean", "first", "rule")}
    n = count(rule)
    own = [m for m, w in zip(MODELS[:n], _shares(rule, n), strict=True) if w]
    assert_equal(rule_free["first"].params, own[0], names=STATISTICS)
    mean = {
        k: sum(w * m[k] for w, m in zip(_shares(rule, n), MODELS[:n], strict=True))
        for k in STATISTICS
    }
    assert_equal(rule_free["mean"].params, mean, 1e-6)
    for name in ("fc.weight", "fc.bias"):
        assert torch.equal(rule_free["mean"].params[name], rule_free["rule"].params[name])


def _shares(rule: str, n: int) -> list[float]:
    notes = fused(rule).notes
    weights = notes.get("shares") or notes.get("coefficients") or [1.0] * n
    if "kept" in notes:
        weights = [float(k in notes["kept"]) for k in range(n)]
    if rule == "ema":
        weights = [0.81, 0.9, 1.0]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize(("rule", "what", "message"), UNMET)
def test_what_is_missing_is_named(rule, what, message):
    with pytest.raises(MergingError, match=message):
        fused(rule, **{what: None})


@pytest.mark.parametrize("rule", [n for n in NAMES if RULES[n].card.needs_data])
def test_a_soup_without_the_architecture_says_so(rule):
    with pytest.raises(MergingError, match="needs the architecture"):
        fused(rule, model=None)


@pytest.mark.parametrize("rule", NAMES)
def test_the_number_of_models_is_checked(rule):
    card = RULES[rule].card
    if card.most_models:
        with pytest.raises(MergingError, match=f"takes {card.most_models} models at most"):
            fused(rule, MODELS[: card.most_models + 1])
    if card.least_models > 1:
        with pytest.raises(MergingError, match=f"takes {card.least_models} models or more"):
            fused(rule, MODELS[: card.least_models - 1])
    else:
        assert set(fused(rule, MODELS[:1]).params) == set(MODELS[0])


@pytest.mark.parametrize("rule", [n for n in NAMES if RULES[n].card.weights == "none"])
def test_a_rule_that_finds_its_weights_takes_no_others(rule):
    fused(rule, weights=[2.0] * count(rule))
    with pytest.raises(MergingError, match="finds its weights by itself"):
        fused(rule, weights=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("rule", NAMES)
def test_progress_rises_to_its_end_and_a_stop_is_heeded(rule):
    told = []
    fused(rule, on_progress=lambda done, total, note: told.append((done, total, note)))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total, _ in told}) == 1
    assert set(MODELS[0]) <= {note for _, _, note in told}
    for k in range(0, len(told), 3):
        heard = iter(range(k + 1))

        def stop(*_: object, heard=heard) -> None:
            if next(heard) == k:  # noqa: B023 (called before k changes)
                raise StoppedError("stopped")

        with pytest.raises(StoppedError, match="stopped"):
            fused(rule, on_progress=stop)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": []}, "no models"),
        ({"weights": [1.0]}, "2 models have 1 weights"),
        ({"weights": [1.0, -1.0]}, "add up to 0"),
        ({"weights": [1.0, float("nan")]}, "weights must be finite numbers"),
        ({"fishers": FISHERS[:1]}, "2 models have 1 fishers"),
        ({"sizes": [1]}, "2 models have 1 sizes"),
        ({"models": [MODELS[0], {"w": torch.zeros(1)}]}, "different tensors"),
        (
            {"models": [MODELS[0], {**MODELS[1], "fc.bias": torch.zeros(7)}]},
            r"'fc.bias' is \[3\] in model 1 and \[7\]",
        ),
    ],
)
def test_what_does_not_fit_is_said(changes, message):
    with pytest.raises(MergingError, match=message):
        fuse("average", **{"models": MODELS[:2], **changes})


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        ("sum", {}, "unknown rule 'sum'; choose from average"),
        ("ties", {"options": {"k": 1}}, "it has density, scale"),
        ("ties", {"options": {"density": 0}}, "got 0, expected a number from 1e-06 to 1"),
        ("dare", {"options": {"then": "sum"}}, "expected one of 'task arithmetic', 'TIES'"),
        ("average", {"buffers": "sum"}, "unknown policy for buffers 'sum'; choose from rule"),
    ],
)
def test_unknown_names_are_told(rule, changes, message):
    with pytest.raises(UnknownNameError, match=message):
        fuse(rule, models=MODELS[:2], base=BASE, **changes)


@pytest.mark.parametrize(
    "card", [card for card in RULE_CARDS.values() if card.on_networks], ids=lambda card: card.name
)
def test_what_works_on_whole_networks_is_refused_with_the_function_to_call(card, tmp_path):
    title, function = re.escape(card.title), f"merging.fusion.{card.function}"
    assert callable(getattr(merging.fusion, card.function))
    message = f"{title} works on whole networks, .*; call {function} with"
    with pytest.raises(MergingError, match=message):
        fuse(card.name, models=MODELS[:2])
    merging.write_checkpoint(tmp_path / "a.safetensors", MODELS[0])
    with pytest.raises(MergingError, match=message):
        merging.fuse_files(card.name, [tmp_path / "a.safetensors"] * 2, tmp_path / "out")


def test_fuse_has_the_signature_of_fuse_with_notes_but_for_what_it_returns():
    short, long = inspect.signature(fuse), inspect.signature(merging.fuse_with_notes)
    assert short.parameters == long.parameters
    assert (short.return_annotation, long.return_annotation) == ("Params", "Fused")


@pytest.mark.parametrize(
    ("fisher", "message"),
    [
        ({"fc.weight": FISHERS[0]["fc.weight"]}, "curvature of model 2 has no 'fc.bias'"),
        ({k: -v for k, v in FISHERS[0].items()}, "'fc.weight' of model 2 has negative entries"),
        ({k: v[None] for k, v in FISHERS[0].items()}, r"model 2 is \[1, 3, 4\], and the tensor"),
    ],
)
def test_bad_curvature_is_named(fisher, message):
    with pytest.raises(MergingError, match=message):
        fused("fisher", MODELS[:2], fishers=[FISHERS[0], fisher])
