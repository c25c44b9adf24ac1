"""The models and data that requests are about, loaded in a worker by fingerprint.

Bundled ones are read from `assets`. Uploaded ones were read once, checked, and kept in the store
as safetensors and `.npz`; after that only those files are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from merging.files.data.batches import Batches, Dataset
from merging.files.sealed import seal
from merging.models.dtypes import widened
from merging.models.network import Network
from merging.models.state_dict import check_same_architecture, in_order
from merging.results.compute.store import Store
from merging.results.requests import (
    CORRECTION_EXAMPLES,
    SHOWN_EXAMPLES,
    Statistics,
    Subject,
)
from merging.results.uploads.load import (
    NO_DATA,
    Stored,
    TensorDict,
    _chosen,
    _params,
    data_of,
    load_params,
)
from merging.schema.errors import DataError, MergingError
from merging.symmetry.spec import PermutationSpec


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a request is about, in memory; shared between requests, so never written to."""

    model: nn.Module
    spec: PermutationSpec
    params_a: TensorDict
    params_b: TensorDict
    data: Dataset
    example_inputs: tuple[Tensor, ...]

    def statistics_examples(self, kind: Statistics) -> Batches:
        """Return training examples that the statistics of hidden units are taken on."""
        corrects = kind in ("repair", "rescale")
        return self.data.train.take(CORRECTION_EXAMPLES if corrects else SHOWN_EXAMPLES)

    def split(self, name: str) -> Batches:
        """Return the examples of a split that screens show.

        Raises:
            DataError: If the models came without any.
        """
        if not len(self.data.test):
            raise DataError(NO_DATA)
        return self.data.train.take(SHOWN_EXAMPLES) if name == "train" else self.data.test


def load(subject: Subject, store: Store) -> Loaded:
    """Load both models and the data.

    Raises:
        MergingError: If something that was uploaded is no longer in the store.
    """
    return _load(subject, Stored(store))


@lru_cache(maxsize=3)
def _load(subject: Subject, stored: Stored) -> Loaded:
    network, spec = _chosen(subject.config, subject.spec, stored)
    params_a, params_b = (
        in_order(load_params(wanted, stored.store), network.model.state_dict())
        for wanted in (subject.model_a, subject.model_b)
    )
    check_same_architecture(params_a, params_b, dtype=False)
    data = data_of(subject.data, network, stored.store)
    seal((*params_a.values(), *params_b.values(), *data.tensors), forget)
    _check_inputs(network, data)
    return Loaded(
        model=network.model,
        spec=spec,
        params_a=widened(params_a),
        params_b=widened(params_b),
        data=data,
        example_inputs=network.example_inputs,
    )


def forget() -> None:
    """Forget models and data that were loaded, so that they are read again."""
    _load.cache_clear()
    _params.cache_clear()


def _check_inputs(network: Network, data: Dataset) -> None:
    if not len(data.test):
        return  # what needs examples says so itself
    example = data.test.inputs[:2].clone()  # whatever the model is, it gets nothing that is shared
    try:
        with torch.no_grad():
            network.model(example)
    except (MergingError, RuntimeError, TypeError, IndexError, ValueError) as error:
        wanted = [list(x.shape[1:]) for x in network.example_inputs]
        raise DataError(
            f"{data.title} has examples of shape {list(example.shape[1:])}, but this model reads "
            f"{' and '.join(map(str, wanted))}; choose data that fit it on the Models page"
        ) from error
