"""What hidden units do on examples: second moments of A's and B's units, streamed in one pass.

Values are read where the next layer reads them (after the nonlinearity or the norm). Positions of
maps, tokens and examples all count as samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from merging.files.data.batches import BatchesLike
from merging.models.graph.operators import operator_name
from merging.schema.cards.matching import Similarity
from merging.schema.errors import SymmetryError
from merging.schema.progress import Progress
from merging.symmetry import Derivation, derive
from merging.symmetry.reorder import cut_cells
from merging.symmetry.spec import AxisExpression, PermutationSpec

# Deviations below this share of a unit's root mean square count as none: the unit is dead.
_DEAD = 1e-6
# Examples whose activations are held at one time, at all sites of both models.
_CHUNK = 40
# Operators whose inputs are what "the next layer reads".
_READERS = (
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "matmul",
    "bmm",
    "mm",
    "addmm",
    "scaled_dot_product_attention",
)


@dataclass(frozen=True)
class Site:
    """A value of the graph that carries permutation groups.

    Attributes:
        node: The node of the graph.
        expressions: What its axes run over.
    """

    node: fx.Node
    expressions: tuple[AxisExpression, ...]


@dataclass(eq=False)
class SiteMoments:
    """Sums over samples for the joint units of some groups at one site, in float64.

    `groups` are the factors of the joint units, row-major; most sites have one. What they are
    nested in is among them, also where it keeps its order.
    """

    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    samples: int
    a: Tensor
    b: Tensor
    aa: Tensor
    bb: Tensor
    ab: Tensor

    def similarity(self, kind: Similarity) -> Tensor:
        """Return the mean product, or Pearson correlation, of A's units (rows) with B's (columns).

        A dead unit, which says the same on all samples, correlates with nothing: 0.
        """
        if kind == "inner product":
            return self.ab / self.samples
        mean_a, mean_b = self.a / self.samples, self.b / self.samples
        covariance = self.ab / self.samples - mean_a[:, None] * mean_b[None, :]
        inverse_a = _inverse_deviation(self.aa / self.samples, mean_a)
        inverse_b = _inverse_deviation(self.bb / self.samples, mean_b)
        return covariance * inverse_a[:, None] * inverse_b[None, :]


def _inverse_deviation(mean_square: Tensor, mean: Tensor) -> Tensor:
    deviation = (mean_square - mean**2).clamp_min(0).sqrt()
    alive = deviation > _DEAD * mean_square.sqrt()
    return torch.where(alive, 1 / deviation.where(alive, torch.ones(())), 0.0)


def activation_sites(
    model: nn.Module, spec: PermutationSpec, example_inputs: Sequence[Tensor]
) -> tuple[Derivation, list[Site]]:
    """Find the values of the graph at which the units of a spec can be compared.

    Args:
        model: The architecture.
        spec: The permutation spec; a hand-written one is recognised by the places of its groups.
        example_inputs: Inputs of the right shapes.

    Returns:
        The derivation and the sites; every group occurs at one of them at least.

    Raises:
        SymmetryError: If a group of the spec is not among the groups of the model's graph.
    """
    derivation = derive(model, example_inputs)
    rename = _rename(derivation.spec, spec)
    values = {
        node: tuple(_renamed(e, rename, spec) for e in expressions)
        for node, expressions in derivation.values.items()
    }
    read: dict[fx.Node, None] = {}
    for step in derivation.graph.steps:
        if operator_name(step.node) in _READERS:
            read.update(dict.fromkeys(n for n in step.node.all_input_nodes if n in values))
    sites = [Site(node, values[node]) for node in read if _comparable(values[node])]
    missing = set(spec.sizes) - {g for site in sites for g in _comparable(site.expressions)}
    for node in reversed(values):
        found = missing & _comparable(values[node])
        if found:
            sites.append(Site(node, values[node]))
            missing -= found
    if missing:
        raise SymmetryError(
            f"no activation of the model carries {', '.join(sorted(missing))}; "
            "use weight matching for this permutation spec"
        )
    return derivation, sites


def stream_moments(
    derivation: Derivation,
    sites: Sequence[Site],
    models: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    batches: BatchesLike,
    on_progress: Progress,
    total: int,
) -> Iterator[list[SiteMoments]]:
    """Run both models over the examples once and add up the moments at every site.

    Args:
        derivation: The model's graph.
        sites: Where to read.
        models: State dicts of A and B, their units in their own order.
        batches: The examples.
        on_progress: Called after every batch; may raise `StoppedError`.
        total: Number of examples, for the progress.

    Yields:
        After every batch: one record per site and piece of a concatenation, the same records
        each time.
    """
    moments: dict[tuple[int, int], SiteMoments] = {}
    done = 0
    for inputs, _ in batches:
        for x in inputs.split(_CHUNK):
            values_a = _values(derivation, sites, models[0], x)
            values_b = _values(derivation, sites, models[1], x)
            for k, site in enumerate(sites):
                pieces = zip(
                    joint_units(values_a[site.node], site.expressions),
                    joint_units(values_b[site.node], site.expressions),
                    strict=True,
                )
                for j, ((atoms, a), (_, b)) in enumerate(pieces):
                    _add(moments, (k, j), atoms, a.double(), b.double())
            done += len(x)
            yield list(moments.values())
            on_progress(done, total, f"{done} of {total} examples")


def joint_units(
    value: Tensor, expressions: tuple[AxisExpression, ...]
) -> Iterator[tuple[tuple[AxisExpression, ...], Tensor]]:
    """Cut a value into `[samples, units]`, one matrix per combination of pieces.

    Args:
        value: A value of the graph.
        expressions: What its axes run over.

    Yields:
        The atoms whose row-major product the units are, and the matrix. Pieces without a group
        are left out, and so are those with one group on two axes.
    """
    for cell, part in cut_cells(value, expressions):
        dims = [k for k, (_, atom) in enumerate(cell) if atom.name is not None]
        atoms = tuple(cell[k][1] for k in dims)
        names = [atom.name for atom in atoms]
        if any(atom.group for atom in atoms) and len(set(names)) == len(names):
            last = part.movedim(dims, list(range(-len(dims), 0)))
            yield atoms, last.flatten(-len(dims)).reshape(-1, _product(atoms))


def _product(atoms: tuple[AxisExpression, ...]) -> int:
    size = 1
    for atom in atoms:
        size *= atom.size
    return size


def _add(
    moments: dict[tuple[int, int], SiteMoments],
    key: tuple[int, int],
    atoms: tuple[AxisExpression, ...],
    a: Tensor,
    b: Tensor,
) -> None:
    sums = (a.sum(0), b.sum(0), (a**2).sum(0), (b**2).sum(0), a.T @ b)
    if key not in moments:
        groups = tuple(str(atom.name) for atom in atoms)
        moments[key] = SiteMoments(groups, tuple(atom.size for atom in atoms), len(a), *sums)
        return
    kept = moments[key]
    kept.samples += len(a)
    for total, new in zip((kept.a, kept.b, kept.aa, kept.bb, kept.ab), sums, strict=True):
        total += new


def _values(
    derivation: Derivation, sites: Sequence[Site], params: Mapping[str, Tensor], x: Tensor
) -> dict[fx.Node, Tensor]:
    wanted = {site.node for site in sites}
    found: dict[fx.Node, Tensor] = {}

    def keep(node: fx.Node, value: Tensor) -> Tensor:
        if node in wanted:
            found[node] = value
        return value

    with torch.no_grad():
        derivation.graph.run(params, (x,), visit=keep)
    return found


def _rename(derived: PermutationSpec, spec: PermutationSpec) -> dict[str, str]:
    """Return the spec's names of the derived groups that it has, told by their places."""
    places = {frozenset(found): group for group, found in spec.places().items()}
    own = spec.places()
    return {
        group: group if group in own else places[frozenset(found)]
        for group, found in derived.places().items()
        if group in own or frozenset(found) in places
    }


def _renamed(
    expression: AxisExpression, rename: Mapping[str, str], spec: PermutationSpec
) -> AxisExpression:
    """Return the expression with the spec's names of groups, and of what these are nested in."""
    parts = tuple(_renamed(part, rename, spec) for part in expression.parts)
    group = rename.get(expression.group) if expression.group is not None else None
    parents = {parent for found in spec.within.values() for parent in found}
    fixed = expression.name if group is None and expression.name in parents else None
    within = spec.within.get(group, ()) if group is not None else ()
    return AxisExpression(
        size=expression.size,
        group=group,
        kind=expression.kind,
        parts=parts,
        within=within,
        fixed=fixed,
    )


def _comparable(expressions: tuple[AxisExpression, ...]) -> set[str]:
    """Return the groups whose units are comparable at a value: `joint_units`' and their parents."""
    value = torch.empty([e.size for e in expressions], device="meta")
    return {
        atom.group
        for atoms, _ in joint_units(value, expressions)
        for atom in atoms
        if atom.group is not None and set(atom.within) <= {other.name for other in atoms}
    }
