"""What is known of a tensor before it is read: its shape and dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor is, without its values.

    Attributes:
        shape: Its sizes.
        dtype: Of its numbers.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize
