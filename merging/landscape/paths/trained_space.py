"""The trained parameters of a model as one vector, and the loss and its gradient there.

Buffers are no part of the vector: nothing trains them. BatchNorm normalises by the statistics of
the batch at hand, as in training, so that the gradient does not rest on statistics that belong to
another network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.losses import score
from merging.landscape.statistics.repair import has_batch_norm, reset, with_batch_statistics
from merging.models.graph.export import trace
from merging.schema.errors import DataError, MergingError

# Training examples that the running statistics of a trained network are estimated on.
RESET_EXAMPLES = 1000


class TrainedSpace:
    """A model's trained parameters as a vector space, with a loss on it.

    Args:
        model: The architecture.
        like: State dict of one of its networks: names, shapes and dtypes.
        batches: Training examples.

    Raises:
        DataError: If there are no examples.
    """

    def __init__(self, model: nn.Module, like: Mapping[str, Tensor], batches: BatchesLike) -> None:
        given = [(x, y) for x, y in batches if len(y)]
        if not given:
            raise DataError("training needs examples, and none were given; give training batches")
        self.model = model
        self.inputs, self.targets = (torch.cat(part) for part in zip(*given, strict=True))
        self.graph = trace(model, (self.inputs[:2],))
        self.normed = self.graph.batched and has_batch_norm(model, [given[0]])
        self.names = _trained_names(model)
        self._like = {name: like[name] for name in self.names}
        self._sizes = [value.numel() for value in self._like.values()]

    def vector(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the trained parameters end to end, float32 (or float64, if they are) `[n]`."""
        flat = torch.cat([params[name].detach().reshape(-1) for name in self.names])
        return flat.to(torch.promote_types(flat.dtype, torch.float32))

    def params(self, vector: Tensor, rest: Mapping[str, Tensor]) -> Params:
        """Return a state dict with the parameters of a vector, and all other tensors from `rest`.

        Tied tensors are one parameter under several names.
        """
        parts = zip(self._like.items(), vector.split(self._sizes), strict=True)
        own = {name: part.view(like.shape).to(like.dtype) for (name, like), part in parts}
        for name, other in self.graph.aliases.items():
            shared = own.get(name, own.get(other))
            if shared is not None:
                own[name] = own[other] = shared
        return {name: own.get(name, value) for name, value in rest.items()}

    def finished(self, vector: Tensor, rest: Mapping[str, Tensor]) -> Params:
        """Return a network of its own: as `params`, with its own statistics of norms (RESET)."""
        params = {n: v.detach().clone() for n, v in self.params(vector, rest).items()}
        if not self.normed:
            return params
        few = [(self.inputs[:RESET_EXAMPLES], self.targets[:RESET_EXAMPLES])]
        return reset(self.model, params, few)

    def loss(self, vector: Tensor, rest: Mapping[str, Tensor], chosen: Tensor) -> Tensor:
        """Return the mean loss on some examples; differentiable in the vector."""
        params, x = self.params(vector, rest), self.inputs[chosen]
        if self.graph.batched:
            visit = with_batch_statistics(self.graph, params, x) if self.normed else None
            outputs = self.graph.run(params, (x,), visit=visit)
        else:
            outputs = torch.func.functional_call(self.model, params, (x,), tie_weights=False)
        return score(outputs, self.targets[chosen])[0].mean()

    def gradient(
        self, vector: Tensor, rest: Mapping[str, Tensor], chosen: Tensor, weight_decay: float = 0.0
    ) -> tuple[float, Tensor]:
        """Return the loss on some examples, and its gradient with that of the weight decay, `[n]`.

        Raises:
            MergingError: If the loss is not finite.
        """
        leaf = vector.detach().clone().requires_grad_()
        loss = self.loss(leaf, rest, chosen)
        if not torch.isfinite(loss):
            raise MergingError(
                "training diverged: the loss is no longer finite; choose a smaller step size"
            )
        (slope,) = torch.autograd.grad(loss, leaf)
        return float(loss.detach()), slope + weight_decay * leaf.detach()

    def draws(self, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield examples for one step after the other: pass after pass, each in a new order.

        What is left over at the end of a pass is left out.

        Yields:
            int64 `[batch_size]`, or fewer if there are fewer examples in all.
        """
        size = min(batch_size, len(self.targets))
        while True:
            order = torch.randperm(len(self.targets), generator=generator)
            yield from order[: len(order) // size * size].split(size)


def _trained_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of floating parameters, each tied tensor once."""
    return tuple(name for name, value in model.named_parameters() if value.is_floating_point())
