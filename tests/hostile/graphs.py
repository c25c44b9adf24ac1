"""Graphs made to harm, in `.pt2` archives: refused, or computed without harm to anything else.

Every graph reads `x`, `[batch, 2]`, and two weights: `w`, `[2, 2]`, and `b`, `[2]`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tests.hostile.builders import pt2

Json = dict[str, Any]
Row = tuple[Callable[[], bytes], str]
ATEN = "torch.ops.aten."
_NOT_RUN = "is not among the tensor operators"


def tensor(name: str) -> Json:
    return {"as_tensor": {"name": name}}


def size(name: str) -> Json:
    return {"as_sym_int": {"as_name": name}}


def ints(*values: int) -> Json:
    return {"as_ints": list(values)}


def given(value: Any) -> Json:
    """An argument: a name of a tensor, a plain value, or what is described already."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return tensor(value)
    if isinstance(value, bool):
        return {"as_bool": value}
    if value is None:
        return {"as_none": True}
    if isinstance(value, (list, tuple)):
        of_names = all(isinstance(item, str) for item in value)
        return {"as_tensors": [{"name": n} for n in value]} if of_names else ints(*value)
    return {"as_int": value} if isinstance(value, int) else {"as_float": value}


def call(target: str, args: Sequence[Any], out: Any = "y", **kwargs: Any) -> Json:
    """One node; `out` is a name, a list of names, or what is described already."""
    if isinstance(out, str):
        outputs = [tensor(out)]
    elif out and isinstance(out[0], str):
        outputs = [{"as_tensors": [{"name": name} for name in out]}]
    else:
        outputs = list(out)
    inputs = [{"name": "", "arg": given(value), "kind": 1} for value in args]
    inputs += [{"name": name, "arg": given(v), "kind": 2} for name, v in kwargs.items()]
    full = target if target.startswith(("torch", "_operator", "os", "math")) else ATEN + target
    return {"target": full, "inputs": inputs, "outputs": outputs}


def archive(*nodes: Json, out: str = "y", features: int = 2, json_text: bytes = b"") -> bytes:
    """An archive with these nodes."""
    weights = {
        name: {
            "path_name": f"weight_{k}", "is_param": True, "use_pickle": False,
            "tensor_meta": {
                "dtype": 7, "sizes": [{"as_int": n} for n in shape], "layout": 7,
                "strides": [{"as_int": n} for n in strides], "storage_offset": {"as_int": 0},
            },
        }
        for k, (name, shape, strides) in enumerate([("w", (2, 2), (2, 1)), ("b", (2,), (1,))])
    }  # fmt: skip
    description = {
        "graph_module": {
            "graph": {
                "nodes": [*nodes],
                "tensor_values": {
                    "x": {"dtype": 7, "sizes": [_OPEN, {"as_int": features}]},
                },
            },
            "signature": {
                "input_specs": [
                    {"parameter": {"arg": {"name": "w"}, "parameter_name": "w"}},
                    {"parameter": {"arg": {"name": "b"}, "parameter_name": "b"}},
                    {"user_input": {"arg": tensor("x")}},
                ],
                "output_specs": [{"user_output": {"arg": tensor(out)}}],
            },
        }
    }
    rng = np.random.default_rng(0)
    return pt2(
        weights,
        **{
            "data/weights/weight_0": rng.normal(size=4).astype("<f4").tobytes(),
            "data/weights/weight_1": rng.normal(size=2).astype("<f4").tobytes(),
            "models/model.json": json_text or json.dumps(description).encode(),
        },
    )


_OPEN = {"as_expr": {"expr_str": "s0", "hint": {"as_int": 2}}}
_LINEAR = call("linear.default", ["x", "w", "b"])


def good() -> bytes:
    return archive(_LINEAR)


