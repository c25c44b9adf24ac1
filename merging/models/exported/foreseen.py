"""How much memory a stranger's graph would take, found from shapes before anything runs.

The graph runs on tensors without contents (`FakeTensorMode`), so that a doubling of a doubling is
seen at no cost. Operators that are made of others are seen from within as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from merging.models.exported.call_arguments import MAX_AXES
from merging.models.exported.running_calls import Call, Watch
from merging.schema.errors import CheckpointError, MergingError

# Batches that it has to fit for: the least that is evaluated at once, and that of the examples.
BATCHES = (16, 2)
MAX_TENSOR = 1 << 31
MAX_LIVE = 1 << 32
MAX_PARTS = 4096
MAX_STEPS = 20_000  # of a recurrent layer, over layers and directions
MAX_SECONDS = 10.0  # of processor time; honest models take a tenth of it

Run = Callable[[Sequence[Tensor], Callable[[Tensor], Tensor], Watch], Any]
# Its kernel does not look whether its arguments fit together; those of a graph are weights, so
# that what is seen here once holds for every run.
WEIGHT_NORM = "torch.ops.aten._weight_norm.default"
_RECURRENT = ("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input")


LOOKED_AT = (WEIGHT_NORM, *_RECURRENT)


def foresee(run: Run, inputs: Sequence[Any], name: str) -> None:
    """Make sure that what a graph computes has room.

    Args:
        run: Runs the graph: given its inputs, what makes every other tensor that it reads one
            without contents, and who looks at its calls.
        inputs: The inputs, each with `shape` and `dtype`.
        name: What to call the file in messages.

    Raises:
        CheckpointError: If a tensor, or all that is held at one time, would be too large, a list
            too long, or if shapes depend on values or fit no input.
    """
    for batch in BATCHES:
        budget = _Budget(batch)
        try:
            with FakeTensorMode() as mode, budget, torch.no_grad():
                given = [torch.empty((batch, *i.shape[1:]), dtype=i.dtype) for i in inputs]
                run(given, partial(_without_contents, mode), budget)
        except MergingError as error:
            raise CheckpointError(f"{name}: {error}") from error


def _without_contents(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    with mode:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


class _RefusedError(MergingError):
    """What a graph would do is beyond the limits, or not safe."""


class _Budget(TorchDispatchMode):
    """Looks at every tensor that is made."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.live: dict[str, int] = {}
        self.total = 0
        self.end = time.process_time() + MAX_SECONDS

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        self._look(found, str(func))
        return found

    def before(self, call: Call, args: Sequence[Any]) -> None:
        """Look at what a call is given, where its results alone say too late that it is much.

        Raises:
            _RefusedError: If it is beyond the limits.
        """
        if call.target == WEIGHT_NORM:
            _check_weight_norm(*args)
        target = call.target.removeprefix("torch.ops.aten.")
        parts = _parts(target, args)
        if parts > MAX_PARTS:
            raise _RefusedError(f"{target} would make a list of {parts:,} tensors")
        steps = _steps(target, args, call.kwargs)
        if steps > MAX_STEPS:
            raise _RefusedError(f"{target} would take {steps:,} steps, more than {MAX_STEPS:,}")

    def after(self, call: Call, found: Any, freed: Sequence[str]) -> None:
        """Count what is held.

        Raises:
            _RefusedError: If it is beyond the limits.
        """
        parts = list(found) if call.several else [found]
        for name, value in zip(call.outputs, parts, strict=False):
            size = _bytes(value) if isinstance(value, Tensor) else 0
            self.total += size - self.live.get(name, 0)
            self.live[name] = size
        if self.total > MAX_LIVE:
            raise _RefusedError(
                f"its graph would hold {_size(self.total)} at one time for {self.batch} examples, "
                f"more than {_size(MAX_LIVE)}; {_ADVICE}"
            )
        for name in freed:
            self.total -= self.live.pop(name, 0)

    def _look(self, found: Any, target: str) -> None:
        if time.process_time() > self.end:
            raise _RefusedError(
                f"its graph takes more than {MAX_SECONDS:.0f} s to examine; {_ADVICE}"
            )
        for value in found if isinstance(found, (list, tuple)) else (found,):
            if not isinstance(value, Tensor):
                continue
            if value.dim() > MAX_AXES:
                raise _RefusedError(f"{target} would make a tensor of {value.dim()} axes")
            if _bytes(value) > MAX_TENSOR:
                raise _RefusedError(
                    f"{target} would make a tensor of {_size(_bytes(value))} for {self.batch} "
                    f"examples, more than {_size(MAX_TENSOR)}; {_ADVICE}"
                )


_ADVICE = "export the model for smaller examples, or a smaller model"


def _check_weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> None:
    wanted = [n if k == dim else 1 for k, n in enumerate(v.shape)]
    is_whole = dim == -1 and not g.dim()
    if v.dtype != g.dtype or not v.numel() or not (list(g.shape) == wanted or is_whole):
        raise _RefusedError(
            f"weight norm has magnitudes of shape {list(g.shape)}, expected {wanted}, of the "
            "weight's own type"
        )


def _parts(target: str, args: Sequence[Any]) -> int:
    """Return how many tensors a call returns in a list."""
    name, x = target.split(".")[0], args[0] if args else None
    if not isinstance(x, Tensor) or (len(args) < 2 and name != "unbind"):
        return 0
    if name == "unbind":
        return _length(x, args[1:])
    if name == "split" and isinstance(args[1], int):
        return -(-_length(x, args[2:]) // max(1, args[1]))
    return args[1] if name in ("chunk", "tensor_split") and isinstance(args[1], int) else 0


def _length(x: Tensor, dim: Sequence[Any]) -> int:
    axis = dim[0] if dim else 0
    return x.shape[axis] if -x.dim() <= axis < x.dim() else 0


def _steps(target: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Count the steps in time of a recurrent layer; of `diff`, how often it takes differences.

    Raises:
        _RefusedError: If a recurrent layer's arguments do not fit together.
    """
    if target == "diff.default":
        return MAX_STEPS * int(args[1] if len(args) > 1 else kwargs.get("n", 1)) // 100
    if target not in _RECURRENT:
        return 0
    if len(args) != 9:
        raise _RefusedError(f"{target} takes 9 arguments by their positions, not {len(args)}")
    x, _, weights, has_biases, layers, _, _, both, first = args
    _check_recurrent(target, x, weights, layers * (1 + both), 4 if has_biases else 2)
    return int(x.shape[1 if first else 0] * layers * (1 + both))


def _check_recurrent(target: str, x: Tensor, weights: Any, cells: int, each: int) -> None:
    counts = (cells * each, cells * (each + 1)) if target == "lstm.input" else (cells * each,)
    if cells < 1 or len(weights) not in counts:
        raise _RefusedError(
            f"{target} has {len(weights)} weights; {' or '.join(map(str, counts))} are expected"
        )
    if x.dim() != 3 or any(w.dtype != x.dtype or not w.dtype.is_floating_point for w in weights):
        raise _RefusedError(f"{target} takes floating tensors of one type, and sequences of 3 axes")


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _size(n: float) -> str:
    return f"{n / 1e9:,.1f} GB" if n < 1e15 else f"{n:.0e} bytes"
