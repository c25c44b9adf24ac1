"""The operators that a stranger's graph may call, with hostile arguments, in a process apart.

`python benchmarks/run.py fuzz_operators`, or `python -m benchmarks.fuzz_operators 600` for ten
minutes. Every call goes the way of a graph: arguments checked, sizes foreseen, then run. It may
be refused or computed. It must not end the process, change what it was given, or a setting.
"""

from __future__ import annotations

import logging
import mmap
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from merging.models.exported import foreseen
from merging.models.exported.allowed_operators import ALLOWED, TEXTS, find_operator
from merging.models.exported.call_arguments import Ref, check_arguments
from merging.models.exported.running_calls import Call, Program
from merging.schema.errors import MergingError

SECONDS = 300.0
_ROOT = Path(__file__).resolve().parents[1]
_ROOM = 1 << 26  # bytes of a tensor here, so that calls stay short
_SLOW = 5.0
_MEMORY = 12 << 30
_NAMES = sorted(ALLOWED)
_SIZES = (0, 1, 1, 2, 2, 3, 4, 5, 8)
_DTYPES = (
    *[torch.float32] * 6, torch.float64, *[torch.int64] * 3, torch.bool, torch.uint8, torch.int32,
    torch.float16, torch.bfloat16, torch.int8,
)  # fmt: skip
_INTEGERS = (0, -1, -2, 7, 100, 4097, 1 << 20, (1 << 30) + 1, (1 << 31) - 1, 1 - (1 << 31))
_NUMBERS = (
    0.0,
    -0.0,
    1e-45,
    1e-8,
    0.5,
    -1.5,
    3e38,
    1e308,
    float("inf"),
    -float("inf"),
    float("nan"),
)
_OTHERS: Mapping[str, Sequence[Any]] = MappingProxyType({
    "bool": (False, False, True),
    "ScalarType": _DTYPES,
    "MemoryFormat": (torch.contiguous_format, torch.channels_last, torch.preserve_format),
    "Layout": (torch.strided,),
    "Device": (torch.device("cpu"),),
})
_EQUATIONS = (
    "ij,jk->ik", "ii->i", "ij->ji", "bij,bjk->bik", "i,j", "...i,...i->...", "ab", "a,a,a->", "->",
    "ij,ij->", "iii", "abcd,abcd", "i->ii", "...,...->...", "ij,jk,kl->il",
)  # fmt: skip


def measure(seconds: float = SECONDS, seed: int | None = None) -> Iterator[str]:
    """Yield what came of the calls, and a line per failure.

    Raises:
        RuntimeError: If a call ended the process, or harmed anything, after all lines.
    """
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    end, start, failures = time.monotonic() + seconds, 0, 0
    with tempfile.NamedTemporaryFile() as place:
        place.write(bytes(8))
        place.flush()
        while (left := end - time.monotonic()) > 1:
            run = subprocess.run(
                [sys.executable, "-m", "benchmarks.fuzz_operators", "--apart",
                 str(seed), str(start), str(left), place.name],
                cwd=_ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            at = int.from_bytes(Path(place.name).read_bytes(), "little")
            yield from run.stdout.splitlines()
            failures += run.stdout.count("HARM")
            if run.returncode:
                failures += 1
                what = describe(seed, at)
                yield f"HARM: ended with {run.returncode} at call {at} (seed {seed}): {what}"
                yield run.stderr[-300:]
            start = at + 1
    yield f"seed {seed}, {start:,} calls"
    if failures:
        raise RuntimeError(f"{failures} calls did harm (seed {seed})")


def describe(seed: int, number: int) -> str:
    """Return what a call was, for reports."""
    call, values = make(seed, number)
    shapes = {k: (list(v.shape), str(v.dtype), v.stride()) for k, v in values.items()}
    return f"{call.target}{call.args} {dict(call.kwargs)} on {shapes}"


def make(seed: int, number: int) -> tuple[Call, dict[str, Tensor]]:
    """Return a call and the values that it refers to; the same for the same numbers."""
    rng = random.Random(f"{seed}.{number}")
    name = rng.choice(_NAMES)
    operator = find_operator(name)
    assert operator is not None
    values: dict[str, Tensor] = {}
    common = _shape(rng)
    args, kwargs = [], {}
    for argument in operator._schema.arguments:
        if argument.has_default_value() and rng.random() < 0.4:
            if not argument.kwarg_only:
                args.append(argument.default_value)
            continue
        value = _value(argument.name, str(argument.real_type), common, values, rng)
        if argument.kwarg_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    several = len(operator._schema.returns) > 1 or "[]" in str(operator._schema.returns)
    return Call(operator, f"torch.ops.aten.{name}", tuple(args), kwargs, (), several), values


def _shape(rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.choice(_SIZES) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 3, 4, 4, 5))))


