"""Regions of an archive's graph, such as `with torch.no_grad()`, put back among its calls.

As `merging.models.graph.inline`, on the JSON that `torch.export.save` writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from merging.models.graph.inline import REGIONS

_REGIONS = tuple(f"torch.ops.higher_order.{name}" for name in REGIONS)
_KEPT = ("target", "inputs", "outputs")
_MAX_DEPTH = 32  # of regions within regions

Names = dict[str, Mapping[str, Any]]


def flat_calls(
    calls: Sequence[Mapping[str, Any]], outputs: Any
) -> tuple[list[dict[str, Any]], Any]:
    """Return the calls of a graph with those of its regions among them.

    Args:
        calls: The nodes of the graph.
        outputs: What describes its outputs.

    Returns:
        The calls, and the outputs with the names that their values have among these.

    Raises:
        ValueError: If a region is not of the form that the exporter writes.
    """
    names: Names = {}
    flat = list(_flat(calls, names, "", count(), 0))
    return flat, _renamed(outputs, names)


def _flat(
    calls: Sequence[Mapping[str, Any]],
    names: Names,
    prefix: str,
    numbers: Iterator[int],
    depth: int,
) -> Iterator[dict[str, Any]]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"regions within regions, {depth} deep")
    for call in calls:
        if call["target"] in _REGIONS:
            yield from _region(call, names, numbers, depth)
            continue
        if prefix:
            names.update(_defined(call["outputs"], prefix))
        yield {key: _renamed(call[key], names) for key in _KEPT}


def _region(
    call: Mapping[str, Any], names: Names, numbers: Iterator[int], depth: int
) -> Iterator[dict[str, Any]]:
    given = [argument["arg"] for argument in call["inputs"]]
    (place,) = (k for k, argument in enumerate(given) if "as_graph" in argument)
    body = given[place]["as_graph"]["graph"]
    inner: Names = {}
    for own, outer in zip(body["inputs"], given[place + 1 :], strict=True):
        (name,) = _references(own)
        inner[name] = _renamed(_content(outer), names)
    yield from _flat(body["nodes"], inner, f"{next(numbers)}.", numbers, depth + 1)
    own = [r for output in call["outputs"] for r in _references(output)]
    found = [_renamed(_content(output), inner) for output in body["outputs"]]
    names.update(zip(own, found, strict=True))


def _content(argument: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what stands behind the kind of an argument; a plain number stays as it is.

    Raises:
        ValueError: If that is more than one value: lists of lists would double.
    """
    ((kind, value),) = argument.items()
    if isinstance(value, list) or (isinstance(value, dict) and _name(value) is None):
        raise ValueError(f"{kind} is handed into or out of a region")
    return value if isinstance(value, dict) else {kind: value}


def _references(argument: Any) -> Iterator[str]:
    """Go through an argument.

    Yields:
        The names of the values that it refers to.
    """
    if isinstance(argument, list):
        for item in argument:
            yield from _references(item)
    elif isinstance(argument, dict):
        name = _name(argument)
        if name is not None:
            yield name
        else:
            yield from _references(list(argument.values()))


def _defined(outputs: Any, prefix: str) -> Names:
    return {
        name: {"name": prefix + name, "as_name": prefix + name} for name in _references(outputs)
    }


def _name(value: Mapping[str, Any]) -> str | None:
    """Return the name that a value refers to, if any: `{"name": …}` or `{"as_name": …}`."""
    for key in ("name", "as_name"):
        if isinstance(value.get(key), str) and "arg" not in value:
            return str(value[key])
    return None


def _renamed(argument: Any, names: Names) -> Any:
    if isinstance(argument, list):
        return [_renamed(item, names) for item in argument]
    if not isinstance(argument, dict):
        return argument
    name = _name(argument)
    if name is None:
        return {key: _renamed(value, names) for key, value in argument.items()}
    if name not in names:
        return argument
    found = names[name]
    kind = next(iter(argument))
    return {kind: found[kind]} if kind in found else dict(found)
