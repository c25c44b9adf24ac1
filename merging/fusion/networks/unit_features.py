"""What the hidden units of several models do on the same examples: their second moments, streamed.

As in activation matching, values are read where the next layer reads them, and positions of maps
and examples all count as samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from merging.files.data.batches import BatchesLike
from merging.matching.search.activation_moments import Site, activation_sites, joint_units
from merging.schema.errors import DataError
from merging.schema.progress import Progress, ignore
from merging.symmetry import Derivation
from merging.symmetry.spec import PermutationSpec

# Examples that pass the models at a time.
_CHUNK = 100
# Deviations below this share of a unit's root mean square count as none: the unit is constant.
_CONSTANT = 1e-6


@dataclass(frozen=True, eq=False)
class ExaminedModel:
    """A model to be looked at.

    Attributes:
        model: The architecture.
        spec: Its permutation spec.
        params: Its state dict.
    """

    model: nn.Module
    spec: PermutationSpec
    params: Mapping[str, Tensor]


@dataclass(eq=False)
class JointMoments:
    """Sums over samples of the units of all models, side by side, float64.

    Attributes:
        samples: How many samples.
        total: `[units of all models]`.
        products: `[units of all models, the same]`.
    """

    samples: int
    total: Tensor
    products: Tensor

    def correlation(self) -> Tensor:
        """Return the Pearson correlation of every two units.

        Two units that are constant and equal count as the same, 1; constant ones are else like no
        other, 0.
        """
        mean = self.total / self.samples
        square = self.products.diagonal() / self.samples
        deviation = (square - mean**2).clamp_min(0).sqrt()
        alive = deviation > _CONSTANT * square.sqrt()
        inverse = torch.where(alive, 1 / deviation.where(alive, torch.ones(())), 0.0)
        found = (self.products / self.samples - mean[:, None] * mean) * inverse[:, None] * inverse
        still = ~alive[:, None] & ~alive
        near = (mean[:, None] - mean).abs() <= _CONSTANT * (1 + mean.abs())
        return torch.where(still & near, 1.0, found.clamp(-1, 1))

    def squared_distances(self) -> Tensor:
        """Return the mean squared difference of every two units."""
        square = self.products.diagonal() / self.samples
        found = square[:, None] + square - 2 * self.products / self.samples
        return found.clamp_min(0)


def find_derivation(subject: ExaminedModel, batches: BatchesLike) -> tuple[Derivation, list[Site]]:
    """Return the graph of a model, and where its units are read.

    Args:
        subject: The model.
        batches: Examples, for their shapes.

    Returns:
        The derivation and the sites.

    Raises:
        DataError: If there are no examples.
        SymmetryError: If a group of the spec is not among those of the graph.
    """
    for x, _ in batches:
        if len(x):
            return activation_sites(subject.model, subject.spec, (x[:2],))
    raise DataError("units are compared on examples, and none were given; give training batches")


def stream_features(
    subjects: Sequence[ExaminedModel], batches: BatchesLike, on_progress: Progress | None = None
) -> dict[str, list[JointMoments]]:
    """Run all models over the examples, and add up the moments of their units.

    Args:
        subjects: Models whose graphs differ at most in widths.
        batches: The examples.
        on_progress: Called after every batch; may raise `StoppedError`.

    Returns:
        For every group, its moments at all places where it is read by itself; units of all
        models side by side, in the order of the models.

    Raises:
        DataError: If there are no examples.
        SymmetryError: If a group of a spec is not among those of its graph.
        StoppedError: If `on_progress` raises it.
    """
    tell = on_progress or ignore
    read = [find_derivation(subject, batches) for subject in subjects]
    moments: dict[tuple[str, int], JointMoments] = {}
    total = sum(len(x) for x, _ in batches)
    done = 0
    for inputs, _ in batches:
        for x in inputs.split(_CHUNK):
            seen = [_values(*r, s.params, x) for r, s in zip(read, subjects, strict=True)]
            for key in seen[0]:
                if all(key in values for values in seen):
                    _add(moments, key, torch.cat([values[key] for values in seen], 1))
        done += len(inputs)
        tell(done, total, f"{done} of {total} examples")
    found: dict[str, list[JointMoments]] = {}
    for (group, _), sums in moments.items():
        found.setdefault(group, []).append(sums)
    return found


def _values(
    derivation: Derivation, sites: Sequence[Site], params: Mapping[str, Tensor], x: Tensor
) -> dict[tuple[str, int], Tensor]:
    """Return the values of every group's units, `[samples, units]`, at each of its places."""
    wanted = {site.node for site in sites}
    kept: dict[fx.Node, Tensor] = {}

    def keep(node: fx.Node, value: Tensor) -> Tensor:
        if node in wanted:
            kept[node] = value
        return value

    with torch.no_grad():
        derivation.graph.run(params, (x,), visit=keep)
    found: dict[tuple[str, int], Tensor] = {}
    for site in sites:
        for atoms, units in joint_units(kept[site.node], site.expressions):
            if len(atoms) == 1:
                group = str(atoms[0].group)
                place = sum(name == group for name, _ in found)
                found[group, place] = units.double()
    return found


def _add(moments: dict[tuple[str, int], JointMoments], key: tuple[str, int], units: Tensor) -> None:
    if key not in moments:
        moments[key] = JointMoments(len(units), units.sum(0), units.T @ units)
        return
    kept = moments[key]
    kept.samples += len(units)
    kept.total += units.sum(0)
    kept.products += units.T @ units
