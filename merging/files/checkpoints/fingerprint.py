"""What identifies the weights in a checkpoint, whatever file they lie in."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint(params: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and values.

    Two models have the same fingerprint if and only if they are equal bit for bit; the order of
    the names, strides, devices and file formats do not count.

    Args:
        params: Dense tensors of any dtype and device.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> fingerprint({"w": torch.zeros(2)})[:12]
        '09248d5aa49b'
    """
    digest = hashlib.sha256()
    for name in sorted(params):
        tensor = params[name].detach().cpu().contiguous()
        head = json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode()
        digest.update(struct.pack("<Q", len(head)) + head)
        raw = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)
        if sys.byteorder == "big":
            raw = raw.view(-1, tensor.element_size()).flip(1)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