def doubling(times: int, target: str = "cat.default") -> bytes:
    """`x` joined with itself, again and again."""
    nodes = [call(target, [[f"t{k}", f"t{k}"], 1], f"t{k + 1}") for k in range(times)]
    return archive(call("alias.default", ["x"], "t0"), *nodes, out=f"t{times}")


def _chain(target: str, first: str, times: int, *args: Any) -> list[Json]:
    """Calls of one operator on what it returned, from `first` to `t<times>`."""
    names = [first, *[f"t{k + 1}" for k in range(times)]]
    return [call(target, [a, *args], b) for a, b in pairwise(names)]


def squared_size(times: int) -> bytes:
    nodes = [call("_operator.mul", [size(f"s{k}")] * 2, [size(f"s{k + 1}")]) for k in range(times)]
    first = call("sym_size.int", ["x", 0], [size("s0")])
    return archive(first, *nodes, call("zeros.default", [{"as_sym_ints": [
        {"as_name": f"s{times}"}]}]))  # fmt: skip


def nested_lists(depth: int) -> bytes:
    """A list whose every item is the list before, by regions within regions."""
    argument: Json = {"as_tensors": [{"name": "x"}, {"name": "x"}]}
    for k in range(depth):
        inner = {"as_tensors": [{"name": f"i{k}"}, {"name": f"i{k}"}]}
        argument = {"as_graph": {"name": "g", "graph": {
            "inputs": [tensor(f"i{k}")], "outputs": [inner],
            "nodes": [_region(argument, f"r{k}")] if k else [],
        }}}  # fmt: skip
    return archive(_region(argument, "y"))


def _region(body: Json, out: str) -> Json:
    return {
        "target": "torch.ops.higher_order.wrap_with_set_grad_enabled",
        "inputs": [
            {"name": "", "arg": {"as_bool": False}, "kind": 1},
            {"name": "", "arg": body, "kind": 1},
            {"name": "", "arg": {"as_tensors": [{"name": "x"}, {"name": "x"}]}, "kind": 1},
        ],
        "outputs": [tensor(out)],
    }


def deep_regions(depth: int) -> bytes:
    body: Json = {"inputs": [tensor("i")], "outputs": [tensor("i")], "nodes": []}
    for _ in range(depth):
        node = _region({"as_graph": {"name": "g", "graph": body}}, "i")
        node["inputs"][2]["arg"] = tensor("i")
        body = {"inputs": [tensor("i")], "outputs": [tensor("i")], "nodes": [node]}
    node = _region({"as_graph": {"name": "g", "graph": body}}, "y")
    node["inputs"][2]["arg"] = tensor("x")
    return archive(node)


def text(value: str) -> Json:
    return {"as_string": value}


def _indices(name: str = "i") -> Json:
    return call("to.dtype", ["x", {"as_scalar_type": 5}], name)


def _one(target: str, *args: Any, out: Any = "y", **kwargs: Any) -> Callable[[], bytes]:
    return lambda: archive(call(target, args, out, **kwargs))


def _after(first: Json, target: str, *args: Any, out: Any = "y") -> Callable[[], bytes]:
    return lambda: archive(first, call(target, args, out))


