"""Factors of LoRA and quantised tensors are refused by name, with the way out."""

from __future__ import annotations

import io

import pytest
import torch

from merging.files.checkpoints.read import read_checkpoint_bytes
from merging.files.checkpoints.write import checkpoint_bytes, write_checkpoint
from merging.fusion import fuse_files
from merging.schema.errors import CheckpointError

FLOAT, INT32 = torch.ones(4, 4), torch.ones(2, 4, dtype=torch.int32)
INT8, BYTES = INT32.to(torch.int8), INT32.to(torch.uint8)
FACTORS = {
    "peft": {"q.lora_A.weight": FLOAT, "q.lora_B.weight": FLOAT},
    "peft, with its wrapper": {"base_model.model.q.lora_A.default.weight": FLOAT},
    "kohya": {"lora_unet_q.lora_down.weight": FLOAT, "lora_unet_q.lora_up.weight": FLOAT},
    "an embedding": {"e.lora_embedding_A": FLOAT},
    "DoRA beside weights": {"q.weight": FLOAT, "q.lora_magnitude_vector.weight": FLOAT},
    "LoHa": {"q.hada_w1_a": FLOAT},
}
QUANTISED = {
    "GPTQ": {"q.qweight": INT32, "q.qzeros": INT32, "q.scales": FLOAT, "q.g_idx": INT32},
    "bitsandbytes int8": {"l.weight": INT8, "l.SCB": torch.ones(2)},
    "packed 4-bit": {"l.weight": BYTES, "l.weight.absmax": torch.ones(4)},
    "int8 alone": {"l.bias": FLOAT, "l.weight": INT8},
    "compressed tensors": {"l.weight_packed": INT32, "l.weight_scale": FLOAT},
    "HQQ": {"l.W_q": BYTES},
}


def torch_file(tensors):
    file = io.BytesIO()
    torch.save({"state_dict": tensors}, file)
    return file.getvalue()


@pytest.mark.parametrize("write", [checkpoint_bytes, torch_file])
@pytest.mark.parametrize("kind", FACTORS)
def test_factors_of_lora_are_refused(kind, write):
    with pytest.raises(CheckpointError, match=r"^mine: tensor .* factor of LoRA.*merge_and_unload"):
        read_checkpoint_bytes(write(FACTORS[kind]), "mine")


@pytest.mark.parametrize("write", [checkpoint_bytes, torch_file])
@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_tensors_are_refused(kind, write):
    with pytest.raises(CheckpointError, match=r"^mine: tensor .* is quantised.*dequantize\(\)"):
        read_checkpoint_bytes(write(QUANTISED[kind]), "mine")


@pytest.mark.parametrize("tensors", [*FACTORS.values(), *QUANTISED.values()])
def test_such_files_are_not_fused(tensors, tmp_path):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, tensors)
    with pytest.raises(CheckpointError, match=r"factor of LoRA|is quantised"):
        fuse_files("average", [path, path], tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_names_and_types_that_only_look_alike_are_read():
    mask = {"h.0.attn.bias": BYTES, "explora.weight": FLOAT, "n.scales": FLOAT, "ids": INT8}
    assert set(read_checkpoint_bytes(checkpoint_bytes(mask), "mine")[0]) == set(mask)
