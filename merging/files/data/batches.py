"""Examples held in memory, and the data sets that are made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# What gives batches `(inputs, targets)`: `Batches`, a `DataLoader`, a list.
BatchesLike = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Batches:
    """Inputs and targets, iterated in batches as often as one likes.

    Attributes:
        inputs: `[n, ...]` float32.
        targets: int64 `[n]`.
        batch_size: Examples per batch when iterated.
        name: What screens call these examples, such as `"test"`.
    """

    inputs: Tensor
    targets: Tensor
    batch_size: int = 1000
    name: str = ""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self), self.batch_size):
            stop = start + self.batch_size
            yield self.inputs[start:stop], self.targets[start:stop]

    def __len__(self) -> int:
        """Return the number of examples."""
        return int(self.targets.shape[0])

    def take(self, n: int, *, name: str | None = None) -> Batches:
        """Return the first `n` examples."""
        return Batches(
            inputs=self.inputs[:n],
            targets=self.targets[:n],
            batch_size=self.batch_size,
            name=name or self.name,
        )


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, and for some a validation split.

    Attributes:
        name: What requests call it.
        title: What screens call it.
        train: Examples that models were trained on.
        test: Examples that they never saw, to report results on.
        classes: Number of classes.
        validation: Examples that they never saw either, to choose coefficients on; None if the
            data set has none.
    """

    name: str
    title: str
    train: Batches
    test: Batches
    classes: int
    validation: Batches | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Inputs and targets of all splits."""
        splits = (self.train, self.test, self.validation)
        return tuple(t for s in splits if s is not None for t in (s.inputs, s.targets))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over shapes and bytes of all splits."""
        digest = hashlib.sha256()
        for tensor in self.tensors:
            digest.update(repr((str(tensor.dtype), tuple(tensor.shape))).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def concatenate(parts: Sequence[Batches], name: str) -> Batches:
    """Return the examples of all parts, one part after the other."""
    return Batches(
        inputs=torch.cat([part.inputs for part in parts]),
        targets=torch.cat([part.targets for part in parts]),
        batch_size=parts[0].batch_size,
        name=name,
    )