def _value(
    name: str, kind: str, common: tuple[int, ...], values: dict[str, Tensor], rng: random.Random
) -> Any:
    if kind.startswith("Optional["):
        if rng.random() < 0.4:
            return None
        kind = kind.removeprefix("Optional[").removesuffix("]")
    if kind.startswith("List["):
        inner = kind.removeprefix("List[").removesuffix("]")
        few = rng.choice((0, 1, 1, 2, 2, 3, 3, 4, 6)) if rng.random() < 0.8 else len(common)
        return [_value(name, inner, common, values, rng) for _ in range(few)]
    if kind == "Tensor":
        values[key := f"v{len(values)}"] = _tensor(name, common, rng)
        return Ref(key)
    if kind == "str":
        return rng.choice(_EQUATIONS if name == "equation" else TEXTS[name])
    if kind == "int":
        return rng.choice(_INTEGERS) if rng.random() < 0.15 else rng.randrange(-1, 5)
    if kind in ("float", "number"):
        return rng.choice(_NUMBERS) if rng.random() < 0.5 else rng.randrange(-3, 4)
    return rng.choice(_OTHERS.get(kind, (None,)))


def _tensor(name: str, common: tuple[int, ...], rng: random.Random) -> Tensor:
    shape = common if rng.random() < 0.6 else _shape(rng)
    dtype = rng.choice(_DTYPES)
    if any(part in name for part in ("ind", "index")) and rng.random() < 0.8:
        dtype = torch.int64
    generator = torch.Generator().manual_seed(rng.randrange(1 << 31))
    if dtype.is_floating_point:
        made = torch.randn(shape, generator=generator).to(dtype)
        if rng.random() < 0.2:
            extreme = torch.tensor(rng.choice(_NUMBERS), dtype=torch.float64).to(dtype)
            made.view(-1)[: made.numel() // 2] = extreme
    else:
        low, high = rng.choice(((0, 2), (0, 5), (-3, 9), (-(1 << 40), 1 << 40), (-128, 127)))
        made = torch.randint(low, high, shape, generator=generator).to(dtype)
    if made.dim() > 1 and rng.random() < 0.2:
        made = made.transpose(0, rng.randrange(made.dim()))
    if made.dim() and rng.random() < 0.1:
        made = made[:1].expand(rng.choice(_SIZES), *made.shape[1:]) if made.shape[0] else made
    return made[..., ::2] if made.dim() and rng.random() < 0.1 else made


def _try(seed: int, number: int) -> tuple[str, str]:
    """Return what came of a call, and the harm that it did, if any."""
    call, values = make(seed, number)
    before = {name: value.clone() for name, value in values.items()}
    settings, random_state = _settings(), torch.get_rng_state()
    start = time.process_time()
    try:
        check_arguments(call.function, call.args, call.kwargs, lambda _: False)  # type: ignore[arg-type]
    except ValueError:
        return "refused", ""
    program = Program([call], [])
    # It takes ten times as long as the call itself.
    if _may_be_large(call) or call.target.endswith(foreseen.LOOKED_AT) or number % 50 == 0:
        try:
            with FakeTensorMode() as mode, foreseen._Budget(1) as budget, torch.no_grad():
                given = {k: foreseen._without_contents(mode, v) for k, v in values.items()}
                program.run(given, budget)
        except MergingError:
            return "foreseen", ""
    outcome = "computed"
    try:
        with torch.no_grad():
            program.run(dict(values))
    except MergingError:
        outcome = "failed"
    if any(not _same(values[name], before[name]) for name in values):
        return outcome, "changed what it was given"
    if _settings() != settings or not torch.equal(torch.get_rng_state(), random_state):
        return outcome, "changed a setting"
    taken = time.process_time() - start
    return outcome, f"took {taken:.1f} s" if taken > _SLOW else ""


def _may_be_large(call: Call) -> bool:
    listed = (*call.args, *call.kwargs.values())
    numbers = [n for value in listed for n in (value if isinstance(value, list) else (value,))]
    return any(isinstance(n, (int, float)) and not -9 < n < 9 for n in numbers)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _settings() -> tuple[Any, ...]:
    return (
        torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads(),
        torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip


def apart(seed: int, start: int, seconds: float, place: str) -> None:
    """Make calls until the time is over, noting each before it is made."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    foreseen.MAX_TENSOR = _ROOM
    counts: Counter[str] = Counter()
    end, number = time.monotonic() + seconds, start
    with Path(place).open("r+b") as file, mmap.mmap(file.fileno(), 8) as mark:
        while time.monotonic() < end:
            mark[:] = number.to_bytes(8, "little")
            try:
                outcome, harm = _try(seed, number)
            except Exception:
                outcome, harm = "odd", traceback.format_exc(limit=-2).replace("\n", " ")
            counts[outcome] += 1
            if harm:
                sys.stdout.write(f"HARM: {harm}: call {number}: {describe(seed, number)[:600]}\n")
                sys.stdout.flush()
            number += 1
    sys.stdout.write(", ".join(f"{n:,} {what}" for what, n in counts.most_common()) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--apart"]:
        apart(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
    else:
        for line in measure(float(sys.argv[1]) if sys.argv[1:] else SECONDS):
            sys.stdout.write(line + "\n")
