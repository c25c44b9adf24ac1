"""Configs as text: whatever somebody types or sends is read, or refused in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merging.models.config_text import read_config
from merging.models.read_model import config_of
from merging.schema.errors import MergingError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON; give a name such as torchvision:resnet18"),
        ('{"a":' * 50_000, "is 250,000 characters long"),
        ('{"a":' * 30_000, "is not JSON"),
        ("{}", "does not name one"),
        ('{"architecture": 3}', "does not name one"),
        ("[]", "does not name one"),
        ('{"architecture": "exported"}', "'blueprint' = None, expected 64 hexadecimal digits"),
        ('{"architecture": "exported", "blueprint": "../x"}', "expected 64 hexadecimal digits"),
        ('{"architecture": "own"}', "'function' = None, expected package.module:function"),
        ('{"architecture": "timm", "name": "hf-hub:evil/x"}', "expected a model's name"),
        ('{"architecture": "timm", "name": 3}', "'name' = 3, expected a model's name"),
        (
            '{"architecture": "torchvision", "name": "x", "classes": 1000000000000}',
            "'classes' = 1000000000000, expected a number up to 1,048,576",
        ),
        ('{"architecture": "transformers"}', "is of the model type None"),
        ('{"architecture": "\\u202e' + "x" * 100_000 + '"}', r"unknown architecture '\\\\u202exxx"),
    ],
)
def test_what_is_no_config_is_refused_in_words(text, words):
    with pytest.raises(MergingError, match=words) as caught:
        read_config(text)
    assert len(str(caught.value)) < 1500


@given(st.text(max_size=60).map(lambda text: "{" + text))
def test_what_is_typed_is_read_or_refused(text):
    with pytest.raises(MergingError):
        config_of({}, {}, "mine", text)


KEYS = st.sampled_from(["architecture", "name", "classes", "blueprint", "function", "config"])
KINDS = st.sampled_from(["exported", "own", "timm", "torchvision", "transformers", "mlp", "x"])


@given(st.dictionaries(KEYS, KINDS | st.none() | st.integers() | st.lists(KINDS), max_size=6))
def test_any_json_is_a_config_or_refused(found):
    try:
        config = read_config(json.dumps(found))
    except MergingError:
        return
    assert config == found


def test_a_name_of_a_megabyte_is_shortened():
    with pytest.raises(MergingError, match="unknown architecture") as caught:
        config_of({}, {}, "mine", "x" * 1_000_000)
    assert len(str(caught.value)) < 500
