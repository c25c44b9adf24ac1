"""Functions of whoever started this process: they make a model, or examples.

They run with all rights, so they are named where the process is started and nowhere else: in the
environment, or after `--` on the command line of the app. A request can only repeat the name.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from merging.schema.errors import MergingError

OWN_MODEL, OWN_DATA = "ONE_BASIN_MODEL", "ONE_BASIN_DATA"
PACKAGES = ("torchvision", "timm")  # `torchvision:resnet18` names a model of theirs
_FUNCTION = re.compile(r"[^\W\d][\w.]+:[^\W\d]\w*")
# What a function returns may be another thing after the next start.
STARTED = f"{time.time_ns():x}"


def read_arguments(words: Sequence[str]) -> None:
    """Take `--model` and `--data` from a command line, and leave the rest of it to others.

    Args:
        words: The command line, without the program's name.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--model")
    parser.add_argument("--data")
    given, _ = parser.parse_known_args(list(words))
    for variable, function in ((OWN_MODEL, given.model), (OWN_DATA, given.data)):
        if function:
            os.environ[variable] = function


def is_function(name: str) -> bool:
    """Return whether a word of the command line is a function's name, and no file's or package's.

    Example:
        >>> is_function("mypackage.data:digits"), is_function("digits.npz")
        (True, False)
    """
    package = name.partition(":")[0]
    return package not in PACKAGES and bool(_FUNCTION.fullmatch(name)) and not Path(name).exists()


def call_own(function: str, variable: str) -> Any:
    """Call a function of the server's own.

    Args:
        function: `package.module:function`; has to be what the variable names, so that no request
            can have any other function called.
        variable: `OWN_MODEL` or `OWN_DATA`.

    Returns:
        What it returns.

    Raises:
        MergingError: If it is another one, cannot be imported, or fails.
    """
    option = _OPTIONS[variable]
    if function != os.environ.get(variable):
        raise MergingError(
            f"the function {function!r} is not the one that this server was started with; start it "
            f"with {option} {function}"
        )
    return call_named(function, option)


def call_named(function: str, option: str) -> Any:
    """Call `package.module:function`; only for callers who may run any code anyway.

    Args:
        function: Its name.
        option: Where it was given, for messages.

    Returns:
        What it returns.

    Raises:
        MergingError: If there is no such function, or it fails.
    """
    module, _, name = function.partition(":")
    if not module or not name:
        raise MergingError(f"{option} takes package.module:function, not {function!r}")
    try:
        return getattr(importlib.import_module(module), name)()
    except Exception as error:  # somebody's own code may raise anything
        raise MergingError(f"{option} {function}: {type(error).__name__}: {error}") from error


_OPTIONS = {OWN_MODEL: "--model", OWN_DATA: "--data"}
