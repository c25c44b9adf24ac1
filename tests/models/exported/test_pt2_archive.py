"""Archives of `torch.export.save`: the module that is rebuilt against PyTorch's own loader."""

from __future__ import annotations

import io
import json
import warnings
import zipfile

import pytest
import torch
from torch import nn

from merging import certify, find_symmetry
from merging.models.exported.blueprint import ExportedModel
from merging.models.exported.pt2_archive import Archive, looks_like_pt2, read_pt2
from merging.schema.errors import CheckpointError


class Small(nn.Module):
    """A network with a norm, a constant, an operator of several results, and sizes in its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.gate = nn.Linear(4, 8)
        self.out = nn.Linear(4, 3)
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = x.reshape(x.shape[0], 4, -1).mean(2)
        a, b = self.gate(x).chunk(2, dim=1)
        return self.out(a * torch.sigmoid(b)) * self.scale + torch.tensor(0.5)


def exported(model: nn.Module, *inputs: torch.Tensor, open_batch: bool = True) -> bytes:
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in inputs) if open_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # recurrent layers keep a list of their own weights
        program = torch.export.export(model.eval(), inputs, dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def small() -> bytes:
    torch.manual_seed(0)
    model = Small()
    with torch.no_grad():
        model.norm.running_mean.normal_()
        model.norm.running_var.uniform_(0.5, 2)
    return exported(model, torch.randn(2, 1, 8, 8))


def rebuilt(data: bytes) -> tuple[Archive, ExportedModel]:
    found = read_pt2(data, "mine.pt2")
    model = ExportedModel(found.blueprint, found.weights, found.constants, "mine.pt2")
    return found, model.eval()


def changed(data: bytes, entry: str, change) -> bytes:
    """The archive with one JSON entry passed through `change`."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(entry):
                value = json.loads(content)
                change(value)
                content = json.dumps(value).encode()
            new.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_it_computes_what_pytorch_computes(small, n):
    archive, model = rebuilt(small)
    reference = torch.export.load(io.BytesIO(small)).module()
    x = torch.randn(n, 1, 8, 8)
    assert torch.equal(model(x), reference(x))
    assert set(archive.weights) == set(reference.state_dict()) - {"scale"}
    assert set(model.state_dict()) == set(archive.weights)


def test_its_symmetry_is_found_and_certified(small):
    _, model = rebuilt(small)
    spec = find_symmetry(model, model.example_inputs)
    assert spec.sizes == {"conv.weight[0]": 4, "gate.weight[0].0": 4}
    assert not spec.report.unknown_operators
    assert certify(model, spec, model.example_inputs).ok


def test_two_exports_of_one_architecture_have_one_blueprint(small):
    torch.manual_seed(5)
    other = exported(Small(), torch.randn(3, 1, 8, 8))
    assert rebuilt(small)[0].blueprint == rebuilt(other)[0].blueprint


def test_what_is_in_the_archive_beside_the_graph_is_left_out(small):
    assert "stack_trace" not in rebuilt(small)[0].blueprint
    assert ".py" not in rebuilt(small)[0].blueprint


def test_attention_and_recurrent_layers_survive():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.memory = nn.LSTM(8, 6, batch_first=True)
            self.out = nn.Linear(6, 2)

        def forward(self, x):
            return self.out(self.memory(self.attention(x))[0][:, -1])

    torch.manual_seed(0)
    data = exported(Net(), torch.randn(2, 5, 8))
    _, model = rebuilt(data)
    x = torch.randn(3, 5, 8)
    assert torch.allclose(model(x), torch.export.load(io.BytesIO(data)).module()(x), atol=1e-6)


