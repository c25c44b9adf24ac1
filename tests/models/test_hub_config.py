"""A stranger's `config.json`: honest ones build what they always built, hostile ones nothing."""

from __future__ import annotations

import json
import socket
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merging.models import hub_config
from merging.models.build import build_network
from merging.models.libraries import transformers_config
from merging.models.network import check_weights
from merging.schema.errors import MergingError

REFUSED_IN_SECONDS = 2.0
BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 20,
}


def read(**changes):
    return transformers_config(json.dumps(BERT | changes), "mine")


@pytest.fixture
def offline(monkeypatch):
    """Fails if anything looks for a host."""

    def refused(*args, **kwargs):
        pytest.fail(f"asked the network: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 50_000_000}, "'vocab_size' = 50000000, expected a number up to 1,048,576"),
        ({"num_hidden_layers": 1_000_000}, "'num_hidden_layers' = 1000000, expected .* 256"),
        ({"vocab_size": 10**4000}, "more than thirty digits, expected"),
        ({"vocab_size": float("nan")}, "'vocab_size' = nan"),
        ({"initializer_range": 1e300}, "'initializer_range' = 1e.300"),
        ({"depths": [200, 200]}, "'depths' = 400, expected at most 256 in all"),
        ({"layer_types": ["x"] * 10_000}, "'layer_types' = .*, expected fewer parts"),
        ({"hidden_act": "../../evil"}, "'hidden_act' = '../../evil', expected a short word"),
        ({"backbone": "evil/model"}, "has 'backbone', which is not followed here"),
        ({"use_timm_backbone": True}, "has 'use_timm_backbone', which is not followed"),
        ({"quantization_config": {"quant_method": "x"}}, "has 'quantization_config'"),
        ({"text_config": {"backbone": "evil/model"}}, "has 'backbone'"),
        ({"id2label": {str(k): "x" for k in range(200_000)}}, "names no labels or too many"),
        ({"model_type": "detr"}, "is of the model type 'detr'; known are albert"),
        ({"model_type": "x" * 1_000_000}, "is of the model type 'xxx"),
        ({"model_type": ["bert"]}, "is of the model type"),
        ({"architectures": ["os.system"]}, "names no class of transformers: 'os.system'"),
        ({"architectures": ["A", "B"]}, "does not name one architecture"),
        ({"architectures": 3}, "does not name one architecture"),
    ],
)
def test_what_is_out_of_bounds_is_refused_before_anything_is_built(changes, words):
    start = time.perf_counter()
    with pytest.raises(MergingError, match=words) as caught:
        read(**changes)
    assert time.perf_counter() - start < REFUSED_IN_SECONDS
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '"x"', "[" * 100_000, '{"architectures": {}}']
)
def test_what_is_no_config_is_refused_in_words(text):
    with pytest.raises(MergingError, match="does not name one architecture and a model_type"):
        transformers_config(text, "mine")


def test_what_only_describes_the_file_is_left_out():
    config = read(
        auto_map={"AutoModel": "evil--code.Model"},
        _name_or_path="evil/model",
        _attn_implementation="evil/kernel",
        attn_implementation="evil/kernel",
        torch_dtype="float16",
        transformers_version="4.0",
        task_specific_params={"x": {"y": 1}},
    )
    assert config["config"] == {k: v for k, v in BERT.items() if isinstance(v, int)}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*BERT, "id2label", "rope_scaling", "backbone"]), VALUES))
