"""The config of an architecture as text, read in one place: from a form, a request or a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from merging.models.architectures.registry import ARCHITECTURES
from merging.models.hub_config import MAX_SIZE, checked
from merging.schema.errors import ArchitectureMismatchError, UnknownNameError
from merging.schema.legible import legible

_MOST = 200_000  # characters; a config of transformers may list thousands of labels
_MARK = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w.:\-]{1,200}")


def read_config(text: str) -> dict[str, Any]:
    """Read a config from its JSON.

    Args:
        text: The JSON; may come from anybody.

    Returns:
        The config: its architecture is known here, and what says where it is has the right type.

    Raises:
        ArchitectureMismatchError: If it is not such a thing.
        UnknownNameError: If it names no architecture that is known.

    Example:
        >>> read_config('{"architecture": "mlp", "widths": [4, 3, 2]}')
        {'architecture': 'mlp', 'widths': [4, 3, 2]}
    """
    if len(text) > _MOST:
        raise ArchitectureMismatchError(
            f"the architecture is {len(text):,} characters long, more than the limit of {_MOST:,}; "
            "give a name such as torchvision:resnet18"
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchitectureMismatchError(
            f"the architecture {legible(text, most=80, lines=False)!r} is not JSON; give a name "
            "such as torchvision:resnet18, or leave it to the files"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("architecture"), str):
        raise ArchitectureMismatchError(
            f"the architecture {legible(text, most=80, lines=False)!r} does not name one; expected "
            'JSON such as {"architecture": "mlp", "widths": [4, 3, 2]}'
        )
    _check_kind(found)
    return found


def _check_kind(config: Mapping[str, Any]) -> None:
    """Make sure that a config says where its architecture is from, in a form that can be followed.

    Raises:
        ArchitectureMismatchError: If it does not.
        UnknownNameError: If nothing here is of that kind.
    """
    kind = config["architecture"]
    if kind == "exported":
        _check(config, "blueprint", _MARK, "64 hexadecimal digits")
    elif kind == "own":
        _check(config, "function", _NAME, "package.module:function")
    elif kind in ("torchvision", "timm"):
        _check(config, "name", _NAME, "a model's name")
        classes = config.get("classes")
        if classes is not None and not (type(classes) is int and 0 < classes <= MAX_SIZE):
            raise ArchitectureMismatchError(
                f"a config of {kind} has 'classes' = {legible(repr(classes), most=60)}, expected "
                f"a number up to {MAX_SIZE:,}"
            )
    elif kind == "transformers":
        checked(config, "the architecture")
    elif kind not in ARCHITECTURES:
        known = ", ".join((*ARCHITECTURES, "torchvision", "timm", "transformers"))
        raise UnknownNameError(
            f"unknown architecture {legible(kind, most=80)!r}; choose from {known}"
        )


def _check(config: Mapping[str, Any], key: str, form: re.Pattern[str], wanted: str) -> None:
    value = config.get(key)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ArchitectureMismatchError(
            f"a config of {config['architecture']} has {key!r} = "
            f"{legible(repr(value), most=60)}, expected {wanted}"
        )
