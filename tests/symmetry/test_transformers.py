"""Transformers from their public definitions: every group there is, and nothing frozen."""

import copy
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from merging.schema.errors import MergingError
from merging.symmetry import certify, find_symmetry, share_moved
from merging.symmetry.permutation import permute
from merging.symmetry.probe import Probe
from tests.cases import Net, heads_of, joined
from tests.oracles import moving_permutations, relative_difference
from tests.symmetry.networks.transformer import CATALOG

ROOT = Path(__file__).resolve().parents[2]
# Units of every group by hand. Width 12 is the stream, 3 heads, 4 units of a head (twice: queries
# with keys, values), 10 units of the feed-forward layer.
BLOCK = (3, 4, 4, 10)
SIZES = {
    "ViT-B/16": (12, *BLOCK * 2),
    "DeiT-B/16 distilled": (12, *BLOCK * 2),
    "Swin-T": (6, *(2, 3, 3, 24) * 2, 12, *(3, 4, 4, 48) * 2),
    "BERT base": (12, *BLOCK * 2),
    "RoBERTa base": (12, *BLOCK * 2),
    "DistilBERT base": (12, *BLOCK * 2),
    "GPT-2 small": (12, *BLOCK * 2),
    # Heads of keys, queries per key head, units of the values; rotated queries and keys stay.
    "Llama (SmolLM2-135M)": (24, *(3, 2, 4, 10) * 2),
    # Position biases are shared by the layers of a stack, and so is the order of their heads; the
    # decoder's attention to the encoder has none, so its heads are every layer's own.
    "T5 small": (12, 3, *(4, 4, 10) * 2, 3, *(4, 4, 10) * 2, *(3, 4, 4) * 2),
    "CLIP ViT-B/32": (12, *BLOCK * 2, 12, *BLOCK * 2, 6),
    "nn.TransformerEncoder": (12, *BLOCK * 2),
    "nn.MultiheadAttention": (12, 3, 4, 4, 12),
}
# What may be frozen: inputs, classes, rows of vocabularies and positions; in Llama also the
# units of queries and keys, each of which is rotated by an angle of its own.
FROZEN = {
    "spatial position": r"position_embeddings|patch_embedding",
    "kernel position": r"patch_embedding",
    "axis of the input": r"patch_embedding|^0\.weight",
    "axis of the output": r"classifier|lm_head|^2\.(weight|bias)",
    "rows are looked up": r"embed|shared|lm_head|wte|wpe|predictions|projector|relative_",
    "axis of a constant": r"self_attn\.[qk]_proj",
}
every_transformer = pytest.mark.parametrize("name", CATALOG)


@cache
def built(name):
    return CATALOG[name](small=True)


@cache
def symmetry(name):
    return find_symmetry(*built(name))


def eager(model, params, inputs):
    with torch.no_grad():
        return torch.func.functional_call(model, params, inputs, tie_weights=False)


@every_transformer
def test_groups_are_those_found_by_hand(name):
    spec = symmetry(name)
    assert sorted(spec.sizes.values()) == sorted(SIZES[name])
    assert spec.report.unknown_operators == ()


@every_transformer
def test_nothing_is_frozen_but_what_has_an_order_of_its_own(name):
    for frozen in symmetry(name).report.frozen:
        assert re.search(FROZEN[frozen.reason.split(" at ")[0]], frozen.parameter), frozen
        assert name.startswith("Llama") or frozen.reason != "axis of a constant"


@every_transformer
def test_the_certificate_holds_and_nearly_every_parameter_moves(name):
    model, inputs = built(name)
    certificate = certify(model, symmetry(name), inputs, seed=3)
    assert certificate.max_relative_difference <= 1e-12
    assert certificate.tolerance == 1e-9
    assert share_moved(symmetry(name)) > 0.97


@every_transformer
def test_permuting_keeps_the_function_of_the_module_itself(name):
    model, inputs = built(name)
    spec, wide = symmetry(name), copy.deepcopy(model).double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    params = wide.state_dict()
    before = eager(wide, params, inputs)
    assert before.std() > 0
    tolerance = 1e-5 if name.startswith(("Llama", "T5")) else 1e-9  # their norms cast to float32
    for group, perm in moving_permutations(spec.shapes, 1).items():
        moved = permute(spec, {group: perm}, params)
        assert any(not torch.equal(moved[n], params[n]) for n in params), group
        assert relative_difference(before, eager(wide, moved, inputs)) < tolerance, group
    moved = permute(spec, moving_permutations(spec.shapes, 2), params)
    assert relative_difference(before, eager(wide, moved, inputs)) < tolerance


def test_fused_queries_and_keys_share_their_units_and_values_have_their_own():
    axis = symmetry("nn.MultiheadAttention").axes["1.attention.in_proj_weight"][0]
    assert axis.kind == "concat"
    queries, keys, values = ([atom.group for atom in part.parts] for part in axis.parts)
    assert queries == keys
    assert queries[0] == values[0]
    assert queries[1] != values[1]


def _interleaved(m, x):
    q, k, v = m.qkv(x).unflatten(-1, (2, 3, 4)).unbind(-2)
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return m.out(joined(F.scaled_dot_product_attention(q, k, v))).mean(1)


def _mixed(m, x):
    parts = m.qkv(x).unflatten(-1, (3, 2, 4))
    q, k, v = (part.transpose(1, 2) for part in (parts * 2).unbind(2))
    return m.out(joined(F.scaled_dot_product_attention(q, k, v))).mean(1) + parts.sum((1, 2, 3, 4))


