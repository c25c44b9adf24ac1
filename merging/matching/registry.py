"""The matching methods, in one table; its order is the order of menus."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from merging.errors import UnknownNameError
from merging.matching import activation, straight_through, weight
from merging.matching.base import (
    Examples,
    MatchProblem,
    MatchResult,
    Method,
    OnProgress,
    silent,
)
from merging.params import check_same_architecture
from merging.spec import PermutationSpec

METHODS: Mapping[str, Method] = MappingProxyType(
    {m.name: m for m in (weight.METHOD, activation.METHOD, straight_through.METHOD)}
)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in METHODS:
        raise UnknownNameError(
            f"unknown matching method {name!r}; choose from {', '.join(METHODS)}"
        )
    return METHODS[name]


def read_options(method: Method, options: Mapping[str, Any] | None) -> Any:
    """A method's options from a mapping; what is missing has its default.

    Raises:
        UnknownNameError: If the method has no such option, or an option's value is not among its
            choices or outside its range.
    """
    given = dict(options or {})
    known = {f.name: f for f in fields(method.options)}
    for name, value in given.items():
        if name not in known:
            choices = ", ".join(known)
            raise UnknownNameError(
                f"{method.title} has no option {name!r}; it has {choices or 'none'}"
            )
        _check_value(method, name, value, known[name].metadata)
    return method.options(**given)


def _check_value(method: Method, name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    choices = metadata.get("choices")
    if choices is not None:
        if value not in choices:
            raise UnknownNameError(
                f"{method.title}, option {name!r}: got {value!r}, expected one of "
                f"{', '.join(map(repr, choices))}"
            )
    elif not isinstance(value, (int, float)) or not metadata["min"] <= value <= metadata["max"]:
        raise UnknownNameError(
            f"{method.title}, option {name!r}: got {value!r}, expected a number from "
            f"{metadata['min']} to {metadata['max']}"
        )


def match(
    method: str,
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    *,
    spec: PermutationSpec,
    batches: Examples | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> MatchResult:
    """Find the permutation of B's units that lines B up with A.

    Args:
        method: `"weight"`, `"activation"` or `"straight_through"`.
        model: The architecture.
        params_a: State dict of model A, the reference.
        params_b: State dict of model B.
        spec: The permutation spec of the architecture.
        batches: Examples, for methods that need them.
        seed: Seed of everything random.
        options: The method's options by name; the rest have their defaults.
        on_progress: Called with `(done, total, note)`; if it raises `StoppedError`, the best
            permutation so far is returned.

    Returns:
        The permutation and how it was found.

    Raises:
        UnknownNameError: If there is no such method or option.
        ArchitectureMismatchError: If the models do not fit; layers are named.
        SymmetryError: If the spec does not fit the models.
        DataError: If the method needs examples and there are none.

    Example:
        >>> from merging import find_symmetry, load_pair
        >>> pair = load_pair("two-unit-counterexample")
        >>> spec = find_symmetry(pair.model, (pair.data.test.inputs[:2],))
        >>> found = match("weight", pair.model, pair.params_a, pair.params_b, spec=spec)
        >>> [perm.tolist() for perm in found.permutations.values()]
        [[1, 0], [1, 0]]
    """
    chosen = find_method(method)
    read = read_options(chosen, options)
    check_same_architecture(params_a, params_b)
    spec.check(params_a)
    problem = MatchProblem(model, spec, params_a, params_b, batches)
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    found = chosen.run(problem, read, generator, on_progress or silent)
    return replace(
        found,
        seconds=time.perf_counter() - start,
        method=method,
        options=asdict(read),
        seed=seed,
    )
