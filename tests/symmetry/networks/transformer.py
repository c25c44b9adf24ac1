"""Transformers, built from their published configurations with random weights.

Those of Hugging Face's transformers are the definitions that their checkpoints are used with;
nothing is downloaded. Norms and biases are drawn, not ones and zeros, which would hide mistakes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers

transformers.logging.set_verbosity_error()

TOKENS, VOCABULARY = 8, 50


class Outputs(nn.Module):
    """A model of Hugging Face with its inputs in order, and one of its outputs."""

    def __init__(self, model: nn.Module, inputs: Sequence[str], output: str = "logits"):
        super().__init__()
        self.model, self.names, self.output = model, tuple(inputs), output

    def forward(self, *inputs: Tensor) -> Tensor:
        found = self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=True)
        return getattr(found, self.output)


def token_ids(vocabulary: int, tokens: int = TOKENS) -> Tensor:
    """Two rows of token ids, the smallest and the largest among them."""
    ids = torch.randint(0, vocabulary, (2, tokens))
    ids[0, 0], ids[0, 1] = 0, vocabulary - 1
    return ids


def token_mask() -> Tensor:
    """All tokens of one row, and all but two of the other."""
    mask = torch.ones(2, TOKENS, dtype=torch.long)
    mask[1, -2:] = 0
    return mask


def generic(model: nn.Module) -> nn.Module:
    """Draw what is initialised to a constant: norms, biases, position biases, class tokens."""
    for parameter in model.parameters():
        if parameter.numel() > 1 and parameter.min() == parameter.max():
            parameter.data.add_(torch.rand_like(parameter) - 0.5)
    return model.eval()


def pretrained(
    build: str,
    config: str,
    inputs: dict[str, Callable[[Any], Tensor]],
    tiny: dict[str, Any],
    *,
    output: str = "logits",
    **options: Any,
) -> Callable[..., tuple[nn.Module, tuple[Tensor, ...]]]:
    """A builder of a model of Hugging Face: of its published size, or tiny."""

    def builder(*, small: bool = False) -> tuple[nn.Module, tuple[Tensor, ...]]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            settings = getattr(transformers, config)(**{**options, **(tiny if small else {})})
            model = getattr(transformers, build)(settings)
            given = tuple(draw(settings) for draw in inputs.values())
            return Outputs(generic(model), tuple(inputs), output), given

    return builder


def module(
    build: Callable[[bool], nn.Module], width: int, tiny: int
) -> Callable[..., tuple[nn.Module, tuple[Tensor, ...]]]:
    """A builder of a layer of PyTorch between two linear ones, which leave its stream free."""

    def builder(*, small: bool = False) -> tuple[nn.Module, tuple[Tensor, ...]]:
        n = tiny if small else width
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(5, n), build(small), nn.Linear(n, 4))
            return generic(model), (torch.randn(2, TOKENS, 5),)

    return builder


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of a sequence with itself."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def _encoder(small: bool) -> nn.Module:
    width, heads, hidden, depth = (12, 3, 10, 2) if small else (512, 8, 2048, 6)
    layer = nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


def _ids(config: Any) -> Tensor:
    return token_ids(config.vocab_size)


def _mask(config: Any) -> Tensor:
    return token_mask()


def _pixels(config: Any) -> Tensor:
    config = getattr(config, "vision_config", config)
    return torch.randn(2, 3, config.image_size, config.image_size)


_TEXT = {"input_ids": _ids, "attention_mask": _mask}
_IMAGE = {"pixel_values": _pixels}
_TINY_BERT = {
    "vocab_size": VOCABULARY, "hidden_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 10, "max_position_embeddings": 16,
}  # fmt: skip
_TINY_VIT = {
    "image_size": 8, "patch_size": 4, "hidden_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 3, "intermediate_size": 10, "num_labels": 5,
}  # fmt: skip
_TINY_TOWER = {
    "hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 2,
    "num_attention_heads": 3, "projection_dim": 6,
}  # fmt: skip

CATALOG: dict[str, Callable[..., tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "ViT-B/16": pretrained(
        "ViTForImageClassification", "ViTConfig", _IMAGE, _TINY_VIT, num_labels=1000
    ),
    "DeiT-B/16 distilled": pretrained(
        "DeiTForImageClassificationWithTeacher", "DeiTConfig", _IMAGE, _TINY_VIT, num_labels=1000
    ),
    "Swin-T": pretrained(
        "SwinForImageClassification",
        "SwinConfig",
        _IMAGE,
        {
            "image_size": 16, "patch_size": 2, "embed_dim": 6, "depths": [2, 2],
            "num_heads": [2, 3], "window_size": 4, "num_labels": 5,
        },
        num_labels=1000,
    ),
    "BERT base": pretrained("BertForMaskedLM", "BertConfig", _TEXT, _TINY_BERT),
    "RoBERTa base": pretrained(
        "RobertaForMaskedLM",
        "RobertaConfig",
        _TEXT,
        _TINY_BERT,
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
    ),
    "DistilBERT base": pretrained(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        _TEXT,
        {
            "vocab_size": VOCABULARY, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 10,
            "max_position_embeddings": 16,
        },
    ),
    "GPT-2 small": pretrained(
        "GPT2LMHeadModel",
        "GPT2Config",
        {"input_ids": _ids},
        {
            "vocab_size": VOCABULARY, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_inner": 10,
            "n_positions": 16,
        },
        use_cache=False,
    ),
    "Llama (SmolLM2-135M)": pretrained(
        "LlamaForCausalLM",
        "LlamaConfig",
        {"input_ids": _ids},
        {
            "vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 10,
            "head_dim": 4,
        },
        use_cache=False,
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        tie_word_embeddings=True,
    ),
    "T5 small": pretrained(
        "T5ForConditionalGeneration",
        "T5Config",
        {**_TEXT, "decoder_input_ids": lambda config: token_ids(config.vocab_size, 5)},
        {
            "vocab_size": VOCABULARY, "d_model": 12, "d_kv": 4, "num_heads": 3, "d_ff": 10,
            "num_layers": 2, "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 16,
        },
        use_cache=False,
    ),
    "CLIP ViT-B/32": pretrained(
        "CLIPModel",
        "CLIPConfig",
        {
            "input_ids": lambda config: token_ids(config.text_config.vocab_size),
            **_IMAGE,
            "attention_mask": _mask,
        },
        {
            "projection_dim": 6,
            "text_config": {
                **_TINY_TOWER, "vocab_size": VOCABULARY, "max_position_embeddings": 16,
                "eos_token_id": 2,
            },
            "vision_config": {**_TINY_TOWER, "image_size": 8, "patch_size": 4},
        },
        output="logits_per_image",
    ),
    "nn.TransformerEncoder": module(_encoder, 512, 12),
    "nn.MultiheadAttention": module(
        lambda small: SelfAttention(*((12, 3) if small else (512, 8))), 512, 12
    ),
}  # fmt: skip
