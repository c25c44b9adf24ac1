"""Robust rules with a model of NaN or infinity, in every position."""

from __future__ import annotations

import pytest
import torch

from merging.files.checkpoints.write import write_checkpoint
from merging.fusion import fuse, fuse_files, fuse_with_notes
from merging.schema.errors import MergingError

RULES = {
    "krum": {},
    "coordinate_median": {},
    "trimmed_mean": {"trim": 0.25},
}
COUNT = 5


def honest(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": 1 + 0.1 * torch.randn(4, 3, generator=generator),
        "b": torch.randn(4, generator=generator),
        "n.running_var": 1 + torch.rand(4, generator=generator),
    }


HONEST = [honest(k) for k in range(COUNT)]
HOSTILE = {
    "NaN": lambda v: torch.full_like(v, torch.nan),
    "infinity": lambda v: torch.full_like(v, torch.inf),
    "minus infinity": lambda v: torch.full_like(v, -torch.inf),
    "one NaN": lambda v: v.flatten().index_fill(0, torch.tensor(0), torch.nan).view_as(v),
    "both infinities": lambda v: v.sign() * torch.inf,
    "too large to be squared": lambda v: torch.full_like(v, 1e30),
}


def with_hostile(kind, place, names=("w", "b", "n.running_var")):
    models = list(HONEST)
    models[place] = models[place] | {n: HOSTILE[kind](models[place][n]) for n in names}
    return models


@pytest.mark.parametrize("place", range(COUNT))
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("rule", RULES)
def test_withstands_one_hostile_model_wherever_it_stands(rule, kind, place):
    models = with_hostile(kind, place, ("w", "b"))
    found = fuse_with_notes(rule, models=models, options=RULES[rule])
    lows, highs = (
        {n: f(torch.stack([m[n] for k, m in enumerate(models) if k != place]), 0).values
         for n in ("w", "b")}
        for f in (torch.min, torch.max)
    )  # fmt: skip
    for name in ("w", "b"):
        assert bool((found.params[name] >= lows[name]).all())
        assert bool((found.params[name] <= highs[name]).all())
    assert "warning" not in found.notes
    if rule == "krum":
        assert place not in found.notes["kept"]


@pytest.mark.parametrize("place", range(COUNT))
@pytest.mark.parametrize("kind", ["NaN", "infinity", "minus infinity", "one NaN"])
@pytest.mark.parametrize("rule", RULES)
def test_running_statistics_that_are_no_numbers_are_left_out(rule, kind, place):
    models = with_hostile(kind, place, ("n.running_var",))
    found = fuse(rule, models=models, options=RULES[rule])
    assert bool(found["n.running_var"].isfinite().all())
    sound = torch.stack([m["n.running_var"] for k, m in enumerate(models) if k != place])
    if rule != "krum":
        torch.testing.assert_close(found["n.running_var"], sound.mean(0))


@pytest.mark.parametrize("place", range(COUNT))
def test_multi_krum_averages_honest_models_alone(place):
    found = fuse_with_notes("krum", models=with_hostile("NaN", place), options={"kept": 3})
    assert place not in found.notes["kept"]
    assert all(bool(value.isfinite().all()) for value in found.params.values())


@pytest.mark.parametrize("bad", [(0, 1, 2), (0, 2, 4), (0, 1, 2, 3, 4)])
def test_krum_refuses_where_too_many_are_hostile(bad):
    models = [with_hostile("NaN", k)[k] if k in bad else HONEST[k] for k in range(COUNT)]
    with pytest.raises(MergingError, match="too many hold NaN or infinity"):
        fuse("krum", models=models)


def test_krum_refuses_to_keep_more_than_are_honest():
    with pytest.raises(MergingError, match=r"cannot keep 5 of 5 models: too many hold NaN"):
        fuse("krum", models=with_hostile("NaN", 1), options={"kept": 5, "faulty": 0})


@pytest.mark.parametrize(
    ("rule", "options"), [("average", {}), ("trimmed_mean", {"trim": 0.1}), ("swa", {})]
)
def test_what_cannot_withstand_says_so(rule, options, tmp_path):
    models = with_hostile("NaN", 0)
    found = fuse_with_notes(rule, models=models, options=options)
    assert "entries of the result are NaN or infinite, the first in 'w'" in found.notes["warning"]
    for k, model in enumerate(models):
        write_checkpoint(tmp_path / f"{k}.safetensors", model)
    paths = [tmp_path / f"{k}.safetensors" for k in range(COUNT)]
    done = fuse_files(rule, paths, tmp_path / "merged", options=options)
    assert done.notes["warning"] in (tmp_path / "merged" / "README.md").read_text()
