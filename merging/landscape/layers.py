"""Two models compared layer by layer: distance, angle, barrier and variance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.evaluation import evaluate_family
from merging.landscape.statistics.repair import unit_statistics
from merging.models.graph.export import trace
from merging.models.state_dict import check_same_architecture, distance, dot, lerp, norm
from merging.schema.progress import Progress


def layer_names(params: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the parameters and buffers of every layer, by the name of the module that holds them.

    Example:
        >>> layer_names({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})
        {'fc': ['fc.weight', 'fc.bias']}
    """
    layers: dict[str, list[str]] = {}
    for name in params:
        layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
    return layers


def layer_distances(
    params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]
) -> dict[str, tuple[float, float]]:
    """Return the L2 distance and cosine of A and B for every layer.

    Raises:
        ArchitectureMismatchError: If the models do not fit.
    """
    check_same_architecture(params_a, params_b)
    found = {}
    for layer, names in layer_names(params_a).items():
        a, b = ({name: params[name] for name in names} for params in (params_a, params_b))
        lengths = norm(a) * norm(b)
        found[layer] = (distance(a, b), dot(a, b) / lengths if lengths else float("nan"))
    return found


def layer_barriers(
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    batches: BatchesLike,
    *,
    lams: int = 5,
    on_progress: Progress | None = None,
) -> dict[str, float]:
    """Return the loss barrier when only one layer goes from A to B and the rest stays A's.

    Measured above the mean loss of the two full models (Adilova et al. 2024).

    Args:
        model: The architecture.
        params_a: State dict of model A.
        params_b: State dict of model B, aligned or not.
        batches: Any re-iterable of `(inputs, targets)`.
        lams: Positions per layer.
        on_progress: Called with layers done and in all.

    Returns:
        The barrier of every layer.

    Raises:
        DataError: If there are no examples.
        StoppedError: If `on_progress` raises it.
    """
    positions = np.linspace(0, 1, lams)
    weights = np.stack([1 - positions, positions], axis=1)
    ends = evaluate_family(model, [params_a, params_b], np.eye(2), batches).loss.mean()
    layers = layer_names(params_a)
    barriers = {}
    for k, (layer, names) in enumerate(layers.items()):
        mixed = {**params_a, **{name: params_b[name] for name in names}}
        found = evaluate_family(model, [params_a, mixed], weights, batches)
        barriers[layer] = float(found.loss.max() - ends)
        if on_progress is not None:
            on_progress(k + 1, len(layers), layer)
    return barriers


def variance_ratios(
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    batches: BatchesLike,
    lam: float = 0.5,
) -> dict[str, float]:
    """Return the variance of every layer's units between the models, as a share of the models' own.

    Values far below 1 are the variance collapse that REPAIR mends (Jordan et al. 2023, §3).

    Args:
        model: The architecture.
        params_a: State dict of model A.
        params_b: State dict of model B, aligned or not.
        batches: Examples to take the variances on.
        lam: Position on the line.

    Returns:
        Mean variance over the layer's units at `lam`, divided by the same interpolation of the
        models' variances.

    Raises:
        DataError: If there are no examples.
    """
    states = [params_a, params_b, lerp(params_a, params_b, lam)]
    a, b, mixed = (unit_statistics(model, params, batches) for params in states)
    inputs = (next(iter(batches))[0],)
    sources = trace(model, inputs).sources
    ratios = {}
    for node, (_, deviation) in mixed.items():
        weight = next(sources[n] for n in node.all_input_nodes if n in sources)
        own = (1 - lam) * (a[node][1] ** 2).mean() + lam * (b[node][1] ** 2).mean()
        ratio = (deviation**2).mean() / own if float(own) else torch.tensor(float("nan"))
        ratios[weight.rpartition(".")[0]] = float(ratio)
    return ratios
