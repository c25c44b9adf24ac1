"""`diagonal_fisher` against a loop over single examples, on the network of the first pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import merging
from merging.files.checkpoints.lazy_params import Params

PAIR, EXAMPLES, REPETITIONS = "mnist-mlp-512", 500, 5


def measure() -> Iterator[str]:
    """Yield one line: the loop's time over ours, and how far the two are apart."""
    pair = merging.load_pair(PAIR)
    x, y = pair.data.train.inputs[:EXAMPLES], pair.data.train.targets[:EXAMPLES]
    model = pair.model.eval()
    model.load_state_dict(pair.params_a)
    ways: dict[str, Callable[[], Params]] = {
        "ours": lambda: merging.diagonal_fisher(model, pair.params_a, [(x, y)], labels="true"),
        "loop": lambda: _looped(model, x, y),
    }
    seconds: dict[str, list[float]] = {who: [] for who in ways}
    found = {who: way() for who, way in ways.items()}  # a warm-up, and what is compared
    for _ in range(REPETITIONS):
        for who, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[who].append(time.perf_counter() - start)
    ratio = statistics.median(
        loop / own for own, loop in zip(seconds["ours"], seconds["loop"], strict=True)
    )
    off = max(
        float((found["ours"][name] - value).abs().max() / value.max())
        for name, value in found["loop"].items()
    )
    yield (
        f"{PAIR}, {EXAMPLES} examples: {statistics.median(seconds['ours']):.3f} s; one by one "
        f"takes {ratio:.1f} x the time; they differ by {off:.0e} of a tensor's largest entry"
    )


def _looped(model: nn.Module, inputs: Tensor, targets: Tensor) -> Params:
    """Return the mean of squared gradients, one backward pass per example."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for x, y in zip(inputs.split(1), targets.split(1), strict=True):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None
            total[name].addcmul_(p.grad, p.grad)
    return {name: value / len(inputs) for name, value in total.items()}