@pytest.mark.parametrize(
    ("forward", "sizes"), [(_interleaved, [2, 4, 4]), (_mixed, [2, 4])], ids=["per head", "summed"]
)
def test_fused_projections_are_cut_only_where_all_readers_take_single_positions(forward, sizes):
    torch.manual_seed(0)
    model = Net(forward, qkv=nn.Linear(5, 24), out=nn.Linear(8, 1)).eval()
    x = (torch.randn(3, 4, 5),)
    spec = find_symmetry(model, x)
    assert sorted(spec.sizes.values()) == sizes
    assert certify(model, spec, x).ok


def test_a_head_of_its_own_order_keeps_the_function_and_the_spec_has_it():
    def attend(m, x):
        q, k, v = (heads_of(part(x), 2) for part in (m.q, m.k, m.v))
        return m.out(joined(F.scaled_dot_product_attention(q, k, v))).mean(1)

    torch.manual_seed(0)
    parts = {name: nn.Linear(3, 4) for name in ("q", "k", "v")}
    model = Net(attend, **parts, out=nn.Linear(4, 2)).eval().double()
    x, params = torch.randn(5, 3, 3, dtype=torch.float64), model.state_dict()
    spec = find_symmetry(model, (x,))
    assert sorted(spec.sizes.values()) == [2, 2, 2]
    first = torch.tensor([1, 0, 2, 3])  # the units of the first head only
    moved = {**params, "v.weight": params["v.weight"][first], "v.bias": params["v.bias"][first]}
    moved["out.weight"] = params["out.weight"][:, first]
    torch.testing.assert_close(eager(model, moved, (x,)), eager(model, params, (x,)))
    values = spec.axes["v.weight"][0].parts[1].group
    own = permute(spec, {values: torch.tensor([[1, 0], [0, 1]])}, params)
    assert all(torch.equal(own[name], moved[name]) for name in moved)


def test_equal_elements_tie_no_groups_but_what_is_written_into_them_does():
    def forward(m, x, write):
        shared = torch.zeros(6)
        if write:
            shared.add_(m.bias)
        return m.head(torch.tanh(m.left(x) + shared)) + m.last(torch.tanh(m.right(x) + shared))

    for write, sizes in ((False, [6, 6]), (True, [6])):
        model = Net(
            lambda m, x, write=write: forward(m, x, write),
            left=nn.Linear(3, 6), right=nn.Linear(3, 6), head=nn.Linear(6, 2),
            last=nn.Linear(6, 2),
        ).eval()  # fmt: skip
        model.bias = nn.Parameter(torch.randn(6))
        x = (torch.randn(4, 3),)
        assert sorted(find_symmetry(model, x).sizes.values()) == sizes


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.fc = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, ids, mask):
        return self.fc(self.embed(ids) * mask[..., None])


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.fc = nn.EmbeddingBag(9, 4), nn.Linear(4, 2)

    def forward(self, values, offsets):
        return self.fc(self.bag(values, offsets))


def test_integer_inputs_are_drawn_in_their_range_and_masks_keep_their_marks():
    ids = torch.tensor([[3, 9, 4], [7, 5, 6]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    model = Masked().eval()
    drawn_ids, drawn_mask = Probe(model, (ids, mask))._inputs
    assert len(drawn_ids) > len(ids)
    assert (int(drawn_ids.min()), int(drawn_ids.max())) == (3, 9)
    assert drawn_mask.sum(1)[:2].tolist() == [2, 3]
    assert not torch.equal(drawn_ids[:2], ids)


def test_integers_that_only_mean_something_together_are_taken_as_given():
    model = Bag().eval()
    inputs = (torch.arange(9), torch.tensor([0, 2, 5, 7, 8]))
    spec = find_symmetry(model, inputs)
    assert certify(model, spec, inputs).ok


def test_every_output_is_certified():
    @dataclass
    class Found:
        logits: torch.Tensor
        hidden: tuple[torch.Tensor, ...]
        loss: torch.Tensor | None = None

    def forward(m, x):
        h = torch.tanh(m.fc(x))
        return Found(m.head(h), (m.other(h),))

    model = Net(forward, fc=nn.Linear(4, 5), head=nn.Linear(5, 2), other=nn.Linear(5, 3)).eval()
    x = (torch.randn(3, 4),)
    spec = find_symmetry(model, x)
    assert list(spec.sizes.values()) == [5]
    assert certify(model, spec, x).ok
    axes = {n: a for n, a in spec.axes.items() if not n.startswith("other")}
    assert not certify(model, type(spec)(axes), x).ok  # only the second output tells


@pytest.mark.parametrize(
    ("build", "inputs", "advice"),
    [
        (lambda: nn.Bilinear(2, 2, 2), (torch.ones(2, 2),), "in this order: input1, input2"),
        (
            lambda: Net(lambda m, x: slice(m.fc(x)), fc=nn.Linear(2, 2)),
            (torch.ones(2, 2),),
            "Have it return tensors, alone or in tuples, lists, dicts or dataclasses",
        ),
    ],
    ids=["an input is missing", "it returns no tensor; have it return one"],
)
def test_a_model_that_cannot_be_exported_says_what_to_do(build, inputs, advice):
    with pytest.raises(MergingError, match=advice):
        find_symmetry(build(), inputs)


@pytest.mark.slow
def test_gpt2_small_is_certified_within_four_times_its_own_memory():
    program = """
import resource
from tests.symmetry.networks.transformer import CATALOG
from merging.symmetry import certify, find_symmetry
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model, inputs = CATALOG["GPT-2 small"]()
size = sum(p.numel() * 4 for p in model.parameters())
spec = find_symmetry(model, inputs)
assert certify(model, spec, inputs).ok
assert spec.report.unknown_operators == () and len(spec.sizes) == 1 + 4 * 12
print((peak() - before) / size)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4
