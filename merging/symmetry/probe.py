"""A model in float64 with generic parameters, and random inputs to compare its outputs on.

Parameters are widened, and permuted, one by one when an operator reads them, and forgotten after
it: the copies of a large model's parameters never lie in memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from merging.models.graph.export import trace
from merging.models.graph.graph import Graph, Visit, execute
from merging.schema.errors import SymmetryError
from merging.symmetry.derive import Derivation
from merging.symmetry.permutation import (
    Permutations,
    check_permutations,
    permute_tensor,
    random_permutations,
)
from merging.symmetry.spec import AxisExpression, PermutationSpec

# Joint draws of permutations, and rows of inputs, behind every certificate: a group of two units
# is drawn as the identity half the time, and dead units hide a mistake on single inputs.
_DRAWS = 3
_ROWS = 16
# Large inputs show every unit many positions, so fewer of them do: that many entries in all, but
# never fewer rows than this. An index stands for a whole position.
_ENTRIES = 16 * 28 * 28
_FEWEST_ROWS = 4
_INDICES = 64
# What an output is relative to: its own largest entry, but at least this share of the largest of
# all outputs, so that one that is zero but for rounding does not count by its rounding.
_SMALLEST_SCALE = 1e-6

_NO_AXES: Mapping[str, tuple[AxisExpression, ...]] = {}


class Probe:
    """A model in float64 with generic parameters, and random inputs to compare outputs on.

    Attributes:
        graph: The graph in float64, its own casts included.
    """

    def __init__(self, model: nn.Module, example_inputs: Sequence[Tensor]) -> None:
        graph = trace(model, example_inputs)
        self.graph: Graph = graph.to(torch.float64)
        generator = torch.Generator().manual_seed(0)
        self._state = {name: value.detach() for name, value in model.state_dict().items()}
        self._state.update(_moved_constants(self._state, generator))
        rows = _rows(example_inputs) if graph.batched else 0
        self._inputs = [_fresh(x, generator, rows) for x in example_inputs]
        try:
            self._outputs = self._run()
        except (RuntimeError, IndexError, ValueError):
            # Integers that mean something together (lengths, offsets): only the given ones do.
            self._inputs = [
                x if x.is_floating_point() else _repeated(given, rows)
                for x, given in zip(self._inputs, example_inputs, strict=True)
            ]
            self._outputs = self._run()
        few = [x[:2] if x.dim() and rows else x for x in self._inputs]
        once, again = self._run(inputs=few), self._run(inputs=few)
        pairs = zip(once, again, strict=True)
        if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
            raise SymmetryError(
                f"{type(model).__name__} gives different outputs for the same input, so no "
                "permutation can be certified. Remove what is random in evaluation mode"
            )

    def difference(
        self,
        spec: PermutationSpec,
        *,
        seed: int,
        only: str | None = None,
        permutations: Mapping[str, Tensor] | None = None,
    ) -> float:
        """Return the outputs' largest difference, relative to the largest entry; NaN if any is."""
        draws = (
            [permutations]
            if permutations
            else [self._draw(spec, seed + k, only) for k in range(_DRAWS)]
        )
        differences: list[Tensor] = []
        for perms in draws:
            check_permutations(spec, perms)
            differences.extend(self._differences(self._run(spec, perms)))
        return float(torch.stack(differences).max()) if differences else 0.0

    def first_difference(self, derivation: Derivation, groups: frozenset[str]) -> str:
        """Return the first operator whose output is not the permuted output of the original."""
        spec = derivation.spec
        perms = {g: p for g, p in self._draw(spec, 0, None).items() if g in groups}
        before, after = self._values(), self._values(spec, perms)
        for node, value in before.items():
            if node not in derivation.values:
                continue
            expected = permute_tensor(value, derivation.values[node], perms)
            if expected.shape != after[node].shape or not torch.allclose(
                after[node], expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max())
            ):
                return f"{node.target} ({node.name})"
        return "the output"

    def _differences(self, outputs: Sequence[Tensor]) -> Iterator[Tensor]:
        scales = [_largest(output) for output in self._outputs]
        smallest = _SMALLEST_SCALE * max(scales, default=0.0)
        for before, after, scale in zip(self._outputs, outputs, scales, strict=True):
            apart = torch.where(before == after, 0.0, (after - before).abs())
            if apart.numel():
                yield apart.max() / max(scale, smallest, torch.finfo(torch.float64).tiny)

    def _draw(self, spec: PermutationSpec, seed: int, only: str | None) -> Permutations:
        generator = torch.Generator().manual_seed(seed)
        perms = random_permutations(spec, generator)
        for group, perm in perms.items():
            while _tells_little(perm):
                perm = random_permutations(spec, generator)[group]
            perms[group] = perm
        return perms if only is None else {only: perms[only]}

    def _run(
        self,
        spec: PermutationSpec | None = None,
        perms: Mapping[str, Tensor] | None = None,
        *,
        inputs: Sequence[Tensor] = (),
        visit: Visit | None = None,
    ) -> list[Tensor]:
        """Return all outputs in float64: the floating ones, or the others where there is none."""
        axes, perms = (spec.axes if spec is not None else _NO_AXES), perms or {}

        def read(node: fx.Node) -> Tensor:
            name = self.graph.sources[node]
            value = permute_tensor(self._state[name].cpu(), axes.get(name, ()), perms)
            return value.to(torch.float64) if value.is_floating_point() else value

        values = _OnDemand(read)
        values.update(self.graph.constants)
        values.update(zip(self.graph.inputs, inputs or self._inputs, strict=True))
        with torch.no_grad():
            execute(self.graph.steps, values, visit)
            found = list(_tensors(fx.node.map_arg([self.graph.output], values.__getitem__)))
        floating = [value for value in found if value.is_floating_point()]
        return [value.to(torch.float64) for value in floating or found]

    def _values(
        self, spec: PermutationSpec | None = None, perms: Mapping[str, Tensor] | None = None
    ) -> dict[fx.Node, Tensor]:
        values: dict[fx.Node, Tensor] = {}

        def keep(node: fx.Node, value: object) -> object:
            if isinstance(value, Tensor) and value.is_floating_point():
                values[node] = value
            return value

        self._run(spec, perms, visit=keep)
        return values


