"""Several models whose orders of units are sought together, and the ascent of MergeMany.

All measure one thing, the sum of inner products of all pairs in their present orders:

    J = sum over i < j of <pi_i(theta_i), pi_j(theta_j)>,

and so, since orders keep lengths, how close all models are to their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.matching.problem import MatchProblem
from merging.matching.search.coordinate_descent import descend
from merging.matching.search.weight_similarity import WeightSimilarity
from merging.models.state_dict import check_same_architecture, combine, dot, norm
from merging.schema.errors import ArchitectureMismatchError, MergingError
from merging.symmetry.permutation import Permutations, identity_permutations, permute
from merging.symmetry.spec import PermutationSpec

# What an inner product may lose by rounding: smaller gains are not gains.
LEAST_GAIN = 1e-12


@dataclass(frozen=True)
class Reached:
    """How far the search has come.

    Attributes:
        objective: J.
        share: Share of the work that is done, at the least.
        note: The same in words.
        orders: Gives one permutation per group and model.
        converged: Whether nothing is left to improve.
    """

    objective: float
    share: float
    note: str
    orders: Callable[[], list[Permutations]]
    converged: bool = False


class WideModels:
    """Models of one architecture, in float64.

    Args:
        spec: The permutation spec.
        model: The architecture.
        states: Their state dicts.

    Raises:
        ArchitectureMismatchError: If they do not fit; the model and the tensor are named.
        SymmetryError: If the spec does not fit them.
        MergingError: If there are none, or a weight is NaN or infinite.
    """

    def __init__(
        self, spec: PermutationSpec, model: nn.Module, states: Sequence[Mapping[str, Tensor]]
    ) -> None:
        _check(spec, states)
        self.spec, self.model = spec, model
        self.states = [
            {
                name: _wide(value) if value.is_floating_point() else value
                for name, value in s.items()
            }
            for s in states
        ]
        self.names = MatchProblem(
            model=model, spec=spec, params_a=self.states[0], params_b=self.states[0]
        ).weights
        self.start = identity_permutations(spec)

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self.states)

    def in_order(self, orders: Sequence[Permutations]) -> list[Params]:
        """Return all models with their units in these orders."""
        pairs = zip(orders, self.states, strict=True)
        return [permute(self.spec, perms, state) for perms, state in pairs]

    def objective(self, moved: Sequence[Mapping[str, Tensor]]) -> float:
        """Return J of models that are in their orders, over the weights that are compared."""
        compared = [{name: state[name] for name in self.names} for state in moved]
        total = combine(compared, [1.0] * len(compared))
        return 0.5 * (dot(total, total) - sum(dot(state, state) for state in compared))


def rise(
    models: WideModels,
    orders: Sequence[Permutations],
    generator: torch.Generator,
    *,
    max_rounds: int,
    max_sweeps: int,
) -> Iterator[Reached]:
    """Match every model to the mean of the others until nothing improves.

    MergeMany (Ainsworth et al. 2023, Algorithm 3), from any orders. A model's distance to the mean
    of the others falls exactly when their inner product rises, and J rises with it, so the search
    ends.

    Args:
        models: The models.
        orders: Where to start; left as they are.
        generator: Source of the orders of models and groups.
        max_rounds: Rounds over all models at most.
        max_sweeps: Sweeps over the groups at most, per model and round.

    Yields:
        What is reached, after every model.
    """
    now = list(orders)
    moved = models.in_order(now)
    best = models.objective(moved)
    count = len(models)
    for k in range(max_rounds):
        changed = False
        for done, j in enumerate(torch.randperm(count, generator=generator).tolist()):
            others = [state for i, state in enumerate(moved) if i != j]
            if not others:
                break
            mean = combine(others, [1 / len(others)] * len(others))
            similarity = WeightSimilarity(models.spec, mean, models.states[j], models.names)
            found = descend(similarity, now[j], generator, max_sweeps=max_sweeps)
            least = LEAST_GAIN * norm(similarity.params_a) * norm(similarity.params_b)
            if found.objective[-1] - found.objective[0] > least:
                changed = True
                now[j] = found.permutations
                moved[j] = permute(models.spec, now[j], models.states[j])
                best = models.objective(moved)
            share = (k + (done + 1) / count) / max_rounds
            yield Reached(
                objective=best,
                share=share,
                note=f"round {k + 1}: inner products {best:.5g}",
                orders=now.copy,
            )
        if not changed:
            yield Reached(
                objective=best,
                share=1.0,
                note="nothing left to improve",
                orders=now.copy,
                converged=True,
            )
            return


def _check(spec: PermutationSpec, states: Sequence[Mapping[str, Tensor]]) -> None:
    if not states:
        raise MergingError("there are no models to align; give two or more state dicts")
    spec.check(states[0])
    for k, state in enumerate(states):
        try:
            check_same_architecture(states[0], state, dtype=False)
        except ArchitectureMismatchError as error:
            raise ArchitectureMismatchError(
                f"model {k + 1} (B) does not fit model 1 (A): {error}"
            ) from None
        for name, value in state.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise MergingError(
                    f"model {k + 1} has NaN or infinite values in {name!r}; weights must be finite "
                    "to be matched. Load a sound checkpoint"
                )


def _wide(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float64)
