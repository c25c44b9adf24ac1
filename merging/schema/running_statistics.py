"""Which tensors of a state dict are running statistics, by PyTorch's names."""

from __future__ import annotations

RUNNING_STATISTICS = ("running_mean", "running_var")


def is_running_statistic(name: str) -> bool:
    """Return whether a tensor is a norm's running mean or variance.

    Args:
        name: The tensor's, as the state dict has it.

    Example:
        >>> is_running_statistic("layer1.norm.running_var")
        True
    """
    return name.rpartition(".")[2] in RUNNING_STATISTICS
