"""The models of a family and their data, loaded in a worker by fingerprint.

What `merging.results.tasks.load_pair` is for two models, this is for as many as there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from merging.files.data.batches import Batches, Dataset, concatenate
from merging.files.sealed import seal
from merging.models.dtypes import widened
from merging.models.network import Network
from merging.models.state_dict import check_same_architecture, in_order
from merging.results.compute.store import Store
from merging.results.requests import Family, OrderRequest
from merging.results.tasks.load_pair import forget
from merging.results.uploads.load import (
    NO_DATA,
    Stored,
    certified,
    data_of,
    load_params,
    network_of,
)
from merging.schema.errors import DataError, MergingError
from merging.symmetry.permutation import permute

TensorDict = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Members:
    """A family in memory; shared between requests, so never written to.

    Attributes:
        networks: Every model's architecture; they differ at most in widths.
        models: State dicts, in float32 at least.
        base: The base's; None without one.
        joint: The joint model's; None without one.
        tasks: The tasks' data.
        trained_on: For every model, the number of its task, or -1.
        dtypes: The types in which the first model's tensors were uploaded.
    """

    networks: tuple[Network, ...]
    models: tuple[TensorDict, ...]
    base: TensorDict | None
    joint: TensorDict | None
    tasks: tuple[Dataset, ...]
    trained_on: tuple[int, ...]
    dtypes: dict[str, torch.dtype]

    @property
    def network(self) -> Network:
        """The architecture: the first model's, and that of what is fused."""
        return self.networks[0]

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.network.model

    @property
    def sizes(self) -> list[int]:
        """How many examples each model was trained on, as far as is known."""
        return [len(self.own_data(k).train) for k in range(len(self.models))]

    def own_data(self, k: int) -> Dataset:
        """Return the data of the task that a model was trained on; of the first task, if unknown.

        Raises:
            DataError: If there are none.
        """
        if not self.tasks:
            raise DataError(NO_DATA)
        return self.tasks[max(0, self.trained_on[k])]

    def splits(self, name: str) -> list[Batches]:
        """Return what models are judged by, one per task.

        Args:
            name: `"test"`, or `"validation"`: examples that nothing was trained on or reported
                for; the training split, where a task has no others.

        Returns:
            The examples of that split.

        Raises:
            DataError: If the family has no tasks.
        """
        if not self.tasks:
            raise DataError(NO_DATA)
        if name == "test":
            return [task.test for task in self.tasks]
        return [task.train if task.validation is None else task.validation for task in self.tasks]

    def validation(self) -> Batches:
        """Return the validation examples of all tasks together."""
        return concatenate(self.splits("validation"), "validation")

    def training_examples(self, n: int) -> Batches:
        """Return training examples of all tasks, as many of each, `n` in all."""
        share = -(-n // max(1, len(self.tasks)))
        return concatenate([task.train.take(share) for task in self.tasks], "train")


def load_members(family: Family, store: Store) -> Members:
    """Load the models and the data.

    Raises:
        MergingError: If something that was uploaded is no longer in the store.
    """
    return _load(family, Stored(store))


@lru_cache(maxsize=2)
def _load(family: Family, stored: Stored) -> Members:
    store = stored.store
    configs = family.configs or (family.config,) * len(family.models)
    known = {config: network_of(config, store) for config in dict.fromkeys(configs)}
    networks = tuple(known[config] for config in configs)
    network = networks[0]

    def read(wanted: str, of: Network = network) -> TensorDict:
        return in_order(load_params(wanted, store), of.model.state_dict())

    read_models = [read(*two) for two in zip(family.models, networks, strict=True)]
    for other in read_models[1:] if not family.configs else ():
        check_same_architecture(read_models[0], other, dtype=False)
    found = Members(
        networks=networks,
        models=tuple(widened(params) for params in read_models),
        base=widened(read(family.base)) if family.base else None,
        joint=widened(read(family.joint)) if family.joint else None,
        tasks=tuple(data_of(task.data, network, store) for task in family.tasks),
        trained_on=family.trained_on,
        dtypes={name: value.dtype for name, value in read_models[0].items()},
    )
    for state in (*found.models, found.base or {}, found.joint or {}):
        seal(state.values(), _forget)
    for task in found.tasks:
        seal(task.tensors, _forget)
    return found


def _forget() -> None:
    _load.cache_clear()
    forget()


def ordered(
    states: Sequence[TensorDict], order: OrderRequest | None, store: Store
) -> list[TensorDict]:
    """Return what belongs to every model of a family, with its units in a common order.

    Args:
        states: State dicts, or curvatures with all names of one; one per model.
        order: The common order; None leaves them as they are.
        store: Where it is kept.

    Returns:
        One per model.

    Raises:
        MergingError: If the order was not found before.
    """
    if order is None:
        return list(states)
    found = order.read(store)
    if found is None:
        raise MergingError(f"the result of {order.title.lower()} is missing; run it again")
    _, spec = certified(order.family.config, store)
    moved = []
    for arrays, state in zip(found.permutations, states, strict=True):
        perms = {group: torch.from_numpy(perm) for group, perm in arrays.items()}
        moved.append(permute(spec, perms, state))
    return moved
