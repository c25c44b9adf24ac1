"""What the pickle in a PyTorch file may name, and what is made of it: records, never tensors.

Only the few names that a state dict needs make something, called only with the arguments that
`torch.save` writes. What lies beside the weights may name classes (settings, schedulers, losses);
those stay names, and nothing of them is imported or made. Names that only a file made to harm
would hold are refused, though they would stay names as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from merging.files.checkpoints.limits import HOW_TO_SAVE, refuse, short
from merging.files.pickle_values import Call, Inert, PickleRefusedError, inert, plain_values
from merging.schema.errors import CheckpointError


@dataclass(frozen=True)
class Storage:
    """Memory that tensors look at, as a file names it.

    Attributes:
        key: Its entry in the archive, below `data/`.
        dtype: Of its numbers.
        numel: How many it is said to have.
    """

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class View:
    """A tensor, as a file describes it: nothing of it is in memory.

    Attributes:
        storage: What it looks at.
        offset: Its first number in the storage.
        shape: Its sizes.
        stride: Steps between neighbours along each axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


_KINDS = MappingProxyType({
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
})  # fmt: skip
_STORAGES = {f"torch.{kind}Storage": dtype for kind, dtype in _KINDS.items()}
_OTHER_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "is sparse; save its to_dense()",
    "torch._utils._rebuild_sparse_csr_tensor": "is sparse; save its to_dense()",
    "torch._utils._rebuild_qtensor": "is quantised; save its dequantize()",
    "torch._utils._rebuild_nested_tensor": "is nested; save plain tensors",
    "torch._utils._rebuild_tensor_v3": "has a dtype that cannot be merged; save it as float32",
    "torch._utils._rebuild_meta_tensor_no_storage": (
        "is on the device 'meta', where tensors have no values; load the weights before saving"
    ),
    "torch._utils._rebuild_device_tensor_from_numpy": (
        "is on a device whose tensors PyTorch keeps as pickled arrays; save its cpu()"
    ),
    "torch._utils._rebuild_from_type_v2": (
        "is of a class of its own, or carries attributes; save its detach().clone()"
    ),
}
# What training frameworks keep beside the weights: never made, but no reason to refuse the file.
_HARMLESS = {
    "argparse.Namespace", "types.SimpleNamespace", "builtins.set", "__builtin__.set",
    "builtins.slice", "builtins.complex", "builtins.list", "builtins.dict", "builtins.int",
    "builtins.float", "__builtin__.list", "__builtin__.dict", "__builtin__.int",
    "__builtin__.long", "__builtin__.float", "builtins.bool", "__builtin__.bool", "builtins.str",
    "__builtin__.str", "__builtin__.unicode", "builtins.tuple", "__builtin__.tuple",
    "builtins.object", "__builtin__.object", "builtins.frozenset", "__builtin__.frozenset",
    "datetime.timedelta", "datetime.datetime",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib._local.PosixPath",
    "collections.defaultdict", "collections.deque", "_codecs.encode",
    "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar", "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
}  # fmt: skip

# Where what could do harm is at home: no settings are from there, so such a file is no honest one.
_NO_SETTINGS = {
    "builtins", "__builtin__", "os", "posix", "nt", "posixpath", "ntpath", "sys", "subprocess",
    "pty", "shutil", "socket", "ctypes", "importlib", "runpy", "imp", "pkgutil", "zipimport",
    "code", "codeop", "codecs", "_codecs", "marshal", "pickle", "_pickle", "cPickle", "copyreg",
    "copy_reg", "operator", "_operator", "types", "inspect", "gc", "signal", "threading",
    "multiprocessing", "webbrowser", "urllib", "http", "ftplib", "smtplib", "pip", "site", "io",
    "_io", "tempfile", "commands", "pdb", "bdb", "timeit", "trace", "profile", "cProfile",
    "asyncio", "atexit", "fileinput", "glob", "linecache", "logging", "platform", "numpy",
    "joblib", "dill", "cloudpickle",
}  # fmt: skip
_TORCH_CLASSES = (
    "torch.nn.", "torch.optim.", "torch.torch_version.TorchVersion", "torch.distributions.",
)  # fmt: skip


