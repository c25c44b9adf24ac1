"""Build the network of a config, whichever kind of config it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from merging.models.architectures.registry import (
    Config,
    architecture_of,
    build_model,
    example_inputs,
)
from merging.models.exported.blueprint_file import _from_blueprint
from merging.models.libraries import LIBRARIES, _from_library
from merging.models.network import Network
from merging.models.user_network import own_network
from merging.schema.errors import MergingError


def build_network(config: Config, *, blueprints: Callable[[str], Path] | None = None) -> Network:
    """Make the network of a config.

    Args:
        config: `{"architecture": …, …}`, as the table above.
        blueprints: Where the file of a blueprint is, by its fingerprint.

    Returns:
        The network; the weights that it holds mean nothing.

    Raises:
        UnknownNameError: If the config names nothing that is known here.
        MergingError: If its package is not installed, or cannot make it.
    """
    kind = str(config.get("architecture"))
    if kind == "exported":
        if blueprints is None:
            raise MergingError("a blueprint needs the store that holds it")
        return _from_blueprint(blueprints(config["blueprint"]))
    if kind == "own":
        return own_network(config["function"])
    if kind in LIBRARIES:
        return _from_library(kind, config)
    title = architecture_of(config).title
    return Network(build_model(config), example_inputs(config), title)
