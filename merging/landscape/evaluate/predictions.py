"""What models answer: outputs, ensembles of them, and how far their confidence can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.evaluation import chunk_size
from merging.models.graph.export import trace
from merging.schema.errors import MergingError, UnknownNameError

Ensemble = Literal["logits", "probabilities", "vote"]


def predict(model: nn.Module, params: Mapping[str, Tensor], batches: BatchesLike) -> Tensor:
    """Return what a model puts out for all examples.

    Args:
        model: The architecture.
        params: State dict.
        batches: Any iterable of `(inputs, targets)`; the targets are not read.

    Returns:
        float32 `[n, ...]`.

    Raises:
        MergingError: If there are no examples.
    """
    outputs = []
    with torch.no_grad():
        for x, _ in batches:
            if not len(x):
                continue
            graph = trace(model, (x,))
            for some in x.split(chunk_size(graph, params, x)):
                found = (
                    graph.run(params, (some,)) if graph.batched else _called(model, params, some)
                )
                outputs.append(found.float())
    if not outputs:
        raise MergingError("there are no examples to predict; give at least one batch")
    return torch.cat(outputs)


def _called(model: nn.Module, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
    found: Tensor = torch.func.functional_call(model, dict(params), (x,), tie_weights=False)
    return found


def ensemble(outputs: Sequence[Tensor], kind: Ensemble) -> Tensor:
    """Return what several models put out together.

    Args:
        outputs: `[n, classes]` of every model.
        kind: `"logits"` is the mean of the outputs; `"probabilities"` the logarithm of the mean
            probability; `"vote"` the logarithm of the share of the models that answer so, where
            ties are broken by the mean probability.

    Returns:
        `[n, classes]`, of which a cross-entropy and an answer can be taken.

    Raises:
        UnknownNameError: If there is no such kind.

    Example:
        >>> a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> ensemble([a, b], "logits").tolist()
        [[1.0, 0.5]]
    """
    stack = torch.stack([found.double() for found in outputs])
    if kind == "logits":
        return stack.mean(0).float()
    mean = stack.softmax(-1).mean(0)
    if kind == "probabilities":
        return mean.log().float()
    if kind != "vote":
        raise UnknownNameError(
            f"unknown ensemble {kind!r}; choose from 'logits', 'probabilities', 'vote'"
        )
    votes = F.one_hot(stack.argmax(-1), stack.shape[-1]).double().mean(0)
    # Less than any vote, and enough to order what has equally many.
    smallest = 1e-3 / len(outputs)
    return ((1 - smallest) * votes + smallest * mean).log().float()


def answers(outputs: Tensor) -> Tensor:
    """Return the class that is answered, int64 `[n]` (of tokens `[n, length]`).

    One output is a yes from 0 upwards.
    """
    return (outputs[:, 0] >= 0).long() if outputs.shape[-1] == 1 else outputs.argmax(-1)