class _OnDemand(dict[fx.Node, Any]):
    """Values of a graph; those of parameters are made again each time one is read."""

    def __init__(self, make: Callable[[fx.Node], Tensor]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, node: fx.Node) -> Tensor:
        return self._make(node)


def _tells_little(perm: Tensor) -> bool:
    """Return whether a permutation is the identity, or nested and the same for all its parents."""
    rows = perm.reshape(-1, perm.shape[-1])
    usual = rows[0] if len(rows) > 1 else torch.arange(perm.shape[-1])
    return bool((rows == usual).all())


def _moved_constants(
    state: Mapping[str, Tensor], generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    """Move constant tensors, so that no mistake can hide in them.

    Yields:
        Name and new value of every one.
    """
    for name, value in state.items():
        if value.is_floating_point() and value.numel() > 1 and value.max() == value.min():
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
            yield name, value.to("cpu", torch.float64) + 0.5 * noise


def _rows(inputs: Sequence[Tensor]) -> int:
    """Return how many rows of inputs to draw."""
    batches = [x for x in inputs if x.dim() and len(x)]
    floating = [x.numel() // len(x) for x in batches if x.is_floating_point()]
    indices = [x.numel() // len(x) for x in batches if not x.is_floating_point()]
    wanted = []
    if floating:
        wanted.append(max(_FEWEST_ROWS, _ENTRIES // max(1, *floating)))
    if indices:
        wanted.append(max(1, _INDICES // max(1, *indices)))
    return min(_ROWS, *wanted) if wanted else 0


def _fresh(x: Tensor, generator: torch.Generator, rows: int) -> Tensor:
    """Draw random values in the shape of `x`, with at least so many rows.

    Integers lie in the range of those given. A mask (of two values) keeps how many of each are in
    a row: one without any mark might mean nothing.
    """
    if not x.is_floating_point():
        given = _repeated(x, rows)
        if given.dim() > 1 and (x.dtype == torch.bool or len(x.unique()) <= 2):
            order = torch.rand(given.shape, generator=generator).argsort(-1)
            return given.gather(-1, order)
        if not given.numel() or x.dtype == torch.bool:
            return given
        low, high = int(x.min()), int(x.max()) + 1
        return torch.randint(low, high, given.shape, generator=generator, dtype=x.dtype)
    shape = (max(rows, x.shape[0]), *x.shape[1:]) if x.dim() else x.shape
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _repeated(x: Tensor, rows: int) -> Tensor:
    """Return the given rows over and over, so many at least."""
    if not x.dim() or not len(x):
        return x.cpu()
    repeats = -(-rows // len(x)) if rows else 1
    return x.cpu().repeat(repeats, *[1] * (x.dim() - 1))[: max(rows, len(x))]


def _largest(value: Tensor) -> float:
    finite = value[value.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