_FOREIGN = {
    "graph-saves": _one("save.default", "x", text("canary")),
    "graph-reads-a-file": _one("from_file.default", text("/etc/passwd"), None, 8),
    "graph-sets-gradients": _one("set_grad_enabled.default", True, out=[]),
    "graph-seeds": _one("manual_seed.default", 1, out=[]),
    "graph-draws": _one("randn.default", [2, 2]),
    "graph-draws-like": _one("rand_like.default", "x"),
    "graph-bernoulli": _one("bernoulli_.float", "x", 0.5),
    "graph-shuffles": _one("multinomial.default", "x", 2),
    "graph-writes-out": _one("add.out", "x", "x", out="y"),
    "graph-writes-out-relu": _one("relu.out", "x"),
    "graph-swaps-storage": _one("set_.source_Tensor", "x", "w"),
    "graph-resizes": _one("resize_.default", "x", [1 << 20]),
    "graph-turns-its-input": _one("t_.default", "x"),
    "graph-unsqueezes-its-input": _one("unsqueeze_.default", "x", 0),
    "graph-shows-memory": _one("empty.memory_format", [1 << 20]),
    "graph-shows-new-memory": _one("new_empty.default", "x", [1 << 20]),
    "graph-strides-beyond": _one("as_strided.default", "x", [1 << 20], [1]),
    "graph-views-bytes": _one("view.dtype", "x", {"as_scalar_type": 1}),
    "graph-unpools-back": _after(
        _indices(), "max_pool2d_with_indices_backward.default", "x", "x", [2, 2], [2, 2], [0, 0],
        [1, 1], False, "i",
    ),
    "graph-averages-back": _one(
        "avg_pool2d_backward.default", "x", "x", [2, 2], [2, 2], [0, 0], False, True, None
    ),
    "graph-segments": _one("segment_reduce.default", "x", text("sum"), unsafe=True),
    "graph-bags": _after(_indices(), "embedding_bag.default", "w", "i", "i"),
    "graph-takes-jagged": _one("_nested_view_from_buffer.default", "x", "x", "x", "x"),
    "graph-is-sparse": _one("sparse_coo_tensor.indices", "x", "x"),
    "graph-asks-for-a-number": _one("item.default", "x", out=[size("s")]),
    "graph-pins": _one("pin_memory.default", "x"),
    "graph-quantizes": _one("quantize_per_tensor.default", "x", 0.1, 0, {"as_scalar_type": 2}),
    "graph-has-its-own-operator": _one("torch.ops.mylib.run.default", "x"),
    "graph-loads-an-operator": _one("torch.ops.load_library.default", "x"),
    "graph-calls-the-system": _one("os.system", text("touch canary")),
    "graph-calls-a-method": _one("_operator.methodcaller", text("tofile")),
    "graph-formats": _one("_operator.mod.default", text("%2000000000d"), 1),
    "graph-gets-an-attribute": _one("_operator.attrgetter", text("__class__")),
    "graph-takes-items": _one("_operator.getitem", "x", 0),
    "graph-has-dunder": _one("conv2d.__class__", "x"),
    "graph-loops": _one("torch.ops.higher_order.while_loop", "x"),
    "graph-chooses": _one("torch.ops.higher_order.cond", "x"),
}  # fmt: skip
_ARGUMENTS = {
    "graph-formats-a-size": (_one("_operator.mod", text("%2000000000d"), 1), "than sizes"),
    "graph-raises-ten": (
        _after(call("_operator.pow", [10, 10**8], [size("s")]), "relu.default", "x"),
        "raised to the power",
    ),
    "graph-adds-tensors-as-sizes": (_one("_operator.add", "x", "x"), "than sizes"),
    "graph-squares-a-size": (lambda: squared_size(60), "multiplies more than 16 sizes"),
    "graph-squares-with-a-float": (
        _after(call("_operator.pow", [2.0, 1e8], [size("s")]), "relu.default", "x"),
        "raised to the power",
    ),
    "graph-gives-a-text": (_one("relu.default", text("x")), "where Tensor is expected"),
    "graph-gives-a-huge-number": (_one("add.Scalar", "x", 10**40), "where number is expected"),
    "graph-gives-many-digits": (
        lambda: archive(json_text=b'{"a": ' + b"9" * 100_000 + b"}"), "not JSON",
    ),
    "graph-pools-hugely": (
        _one("max_pool2d.default", "x", [1 << 40, 1 << 40]), "where int is expected",
    ),
    "graph-gives-a-long-size": (_one("zeros.default", [1] * 1000), "more than are taken"),
    "graph-gives-an-unknown-mode": (
        _one("pad.default", "x", [1, 1], text("../../etc")), "'mode', where str",
    ),
    "graph-gives-a-strange-equation": (
        _one("einsum.default", text("a{0.__class__}"), ["x"]), "where str is expected",
    ),
    "graph-trains-batch-norm": (
        _one("batch_norm.default", "x", None, None, "b", "b", True, 0.1, 1e-5, False),
        "running statistics",
    ),
    "graph-drops-out": (_one("dropout.default", "x", 0.5, True), "model.eval"),
    "graph-drops-out-natively": (
        _one("native_dropout.default", "x", 0.5, None, out=[tensor("y"), tensor("m")]),
        "model.eval",
    ),
    "graph-has-noise": (_one("rrelu.default", "x", 0.1, 0.3, True), "model.eval"),
    "graph-attends-at-random": (
        _one("scaled_dot_product_attention.default", "x", "x", "x", None, 0.5), "model.eval",
    ),
    "graph-scales-beyond": (
        _one("_upsample_bilinear2d_aa.default", "x", [2, 2], False, 0.001, 0.001),
        "beside a size",
    ),
    "graph-norms-what-it-made": (
        lambda: archive(call("relu.default", ["x"], "r"), call("_weight_norm.default", ["r", "b"])),
        "weights are expected",
    ),
    "graph-norms-misfits": (_one("_weight_norm.default", "w", "b"), "weight norm has magnitudes"),
    "graph-lacks-arguments": (_one("linear.default", "x"), "leaves out 'weight'"),
    "graph-has-too-many-arguments": (
        _one("relu.default", "x", "x", "x"), "arguments that aten.relu.default does not take",
    ),
    "graph-names-no-argument": (_one("relu.default", "x", nothing=1), "does not take"),
    "graph-lacks-results": (_one("topk.default", "x", 1), "has 1 results"),
    "graph-has-a-list-of-one": (_one("relu.default", "x", out=["y"]), "results"),
    "graph-reads-the-future": (
        lambda: archive(call("relu.default", ["z"]), call("relu.default", ["y"], "z")),
        "before anything makes it",
    ),
    "graph-reads-itself": (_one("relu.default", "y"), "before anything makes it"),
    "graph-makes-a-value-twice": (lambda: archive(_LINEAR, _LINEAR), "twice"),
    "graph-overwrites-a-weight": (_one("relu.default", "x", out="w"), "twice"),
    "graph-returns-nothing": (lambda: archive(_LINEAR, out="q"), "before anything makes it"),
    "graph-picks-a-format": (
        _one("clone.default", "x", memory_format={"as_memory_format": 99}), "damaged",
    ),
    "graph-picks-a-type": (_one("to.dtype", "x", {"as_scalar_type": 44}), "dtype"),
    "graph-picks-a-type-by-list": (
        _one("to.dtype", "x", {"as_scalar_type": [1]}), "damaged|dtype",
    ),
    "graph-is-a-list": (lambda: archive(json_text=b"[]"), "not described"),
    "graph-nests-json": (lambda: archive(json_text=b"[" * 500_000), "not JSON"),
    "graph-lists-json": (
        lambda: archive(json_text=b"[" + b"[]," * 5_000_000 + b"[]]"), "describes more|unpacks",
    ),
    "graph-nests-lists": (lambda: nested_lists(40), "region|described"),
    "graph-nests-regions": (lambda: deep_regions(60), "regions within regions|described"),
    "graph-has-endless-calls": (
        lambda: archive(*[call("relu.default", ["x"], f"t{k}") for k in range(5001)]),
        "5,001 calls",
    ),
    "graph-has-endless-results": (
        lambda: archive(call("unbind.int", ["x", 1], [f"t{k}" for k in range(5000)])), "too many",
    ),
}  # fmt: skip
_LARGE = {
    "graph-doubles": (lambda: doubling(40), "would make a tensor of [0-9.,]+ GB"),
    "graph-makes-a-terabyte": (
        _one("zeros.default", [1 << 20, 1 << 20]), "would make a tensor of 4,398.0 GB",
    ),
    "graph-makes-an-exabyte": (
        _one("ones.default", [1 << 30, 1 << 30, 1 << 30]), "graph cannot be computed|GB|bytes",
    ),
    "graph-expands": (_one("expand.default", "w", [1 << 30, 2, 2]), "GB"),
    "graph-repeats": (_one("repeat.default", "w", [1 << 15, 1 << 15]), "GB"),
    "graph-tiles-again": (
        lambda: archive(*_chain("repeat.default", "w", 6, [1, 1000]), out="t6"), "GB",
    ),
    "graph-multiplies-outwards": (
        lambda: archive(
            call("zeros.default", [[1 << 17]], "z"),
            call("einsum.default", [text("a,b->ab"), ["z", "z"]]),
        ), "GB|bytes|cannot be computed",
    ),
    "graph-holds-much": (
        lambda: archive(
            *[call("zeros.default", [[1 << 28]], f"t{k}") for k in range(6)],
            call("stack.default", [[f"t{k}" for k in range(6)]], "y"),
        ), "at one time|GB",
    ),
    "graph-pads-hugely": (_one("constant_pad_nd.default", "x", [0, 1 << 30, 0, 0]), "GB"),
    "graph-counts-far": (_one("arange.default", 2_000_000_000), "GB"),
    "graph-upsamples-hugely": (
        lambda: archive(
            call("reshape.default", ["x", [-1, 1, 1, 2]], "r"),
            call("upsample_nearest2d.default", ["r", [1 << 20, 1 << 12]]),
        ), "GB",
    ),
    "graph-cuts-into-many": (
        lambda: archive(call("zeros.default", [[1 << 20]], "z"),
                        call("unbind.int", ["z", 0], ["y"])), "list of 1,048,576 tensors",
    ),
    "graph-differs-for-ever": (_one("diff.default", "x", 1 << 30), "steps"),
    "graph-recurs-for-ever": (
        lambda: archive(
            call("zeros.default", [[1 << 20, 1, 1]], "t"), call("zeros.default", [[1, 1, 1]], "h"),
            call("zeros.default", [[1, 1]], "v"),
            call("rnn_tanh.input", ["t", "h", ["v", "v"], False, 1, 0.0, False, False, False],
                 [tensor("y"), tensor("q")]),
        ), "steps",
    ),
    "graph-has-many-axes": (
        lambda: archive(*_chain("unsqueeze.default", "x", 40, 0), out="t40"), "axes",
    ),
    "graph-looks-for-marks": (
        lambda: archive(
            call("gt.Scalar", ["x", 0], "m"),
            call("index.Tensor", ["x", {"as_optional_tensors": [tensor("m")]}]),
        ), "cannot be computed",
    ),
    "graph-fits-no-shapes": (_one("matmul.default", "x", "x"), "cannot be computed"),
    "graph-concatenates-nothing": (_one("cat.default", {"as_tensors": []}), "cannot be computed"),
}  # fmt: skip
REFUSED: Mapping[str, Row] = {
    **{name: (make, _NOT_RUN) for name, make in _FOREIGN.items()},
    **_ARGUMENTS,
    **_LARGE,
}