def test_any_config_is_read_or_refused(found):
    try:
        config = transformers_config(json.dumps(BERT | found), "mine")
    except MergingError:
        return
    assert config["model_type"] in hub_config.MODEL_TYPES


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"vocab_size": 1_000_000, "hidden_size": 8192},
            "takes .* bytes, more than the limit of 2,000,000,000",
        ),
        ({"architectures": ["GPT2Model"]}, "GPT2Model is not a class of the model type 'bert'"),
        ({"architectures": ["PreTrainedModel"]}, "is not a class of the model type"),
        ({"architectures": ["AutoModel"]}, "no model class 'AutoModel'"),
        ({"architectures": ["pipeline"]}, "no model class 'pipeline'"),
        ({"hidden_act": "nothing"}, "transformers cannot make this model"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(changes, words):
    pytest.importorskip("transformers").BertModel  # noqa: B018  # its import is not counted
    config = read(**changes)
    start = time.perf_counter()
    with pytest.raises(MergingError, match=words):
        build_network(config)
    assert time.perf_counter() - start < REFUSED_IN_SECONDS


@pytest.mark.usefixtures("offline")
def test_a_config_that_was_not_read_from_a_file_is_checked_as_well():
    pytest.importorskip("transformers")
    config = {
        "architecture": "transformers",
        "class": "BertModel",
        "model_type": "bert",
        "config": {"num_hidden_layers": 1_000_000},
    }
    with pytest.raises(MergingError, match="'num_hidden_layers' = 1000000"):
        build_network(config)


HONEST = {
    "bert": ("BertForSequenceClassification", {"hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 20, "num_labels": 5}),
    "roberta": ("RobertaModel", {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 20,
        "intermediate_size": 8, "num_hidden_layers": 1}),
    "distilbert": ("DistilBertModel", {"dim": 8, "n_heads": 2, "hidden_dim": 8, "n_layers": 1,
        "vocab_size": 20}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 8, "n_head": 2, "n_layer": 1, "vocab_size": 20,
        "n_positions": 12}),
    "llama": ("LlamaForCausalLM", {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 20,
        "num_key_value_heads": 1, "intermediate_size": 8, "num_hidden_layers": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "qwen2": ("Qwen2ForCausalLM", {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 20,
        "num_key_value_heads": 1, "intermediate_size": 8, "num_hidden_layers": 1}),
    "gpt_neo": ("GPTNeoForCausalLM", {"hidden_size": 8, "num_heads": 2, "vocab_size": 20,
        "num_layers": 2, "attention_types": [[["global", "local"], 1]]}),
    "opt": ("OPTForCausalLM", {"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 20,
        "ffn_dim": 8, "num_hidden_layers": 1, "word_embed_proj_dim": 8}),
    "vit": ("ViTForImageClassification", {"hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 8, "num_hidden_layers": 1, "image_size": 8, "patch_size": 4,
        "num_labels": 3}),
    "swin": ("SwinForImageClassification", {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2],
        "image_size": 32, "window_size": 4, "num_labels": 3}),
    "convnext": ("ConvNextForImageClassification", {"hidden_sizes": [4, 8], "depths": [1, 1],
        "num_stages": 2, "image_size": 32, "num_labels": 3}),
    "resnet": ("ResNetForImageClassification", {"embedding_size": 4, "hidden_sizes": [8, 8],
        "depths": [1, 1], "num_labels": 3}),
    "clip_vision_model": ("CLIPVisionModel", {"hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 8, "num_hidden_layers": 1, "image_size": 8, "patch_size": 4}),
}  # fmt: skip


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("model_type", HONEST)
def test_an_honest_folder_builds_the_model_that_was_saved(model_type, tmp_path):
    transformers = pytest.importorskip("transformers")
    name, settings = HONEST[model_type]
    kind = type(transformers.AutoConfig.for_model(model_type))
    torch.manual_seed(0)
    saved = getattr(transformers, name)(kind(**settings)).eval()
    saved.save_pretrained(tmp_path)
    config = transformers_config((tmp_path / "config.json").read_text("utf-8"), "mine")
    network = build_network(json.loads(json.dumps(config)))
    check_weights(saved.state_dict(), network, "mine")
    network.model.load_state_dict(saved.state_dict())
    with torch.no_grad():
        ours = network.model(*network.example_inputs, return_dict=False)[0]
        theirs = saved(*network.example_inputs, return_dict=False)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
