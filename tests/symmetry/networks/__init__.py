"""Every architecture of the table in docs/architectures.md, built from its public definition.

`CATALOG[name](small=False)` gives `(model, example_inputs)`: the published size, or with
`small=True` the same definition with few and narrow layers, for unit tests. Weights are random.
A family is one module of this package with a `CATALOG` of its own; add it to the table here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor, nn

from tests.symmetry.networks import convolutional, recurrent, transformer

Built = tuple[nn.Module, tuple[Tensor, ...]]

CATALOG: Mapping[str, Callable[..., Built]] = MappingProxyType({
    **convolutional.CATALOG,
    **recurrent.CATALOG,
    **transformer.CATALOG,
})
