"""What a `config.json` of transformers may say: known settings of known architectures, in bounds.

Such a file comes from a stranger. The package's own factory would take any key in it: ask a hub for
a backbone, load foreign kernels, or build a million layers. So only what is listed here, or is a
field of the architecture's own settings, is handed on, with types and sizes checked before anything
is built; what only describes the file (`auto_map`, `_name_or_path`, `torch_dtype`, …) is left out.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from merging.schema.errors import ArchitectureMismatchError, MergingError, UnknownNameError
from merging.schema.legible import legible

MODEL_TYPES = frozenset({
    "albert", "bart", "beit", "bert", "bloom", "camembert", "clip", "clip_text_model",
    "clip_vision_model", "convnext", "convnextv2", "deberta", "deberta-v2", "deit", "dinov2",
    "distilbert", "electra", "gemma", "gemma2", "gpt2", "gpt_neo", "gpt_neox", "gptj", "llama",
    "mbart", "mistral", "mobilebert", "mpnet", "mt5", "olmo", "olmo2", "opt", "phi", "phi3",
    "poolformer", "qwen2", "qwen3", "regnet", "resnet", "roberta", "roformer", "segformer",
    "siglip", "siglip_vision_model", "smollm3", "stablelm", "starcoder2", "swin", "swinv2", "t5",
    "vit", "xlm-roberta",
})  # fmt: skip

MAX_BYTES = 2_000_000_000  # of parameters and buffers, as for the weights of a file
MAX_LAYERS = 256
MAX_SIZE = 1 << 20  # of a vocabulary, a width, a number of positions
_MAX_NUMBER = 1e12  # of what is not a size: an angle's base, a bias of masks
_MAX_ENTRIES = 512
_MAX_DEPTH = 4
_MAX_LABELS = 100_000
_MAX_PIXELS = 1 << 24

# Another network than these settings say, or weights in a form that is not read here.
_REFUSED = (
    "backbone", "backbone_config", "backbone_kwargs", "compression_config", "quantization_config",
    "use_pretrained_backbone", "use_timm_backbone",
)  # fmt: skip
# Settings that older files or versions have, beside the fields of the architecture's own.
_ALSO = (
    "add_cross_attention", "is_decoder", "num_labels", "partial_rotary_factor", "rope_parameters",
    "rope_scaling", "rope_theta", "tie_word_embeddings",
)  # fmt: skip
_NOTES = (
    "architectures", "attn_implementation", "auto_map", "dtype", "model_type", "problem_type",
    "task_specific_params", "torch_dtype",
)  # fmt: skip
_LAYERS = re.compile(r"layer|depths|repeats|blocks|stages|groups?(_num)?$|networks|attention_types")
_WORDS = re.compile(r"act$|act_|activation|type|^summary_|feed_forward_proj|rope")
_WORD = re.compile(r"[A-Za-z0-9_|+-]{0,40}")


def read_settings(text: str, name: str) -> dict[str, Any]:
    """Read a Hugging Face folder's `config.json`; needs no package.

    Args:
        text: The file's text.
        name: What to call the file in messages.

    Returns:
        `class`, `model_type`, and the settings that may be handed on as `config`.

    Raises:
        MergingError: If it names no architecture that is known, or a setting is refused.

    Example:
        >>> text = '{"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8}'
        >>> read_settings(text, "mine")["config"]
        {'hidden_size': 8}
    """
    try:
        found = json.loads(text)
        (class_name,) = found["architectures"]
        model_type = found["model_type"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MergingError(
            f"{legible(name, most=80)}: its config.json does not name one architecture and a "
            "model_type; save the model again with save_pretrained"
        ) from error
    return checked({"class": class_name, "model_type": model_type, "config": found}, name)


def checked(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return settings that are in bounds, wherever they came from.

    Args:
        config: `class`, `model_type` and `config`.
        name: What to call their source in messages.

    Returns:
        The same, without what is not handed on.

    Raises:
        UnknownNameError: If the architecture is none that is known here.
        ArchitectureMismatchError: If a setting is refused.
    """
    where = f"{legible(name, most=80)}: its config.json"
    class_name, model_type = config.get("class"), config.get("model_type")
    settings = config.get("config")
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        raise UnknownNameError(
            f"{where} is of the model type {_shown(model_type)}; known are "
            f"{', '.join(sorted(MODEL_TYPES))}. Export any other as a .pt2 archive"
        )
    if not isinstance(class_name, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,80}", class_name):
        raise UnknownNameError(f"{where} names no class of transformers: {_shown(class_name)}")
    if not isinstance(settings, Mapping):
        raise ArchitectureMismatchError(f"{where} holds no settings; save the model again")
    return {"class": class_name, "model_type": model_type, "config": _kept(settings, where, 0)}


