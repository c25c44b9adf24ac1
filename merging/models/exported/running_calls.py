"""Run the calls of a stranger's graph, so that nothing it is given is ever written to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch._ops import OpOverload

from merging.models.exported.call_arguments import Ref
from merging.schema.errors import MergingError


class Watch(Protocol):
    """Who looks at a run."""

    def before(self, call: Call, args: Sequence[Any]) -> None:
        """See what a call is given."""

    def after(self, call: Call, found: Any, freed: Sequence[str]) -> None:
        """See what it returned, and which values nobody reads any more."""


# Whose results share no memory with what they are given; of all others it is supposed.
_FRESH = frozenset((
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "add", "sub",
    "conv_transpose3d", "mul", "div", "matmul", "mm", "bmm", "addmm", "baddbmm", "embedding", "cat",
    "batch_norm", "layer_norm", "group_norm", "rms_norm", "clone", "lstm", "gru", "rnn_tanh",
    "rnn_relu", "scaled_dot_product_attention", "index_select", "gather", "stack",
))  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One operator call; references to values are `Ref`s, wherever they stand.

    Attributes:
        function: What is called.
        target: Its name in the archive.
        args: Positional arguments.
        kwargs: Arguments by name.
        outputs: Names of what it returns; an empty name is not kept.
        several: Whether it returns a list or tuple.
    """

    function: Callable[..., Any]
    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[str, ...]
    several: bool

    @property
    def reads(self) -> Iterator[str]:
        """Go through what it is given.

        Yields:
            Names of values.
        """
        yield from _references([*self.args, *self.kwargs.values()])

    @property
    def writes(self) -> tuple[str, ...]:
        """Names of the values that it writes into."""
        if not isinstance(self.function, OpOverload):
            return ()
        arguments = self.function._schema.arguments
        given = {
            **dict(zip((a.name for a in arguments), self.args, strict=False)),
            **self.kwargs,
        }
        written = [
            given[a.name] for a in arguments
            if a.alias_info is not None and a.alias_info.is_write and a.name in given
        ]  # fmt: skip
        return tuple(_references(written))


class Program:
    """Calls in order, and what is known of them before they run.

    Args:
        calls: The calls.
        outputs: What is returned; references and lists of references.

    Attributes:
        written: Names of given values whose memory some call may write into.
    """

    def __init__(self, calls: Sequence[Call], outputs: Sequence[Any]) -> None:
        self.calls = tuple(calls)
        self.outputs = tuple(outputs)
        self.written = _written(calls)
        self._frees = _frees(calls, set(_references(outputs)))

    def run(self, values: dict[str, Any], watch: Watch | None = None) -> tuple[Any, ...]:
        """Run the calls.

        Args:
            values: What is given, by name; the dict is used up, what it holds is left as it is.
            watch: Who looks at every call.

        Returns:
            The outputs.

        Raises:
            MergingError: If an operator refuses what it is given.
        """
        for name in self.written & values.keys():
            if isinstance(values[name], Tensor):
                values[name] = values[name].clone()
        for number, (call, frees) in enumerate(zip(self.calls, self._frees, strict=True)):
            try:
                args = [_filled(argument, values) for argument in call.args]
                kwargs = {key: _filled(value, values) for key, value in call.kwargs.items()}
                if watch is not None:
                    watch.before(call, args)
                found = call.function(*args, **kwargs)
                if watch is not None:
                    watch.after(call, found, frees)
                _keep(call, found, values)
            except MergingError:
                raise
            except Exception as error:  # operators raise anything on what they cannot take
                raise MergingError(_in_words(call, number, error)) from error
            for name in frees:
                values.pop(name, None)
        return tuple(_filled(output, values) for output in self.outputs)


def _keep(call: Call, found: Any, values: dict[str, Any]) -> None:
    if call.several:
        values.update(zip(call.outputs, found, strict=True))
    elif call.outputs:
        values[call.outputs[0]] = found


def _in_words(call: Call, number: int, error: Exception) -> str:
    short = call.target.removeprefix("torch.ops.")
    reason = str(error).strip().split("\n")[0][:300]
    if isinstance(error, MemoryError) or "alloc" in reason.lower():
        return (
            f"there is not enough memory for call {number + 1} ({short}) of the model's graph; "
            "use fewer or smaller examples, or a smaller model"
        )
    return (
        f"call {number + 1} ({short}) of the model's graph cannot be computed: "
        f"{reason or type(error).__name__}"
    )


def _written(calls: Sequence[Call]) -> frozenset[str]:
    """Return the values that come from outside and whose memory may be written into."""
    made = {name for call in calls for name in call.outputs}
    # For every value, what it may share memory with; one shared set per memory.
    homes: dict[str, str] = {}

    def home(name: str) -> str:
        while homes.get(name, name) != name:
            homes[name] = homes.get(homes[name], homes[name])
            name = homes[name]
        return name

    for call in calls:
        packet = call.target.removeprefix("torch.ops.aten.").split(".")[0]
        if packet in _FRESH or not isinstance(call.function, OpOverload):
            continue
        # What writes returns what it wrote into; of anything else any argument may come back.
        one, *others = [*(call.writes or call.reads), *call.outputs] or [""]
        for other in others:
            homes[home(other)] = home(one)
    touched = {home(name) for call in calls for name in call.writes}
    given = {name for call in calls for name in call.reads} - made
    return frozenset(name for name in given if home(name) in touched)


def _frees(calls: Sequence[Call], kept: set[str]) -> list[tuple[str, ...]]:
    """Return for every call the values that nobody reads after it."""
    known, found = set(kept), []
    for call in reversed(calls):
        last = {name for name in (*call.reads, *call.outputs) if name not in known}
        known |= last
        found.append(tuple(last))
    return found[::-1]


def _references(argument: Any) -> Iterator[str]:
    if isinstance(argument, Ref):
        yield argument.name
    elif isinstance(argument, (list, tuple)):
        for item in argument:
            yield from _references(item)


def _filled(argument: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, list):
        return [_filled(item, values) for item in argument]
    return argument