class Regions(nn.Module):
    """A network with blocks of all kinds that the exporter makes graphs of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 3)

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            y = torch.relu(self.first(x))
        with torch.no_grad():
            parts = y.reshape(x.shape[0], 2, 3).unbind(1)
            size = x.shape[0] * 2
        y = y * 2
        with torch.no_grad():
            ones = torch.ones(size // 2, 6)
        y = y + parts[0].repeat(1, 2) * ones
        return self.second(y), y


@pytest.mark.parametrize("n", [1, 2, 5])
def test_blocks_without_gradients_or_autocast_are_read_too(n):
    torch.manual_seed(0)
    data = exported(Regions(), torch.randn(2, 4))
    assert b"higher_order" in zipfile.ZipFile(io.BytesIO(data)).read("archive/models/model.json")
    _, model = rebuilt(data)
    x = torch.randn(n, 4)
    wanted = torch.export.load(io.BytesIO(data)).module()(x)
    for found, value in zip(model(x), wanted, strict=True):
        assert torch.equal(found, value)


def test_a_block_may_be_what_comes_out():
    class Last(nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x), x

    _, model = rebuilt(exported(Last(4, 2), torch.randn(2, 4)))
    x = torch.randn(3, 4)
    found = model(x)
    assert found[0].shape == (3, 2)
    assert torch.equal(found[1], x)


def first_region(model):
    return next(n for n in model["graph_module"]["graph"]["nodes"] if "higher" in n["target"])


@pytest.mark.parametrize("where", ["graph", "inputs", "outputs"])
def test_blocks_that_are_not_as_the_exporter_writes_them_are_refused(where):
    def change(model):
        region = first_region(model)
        place = next(a["arg"] for a in region["inputs"] if "as_graph" in a["arg"])
        if where == "graph":
            region["inputs"] = [a for a in region["inputs"] if "as_graph" not in a["arg"]]
        else:
            place["as_graph"]["graph"][where].pop()

    data = changed(exported(Regions(), torch.randn(2, 4)), "model.json", change)
    with pytest.raises(CheckpointError, match=r"mine\.pt2: "):
        read_pt2(data, "mine.pt2")


def test_a_fixed_batch_is_refused_with_the_lines_to_run():
    data = exported(nn.Linear(3, 2), torch.randn(2, 3), open_batch=False)
    with pytest.raises(CheckpointError, match=r"batches of exactly 2(.|\n)*dynamic_shapes"):
        read_pt2(data, "mine.pt2")


def test_a_state_dict_is_no_pt2_archive(small):
    file = io.BytesIO()
    torch.save({"w": torch.ones(2)}, file)
    assert looks_like_pt2(small)
    assert not looks_like_pt2(file.getvalue())
    assert not looks_like_pt2(b"PK\x03\x04 and nothing else")


def first_call(model):
    return model["graph_module"]["graph"]["nodes"][0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch.ops.aten.from_file.default", "not among the tensor operators"),
        ("torch.ops.aten.set_.source_Tensor", "not among the tensor operators"),
        ("torch.ops.aten._resize_output_.default", "not among the tensor operators"),
        ("torch.ops.aten.nothing_of_the_kind.default", "not among the tensor operators"),
        ("torch.ops.aten.conv2d.__class__", "not among the tensor operators"),
        ("torch.ops.mylib.run.default", "not among the tensor operators"),
        ("os.system", "not among the tensor operators"),
        ("builtins.eval", "not among the tensor operators"),
        ("_operator.methodcaller", "not among the tensor operators"),
    ],
)
def test_only_pytorch_s_own_public_operators_are_run(small, target, message):
    data = changed(small, "model.json", lambda m: first_call(m).update(target=target))
    with pytest.raises(CheckpointError, match=message):
        read_pt2(data, "mine.pt2")


@pytest.mark.parametrize(
    "argument",
    [
        {"as_operator": "os.system"},
        {"as_graph": {"name": "g", "graph": {}}},
        {"as_custom_obj": {"name": "x", "class_fqn": "os.system"}},
        {"as_string": "x" * 1000},
        {"as_int": "__import__('os')"},
    ],
)
def test_only_tensors_and_numbers_are_arguments(small, argument):
    data = changed(small, "model.json", lambda m: first_call(m)["inputs"][0].update(arg=argument))
    with pytest.raises(CheckpointError, match=r"mine\.pt2: "):
        read_pt2(data, "mine.pt2")


def test_weights_in_pickles_are_refused(small):
    def pickle_first(config):
        next(iter(config["config"].values()))["use_pickle"] = True

    with pytest.raises(CheckpointError, match="could run code"):
        read_pt2(changed(small, "model_weights_config.json", pickle_first), "mine.pt2")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sizes", [{"as_int": 10**9}]),
        ("sizes", [{"as_int": -1}]),
        ("storage_offset", {"as_int": 10**6}),
        ("strides", [{"as_int": 10**9}] * 4),
        ("dtype", 99),
        ("layout", 1),
    ],
)
def test_tensors_that_reach_beyond_their_bytes_are_refused(small, field, value):
    def spoil(config):
        meta = config["config"]["conv.weight"]["tensor_meta"]
        meta[field] = value
        if field == "sizes":
            meta["strides"] = [{"as_int": 1}]

    with pytest.raises(CheckpointError, match=r"conv\.weight"):
        read_pt2(changed(small, "model_weights_config.json", spoil), "mine.pt2")


def test_a_weight_with_a_path_for_a_name_finds_nothing(small):
    def astray(config):
        config["config"]["conv.weight"]["path_name"] = "../../../etc/passwd"

    with pytest.raises(CheckpointError, match="not in the archive"):
        read_pt2(changed(small, "model_weights_config.json", astray), "mine.pt2")


@pytest.mark.parametrize("entry", ["model.json", "model_weights_config.json"])
def test_damaged_json_is_refused(small, entry):
    with pytest.raises(CheckpointError, match=r"mine\.pt2: "):
        read_pt2(changed(small, entry, dict.clear), "mine.pt2")
