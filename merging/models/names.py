"""Fit the names of a file to those of a network: wrappers, converted names, what lies beside.

Wrappers may stand anywhere in a name (`encoder.module.`, `_orig_mod.`), and a training module may
hold the network under a name, beside its loss and metrics. Names are matched only where each of the
network's is found once; otherwise they stay, and are refused with what differs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from merging.models.network import Network, tied_names

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COUNTER = "num_batches_tracked"
# Weight norm as PyTorch keeps it since 2.0, and as it was kept before.
_PARAMETRIZED = re.compile(r"(^|\.)parametrizations\.(\w+)\.original([01])$")
_BESIDE = re.compile(
    r"n_averaged$|(criterion|loss|loss_fn|loss_function|metrics?)\."
    r"|((train|val|valid|test)_\w+|\w+_(acc|accuracy|loss|metrics?))\."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A state dict by the names of a network.

    Attributes:
        homes: For every name, the one in the file; names that the file lacks are left out.
        prefix: What stands before all names of the network in the file.
        ignored: Names in the file that are not of the network.
        counters: Names of batch counters that the file lacks; PyTorch takes 0 for them.
    """

    homes: Mapping[str, str]
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()


def fit_names(params: Mapping[str, Tensor], network: Network) -> Fitted:
    """Find the names of a network in a file.

    Args:
        params: The file's tensors; only their names are looked at.
        network: The network.

    Returns:
        Where each name is; the file's own names where they do not fit.

    Example:
        >>> from torch import nn
        >>> network = Network(nn.Linear(1, 1), (), "a layer")
        >>> names = dict.fromkeys(["module.weight", "module.bias", "n_averaged"])
        >>> fit_names(names, network).homes
        {'weight': 'module.weight', 'bias': 'module.bias'}
    """
    as_it_is = Fitted(homes={key: key for key in params})
    wanted = list(network.model.state_dict())
    own, given = _by_plain_name(wanted), _by_plain_name(params)
    if own is None or given is None or set(params) == set(wanted):
        return as_it_is
    found = [prefix for prefix in _prefixes(own, given) if _covers(prefix, own, given, network)]
    prefix = "" if "" in found else found[0] if len(found) == 1 else None
    if prefix is None:
        return as_it_is
    homes = {name: given[prefix + key] for key, name in own.items() if prefix + key in given}
    ignored = tuple(key for key in params if key not in set(homes.values()))
    for key in ignored:
        if not _BESIDE.match(key) if not prefix else key.startswith(prefix):
            return as_it_is  # the network would have to be another one
    counters = tuple(n for n in wanted if n not in homes and n.endswith(_COUNTER))
    return Fitted(homes=homes, prefix=prefix, ignored=ignored, counters=counters)


def _plain(name: str) -> str:
    kept = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return _PARAMETRIZED.sub(lambda m: f"{m[1]}{m[2]}_{'gv'[int(m[3])]}", kept)


def _by_plain_name(names: Iterable[str]) -> dict[str, str] | None:
    """Name without wrappers → name; None where two would be one."""
    names = list(names)
    found = {_plain(name): name for name in names}
    return found if len(found) == len(names) else None


def _prefixes(own: Iterable[str], given: Collection[str]) -> list[str]:
    first = list(own)[:3]  # of which a file may lack one that is tied to another
    ends = [(key, f".{name}") for name in first for key in given]
    found = [key.removesuffix(end) + "." for key, end in ends if key.endswith(end)]
    return list(dict.fromkeys(["", *found]))


def _covers(prefix: str, own: Mapping[str, str], given: Collection[str], network: Network) -> bool:
    there = {name for key, name in own.items() if prefix + key in given}
    for names in tied_names(network):
        if there & set(names):
            there |= set(names)
    return bool(there) and all(n in there or n.endswith(_COUNTER) for n in own.values())
