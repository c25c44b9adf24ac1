"""Recognise tensors that stand for weights but are none: factors of LoRA, quantised numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from merging.files.checkpoints.limits import short
from merging.files.checkpoints.tensor_spec import TensorSpec
from merging.schema.errors import CheckpointError

_LORA = re.compile(
    r"(^|[._])(lora_(A|B|a|b|up|down|embedding_[AB]|magnitude_vector)|hada_w[12]_[ab]"
    r"|lokr_w[12](_[ab])?)([._]|$)"
)
# What each kind of file names beside its packed numbers, or calls these.
_QUANTISED = {
    "GPTQ or AWQ": re.compile(r"(^|\.)(qweight|qzeros|g_idx)$"),
    "bitsandbytes, 8 bits": re.compile(r"(^|[._])(SCB|weight_format)$"),
    "bitsandbytes, 4 bits": re.compile(
        r"weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*)$"
    ),
    "HQQ": re.compile(r"(^|\.)W_q$"),
    "compressed tensors": re.compile(r"(^|\.)weight_(packed|zero_point)$"),
    "PyTorch": re.compile(r"(^|\.)_packed_params(\.|$)"),
}
_PACKED = frozenset({torch.int8, torch.uint8})


def check_weights_are_numbers(specs: Mapping[str, TensorSpec], name: str) -> None:
    """Make sure that a file holds weights, and not what weights are computed from.

    Args:
        specs: Shape and dtype of every tensor.
        name: What to call the file in the message.

    Raises:
        CheckpointError: If there are factors of LoRA or quantised tensors; the message names the
            first, and says what to do.

    Example:
        >>> check_weights_are_numbers({"w": TensorSpec((2,), torch.float32)}, "mine")
    """
    for key, spec in specs.items():
        if _LORA.search(key):
            raise CheckpointError(
                f"{name}: tensor {short(key)} is a factor of LoRA, and what is done to factors is "
                "not done to the weights that they make; merge the adapter into its base model "
                "first (merge_and_unload() of peft), and save that model"
            )
        if kind := _quantised(key, spec):
            raise CheckpointError(
                f"{name}: tensor {short(key)} is quantised ({kind}), and its numbers are not the "
                "weights; bring the checkpoint before it was quantised, or load the model, call "
                "its dequantize(), and save that in float16 or float32"
            )


def _quantised(key: str, spec: TensorSpec) -> str:
    for kind, pattern in _QUANTISED.items():
        if pattern.search(key):
            return kind
    is_matrix = len(spec.shape) > 1 and re.search(r"(^|[._])weight$", key)
    bits = str(spec.dtype).removeprefix("torch.")
    return f"its type is {bits}" if spec.dtype in _PACKED and is_matrix else ""
