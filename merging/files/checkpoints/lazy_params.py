"""State dicts whose tensors are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor

Params = dict[str, Tensor]
# What is only read: a state dict in memory, or one whose tensors are made when they are asked for.
StateDict = Mapping[str, Tensor]


class LazyParams(Mapping[str, Tensor]):
    """A state dict whose tensors are made when they are asked for, anew each time.

    Whether it has a name is known without that.

    Args:
        names: Its names, in order; a mapping by them will do.
        make: Makes the tensor of a name.

    Example:
        >>> import torch
        >>> LazyParams(["w"], lambda name: torch.ones(2))["w"]
        tensor([1., 1.])
    """

    def __init__(self, names: Iterable[str], make: Callable[[str], Tensor]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