def _may_stand_beside(full: str) -> bool:
    home = full.split(".")[0]
    if home == "torch":
        return full.startswith(_TORCH_CLASSES)
    if home == "functools":
        return full == "functools.partial"
    return home not in _NO_SETTINGS


def read_records(pickled: bytes, name: str) -> Any:
    """Work out what the pickle of a PyTorch file describes; it is followed, never run.

    Args:
        pickled: The `data.pkl` of a PyTorch file.
        name: What to call the file in the message.

    Returns:
        Plain values, with a `View` for each tensor.

    Raises:
        CheckpointError: If it holds anything else, or is damaged.
    """
    try:
        return plain_values(pickled, lambda full, near: _call_of(full, near, name), _storage)
    except PickleRefusedError as error:
        raise CheckpointError(
            f"{name}: its data.pkl is damaged, or not as torch.save writes it ({error}); "
            f"{HOW_TO_SAVE}"
        ) from error


def _call_of(full: str, near: str, name: str) -> Call:
    if full in _OTHER_TENSORS:
        refuse(name, near, _OTHER_TENSORS[full])
    if full in _CALLS:
        return _CALLS[full]
    if full in _HARMLESS or full in _DTYPES or full in _STORAGES:
        return inert(full)
    if _may_stand_beside(full):
        return inert(full)
    raise not_read(full, name)


def not_read(full: str, name: str) -> CheckpointError:
    """Return the error of a file that holds something by this name where weights should be.

    Args:
        full: The name of a function or class, with its module.
        name: What to call the file in the message.

    Returns:
        The error, to be raised.
    """
    return CheckpointError(
        f"{name}: holds {short(full)}, which is not a tensor and could run code, so it is not "
        f"read. Open it where you trust it and {HOW_TO_SAVE}"
    )


def _storage(reference: object) -> Storage:
    match reference:
        case ("storage", kind, str(key), str(), int(numel)) if numel >= 0:
            # Where the tensor lay when it was saved, the fourth, does not matter.
            dtype = _STORAGES.get(getattr(kind, "name", ""))
            if dtype is not None:
                return Storage(key, dtype, numel)
    raise PickleRefusedError("it refers to a storage in an unusual way")


def _view(arguments: tuple[object, ...]) -> View:
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(stride), *_):
            if _counts((offset, *shape, *stride)) and len(shape) == len(stride):
                return View(storage=storage, offset=offset, shape=shape, stride=stride)
    raise _unusual("a tensor")


def _parameter(arguments: tuple[object, ...]) -> View:
    match arguments:
        case (View() as view, *_):
            return view
    raise _unusual("a parameter")


def _ordered(arguments: tuple[object, ...]) -> dict[object, object]:
    if arguments == ():
        return {}
    raise _unusual("a dict")


def _counter(arguments: tuple[object, ...]) -> dict[object, object]:
    match arguments:
        case () | (dict(),):
            return {}  # what was counted is nothing that a model needs
    raise _unusual("a dict")


def _size(arguments: tuple[object, ...]) -> tuple[object, ...]:
    match arguments:
        case (tuple(sizes),) if _counts(sizes):
            return sizes
    raise _unusual("a shape")


def _counts(numbers: tuple[object, ...]) -> bool:
    return all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)


def _unusual(what: str) -> PickleRefusedError:
    return PickleRefusedError(f"it makes {what} with unusual arguments")


_DTYPES = {str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)}
_CALLS: MappingProxyType[str, Callable[[tuple[object, ...]], object]] = MappingProxyType({
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "torch.Size": _size,
    "torch.device": lambda _: Inert("torch.device"),
    "torch.serialization._get_layout": lambda _: Inert("torch.layout"),
})


def span(view: View) -> int:
    """Return how many numbers of its storage a tensor reaches over, from its first to its last.

    Example:
        >>> storage = Storage("0", torch.float32, 6)
        >>> span(View(storage, 1, (2, 2), (3, 1)))
        5
    """
    if 0 in view.shape:
        return 0
    reach = (math.prod(pair) for pair in zip((n - 1 for n in view.shape), view.stride, strict=True))
    return 1 + sum(reach)