def own_settings(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the settings that an architecture has.

    Args:
        kind: The package's class of its settings.
        settings: Checked ones.

    Returns:
        What to make `kind` from.
    """
    inner: Mapping[str, type] = getattr(kind, "sub_configs", {})
    known = {*_fields(kind), *_ALSO}
    return {
        key: own_settings(inner[key], value)
        if key in inner and isinstance(value, Mapping)
        else value
        for key, value in settings.items()
        if key in known
    }


def check_pixels(shape: tuple[int, ...], name: str) -> None:
    """Make sure that an example of images is of a size that can be made.

    Raises:
        ArchitectureMismatchError: If it is not.
    """
    if math.prod(shape) > _MAX_PIXELS:
        raise ArchitectureMismatchError(
            f"{name} reads images of {' × '.join(map(str, shape[1:]))} numbers; at most "
            f"{_MAX_PIXELS // shape[0]:,} can be looked at here"
        )


def check_bytes(model: nn.Module, name: str) -> None:
    """Make sure that a network fits, before it is built with memory of its own.

    Args:
        model: The network, on the device `meta`.
        name: What to call it in the message.

    Raises:
        ArchitectureMismatchError: If it does not.
    """
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > MAX_BYTES:
        raise ArchitectureMismatchError(
            f"{name} with these settings takes {size:,} bytes, more than the limit of "
            f"{MAX_BYTES:,}; use a smaller model"
        )


def _fields(kind: type) -> set[str]:
    """Return what an architecture's settings are called, less what all architectures have."""
    if dataclasses.is_dataclass(kind):
        names = {field.name for field in dataclasses.fields(kind)}
        base = next((k for k in kind.__mro__ if k.__name__.lower() == "pretrainedconfig"), object)
        every = {f.name for f in dataclasses.fields(base)} if dataclasses.is_dataclass(base) else ()
        return {name for name in names.difference(every) if not name.startswith("_")}
    return set(inspect.signature(kind).parameters) - {"self", "kwargs"}


def _kept(settings: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
    """Return what of some settings may be handed on, their values checked.

    Raises:
        ArchitectureMismatchError: If a setting is refused.
    """
    for key in _REFUSED:
        if settings.get(key):
            raise ArchitectureMismatchError(
                f"{where} has {key!r}, which is not followed here; export the model as a .pt2 "
                "archive, or save it without"
            )
    found = {}
    for key, value in settings.items():
        if key in ("id2label", "label2id"):
            found["num_labels"] = _labels(value, where)
        elif not key.startswith("_") and _is_setting(key, value):
            found[key] = _value(key, value, where, depth)
    return found


def _is_setting(key: str, value: object) -> bool:
    """Return whether a key of this value can be a setting; files also hold notes on themselves."""
    return key not in _NOTES and (not isinstance(value, str) or bool(_WORDS.search(key)))


def _labels(value: object, where: str) -> int:
    if not isinstance(value, Mapping) or not 0 < len(value) <= _MAX_LABELS:
        raise ArchitectureMismatchError(
            f"{where} names no labels or too many; expected 1 to {_MAX_LABELS:,}"
        )
    return len(value)


def _value(key: str, value: Any, where: str, depth: int) -> Any:
    """Return a value that is in bounds.

    Raises:
        ArchitectureMismatchError: If it is not.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        _check(depth < _MAX_DEPTH and len(value) <= _MAX_ENTRIES, key, value, "fewer parts", where)
        inner = _kept(value, where, depth + 1)
        return inner if "config" in key else {k: inner[k] for k in value if k in inner}
    if isinstance(value, list):
        _check(depth < _MAX_DEPTH and len(value) <= _MAX_ENTRIES, key, value, "fewer parts", where)
        parts = [_value(key, part, where, depth + 1) for part in value]
        if _LAYERS.search(key):
            total = sum(part for part in parts if isinstance(part, int))
            _check(total <= MAX_LAYERS, key, total, f"at most {MAX_LAYERS} in all", where)
        return parts
    if isinstance(value, str):
        _check(bool(_WORD.fullmatch(value)), key, value, "a short word", where)
        return value
    return _number(key, value, where)


def _number(key: str, value: Any, where: str) -> int | float:
    is_size = isinstance(value, int) and "rope" not in key
    most = MAX_LAYERS if is_size and _LAYERS.search(key) else MAX_SIZE if is_size else _MAX_NUMBER
    in_bounds = isinstance(value, (int, float)) and abs(value) <= most  # NaN is not
    _check(in_bounds, key, value, f"a number up to {most:,.0f}", where)
    found: int | float = value
    return found


def _check(holds: bool, key: str, value: object, wanted: str, where: str) -> None:
    if not holds:
        raise ArchitectureMismatchError(
            f"{where} has {_shown(key)} = {_shown(value)}, expected {wanted}"
        )


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than thirty digits"
    return legible(repr(value), most=60)