# Read and computed, or refused only when they meet values; whatever they do, they do to copies.
_SCORES = call("linear.default", ["x", "w", "b"])
TAKEN: Mapping[str, Callable[[], bytes]] = {
    "fills-its-input": lambda: archive(call("fill_.Scalar", ["x", 7.0], "f"), _SCORES),
    "shifts-its-input": lambda: archive(call("sub_.Scalar", ["x", 3.0], "f"), _SCORES),
    "zeroes-a-view": lambda: archive(
        call("slice.Tensor", ["x", 1, 0, 1], "v"), call("zero_.default", ["v"], "z"), _SCORES
    ),
    "writes-through-views": lambda: archive(
        call("view.default", ["x", [-1, 2, 1]], "v"), call("squeeze.dim", ["v", 2], "s"),
        call("transpose.int", ["s", 0, 1], "t"), call("fill_.Scalar", ["t", 1.0], "f"), _SCORES,
    ),
    "writes-through-an-einsum": lambda: archive(
        call("einsum.default", [text("ab->ba"), ["x"]], "t"),
        call("fill_.Scalar", ["t", 1.0], "f"), _SCORES,
    ),
    "writes-through-its-own-type": lambda: archive(
        call("type_as.default", ["x", "w"], "t"), call("fill_.Scalar", ["t", 1.0], "f"), _SCORES
    ),
    "writes-through-no-dropout": lambda: archive(
        call("dropout.default", ["x", 0.5, False], "t"), call("fill_.Scalar", ["t", 1.0], "f"),
        _SCORES,
    ),
    "writes-through-a-grid": lambda: archive(
        call("broadcast_tensors.default", [["x", "x"]], ["t", "u"]),
        call("fill_.Scalar", ["t", 1.0], "f"), _SCORES,
    ),
    "puts-into-its-input": lambda: archive(
        call("arange.default", [2], "i"), call("zeros.default", [[2, 2]], "z"),
        call("index_put_.default", ["x", {"as_optional_tensors": [tensor("i")]}, "z"], "p"),
        _SCORES,
    ),
    "writes-into-its-weights": lambda: archive(call("fill_.Scalar", ["w", 1.0], "f"), _SCORES),
    "writes-into-its-bias": lambda: archive(call("add_.Scalar", ["b", 1.0], "f"), _SCORES),
    "detaches-its-input": lambda: archive(call("detach_.default", ["x"], "d"), _SCORES),
    "gathers-beyond": lambda: archive(
        call("mul.Scalar", ["x", 1e6], "m"), call("to.dtype", ["m", {"as_scalar_type": 5}], "i"),
        call("gather.default", ["x", 1, "i"], "g"), call("linear.default", ["g", "w", "b"]),
    ),
    "embeds-beyond": lambda: archive(
        call("mul.Scalar", ["x", 1e6], "m"), call("to.dtype", ["m", {"as_scalar_type": 5}], "i"),
        call("embedding.default", ["w", "i"], "e"), call("sum.dim_IntList", ["e", [1]]),
    ),
    "scatters-beyond": lambda: archive(
        call("mul.Scalar", ["x", 1e6], "m"), call("to.dtype", ["m", {"as_scalar_type": 5}], "i"),
        call("scatter.value", ["x", 1, "i", 0.0], "s"), call("linear.default", ["s", "w", "b"]),
    ),
    "selects-beyond": lambda: archive(
        call("arange.default", [900], "i"), call("index_select.default", ["x", 1, "i"], "s"),
        call("sum.dim_IntList", ["s", [1], True], "t"), call("mul.Tensor", ["t", "b"]),
    ),
    "unpools-beyond": lambda: archive(
        call("reshape.default", ["x", [-1, 1, 1, 2]], "r"), call("mul.Scalar", ["r", 1e6], "m"),
        call("to.dtype", ["m", {"as_scalar_type": 5}], "i"),
        call("max_unpool2d.default", ["r", "i", [2, 2]], "u"),
        call("flatten.using_ints", ["u", 1], "f"), call("slice.Tensor", ["f", 1, 0, 2]),
    ),
    "returns-what-is-no-number": lambda: archive(
        call("div.Scalar", ["x", 0.0], "d"), call("linear.default", ["d", "w", "b"])
    ),
    "returns-its-input": lambda: archive(call("alias.default", ["x"])),
    "is-long": lambda: archive(
        *_chain("relu.default", "x", 100),
        call("linear.default", ["t100", "w", "b"]),
    ),
}  # fmt: skip
