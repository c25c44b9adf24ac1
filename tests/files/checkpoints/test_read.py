import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merging.files.checkpoints.fingerprint import fingerprint
from merging.files.checkpoints.read import (
    Limits,
    check_finite,
    map_checkpoint,
    read_checkpoint,
    read_checkpoint_bytes,
)
from merging.files.checkpoints.write import checkpoint_bytes, write_checkpoint
from merging.schema.errors import CheckpointError, StoreError

GLOBAL_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def model():
    generator = torch.Generator().manual_seed(0)
    return {
        "0.weight": torch.randn(3, 4, generator=generator),
        "0.bias": torch.randn(3, generator=generator),
        "1.num_batches_tracked": torch.tensor(7),
    }


def torch_bytes(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def safe_bytes(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def rezipped(data, change=None, compression=zipfile.ZIP_STORED):
    """Write a zip file again with entries changed: `{ending of the name: bytes}`."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(file, "w", compression) as new,
    ):
        for entry in old.infolist():
            replaced = [v for k, v in (change or {}).items() if entry.filename.endswith(k)]
            new.writestr(entry.filename, replaced[0] if replaced else old.read(entry))
    return file.getvalue()


def with_pickle(pickled):
    return rezipped(torch_bytes({"a": torch.ones(3)}), {"data.pkl": pickled})


def pickled_tensor(numel=3, size=3, stride=1, offset=0):
    """A state dict of one tensor, as opcodes, so that its numbers can lie."""

    def number(n):
        return b"\x8a\x08" + struct.pack("<q", n)

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    view = number(offset) + number(size) + b"\x85" + number(stride) + b"\x85"
    return (
        b"\x80\x02}X\x01\0\0\0a" + GLOBAL_REBUILD + b"(" + storage + number(numel) + b"tQ"
        + view + b"\x89ccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip


def refused(data, match, **options):
    with pytest.raises(CheckpointError, match=match) as caught:
        read_checkpoint_bytes(data, "mine.pt", **options)
    assert str(caught.value).startswith("mine.pt: ")


# --- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model"])
@pytest.mark.parametrize("kind", ["pytorch", "safetensors"])
def test_a_file_is_told_by_its_content(tmp_path, name, kind):
    path = tmp_path / name
    path.write_bytes(torch_bytes(model()) if kind == "pytorch" else safetensors.torch.save(model()))
    params, meta = read_checkpoint(path)
    torch.testing.assert_close(params, model(), rtol=0, atol=0)
    assert meta == {"format": kind, "dtypes": "float32: 2, int64: 1"}


def test_the_state_dict_of_a_module_and_its_parameters_become_plain_tensors():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    params, _ = read_checkpoint_bytes(torch_bytes(net.state_dict(keep_vars=True)), "mine.pt")
    assert {type(tensor) for tensor in params.values()} == {torch.Tensor}
    assert not any(tensor.requires_grad for tensor in params.values())
    net.load_state_dict(params)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "params", "net", "ema"])
def test_a_state_dict_inside_a_larger_dict_is_found(key):
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    beside = {"epoch": 3, "milestones": Counter([1, 2]), "device": torch.device("cpu")}
    whole = beside | {key: net.state_dict(), "optimizer": optimizer.state_dict()}
    params, meta = read_checkpoint_bytes(torch_bytes(whole), "mine.pt")
    assert list(params) == ["weight", "bias"]
    assert meta["found_under"] == key
    assert meta["ignored"] == "'epoch', 'milestones', 'device', 'optimizer'"


def test_a_state_dict_two_dicts_deep_is_found():
    data = torch_bytes({"model": {"state_dict": model(), "name": "mlp"}})
    params, meta = read_checkpoint_bytes(data, "mine.pt")
    assert list(params) == list(model())
    assert meta["found_under"] == "model.state_dict"
    assert meta["ignored"] == "'name'"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.module."])
@pytest.mark.parametrize("save", [torch_bytes, safetensors.torch.save])
def test_the_prefixes_of_wrappers_are_cut_off(prefix, save):
    data = save({prefix + name: tensor for name, tensor in model().items()})
    params, meta = read_checkpoint_bytes(data, "mine.pt")
    assert set(params) == set(model())
    assert meta["stripped_prefix"] == prefix


def test_a_prefix_that_some_names_lack_stays():
    data = torch_bytes({"module.weight": torch.ones(2), "head.weight": torch.ones(2)})
    params, meta = read_checkpoint_bytes(data, "mine.pt")
    assert set(params) == {"module.weight", "head.weight"}
    assert "stripped_prefix" not in meta


@pytest.mark.parametrize("save", [torch_bytes, safetensors.torch.save])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.bool])
def test_dtypes_are_kept(save, dtype):
    params, meta = read_checkpoint_bytes(save({"w": torch.ones(3).to(dtype)}), "mine.pt")
    assert params["w"].dtype == dtype
    assert meta["dtypes"] == f"{str(dtype).removeprefix('torch.')}: 1"


def test_tied_and_transposed_tensors_get_memory_of_their_own():
    tied = torch.arange(6.0).reshape(2, 3)
    data = torch_bytes({"a": tied, "b": tied, "c": tied.T})
    params, _ = read_checkpoint_bytes(data, "mine.pt")
    assert all(tensor.is_contiguous() for tensor in params.values())
    assert len({tensor.data_ptr() for tensor in params.values()}) == 3
    torch.testing.assert_close(params["c"], tied.T)


def test_scalars_and_empty_tensors_are_read():
    data = torch_bytes({"s": torch.tensor(1.5), "none": torch.empty(0, 4)})
    params, _ = read_checkpoint_bytes(data, "mine.pt")
    assert params["s"].item() == 1.5
    assert params["none"].shape == (0, 4)


# --- what is written -------------------------------------------------------------------------

tensors = st.sampled_from(["float32", "float16", "int64", "bool", "uint8"]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements=st.floats(-9, 9, width=16) if dtype.startswith("float") else None,
    )
)
models = st.dictionaries(
    st.text("abc.0_ü", min_size=1, max_size=8), tensors, min_size=1, max_size=4
)


@given(models, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_is_written_is_read_back(arrays, meta):
    params = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}
    found, notes = read_checkpoint_bytes(checkpoint_bytes(params, meta), "mine")
    assert set(found) == set(params)
    assert fingerprint(found) == fingerprint(params)
    assert {**notes, **meta} == notes


@given(models)
def test_pytorch_files_are_read_back(arrays):
    params = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}
    assert fingerprint(read_checkpoint_bytes(torch_bytes(params), "mine")[0]) == fingerprint(params)


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    write_checkpoint(path, model(), {"seed": 3})
    params, meta = read_checkpoint(path)
    assert fingerprint(params) == fingerprint(model())
    assert meta["seed"] == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_mapped_file_is_what_was_written_and_is_not_written_to(tmp_path):
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, model())
    before = path.read_bytes()
    params = map_checkpoint(path)
    assert fingerprint(params) == fingerprint(model())
    for value in params.values():
        value.zero_()
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts pages as Linux does")
def test_a_mapped_file_takes_no_memory_of_its_own(tmp_path):
    path = tmp_path / "large.safetensors"
    write_checkpoint(path, {"w": torch.ones(1 << 24)})  # 64 MB
    lines = """
import sys
from pathlib import Path
from merging.files.checkpoints.read import map_checkpoint

def own():
    status = dict(line.split(":") for line in open("/proc/self/status"))
    return int(status["RssAnon"].split()[0]) // 1024

before = own()
total = map_checkpoint(Path(sys.argv[1]))["w"].sum()
print(int(total), own() - before)
"""
    out = subprocess.run([sys.executable, "-c", lines, path], capture_output=True, check=True)
    total, grown = map(int, out.stdout.split())
    assert total == 1 << 24
    assert grown < 32


@pytest.mark.parametrize("data", [None, b"", b"short", b"\xff" * 100])
def test_a_file_that_cannot_be_mapped_is_an_error(tmp_path, data):
    path = tmp_path / "model.safetensors"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(CheckpointError, match="gone or damaged"):
        map_checkpoint(path)


def test_views_shared_memory_and_gradients_can_be_written():
    w = torch.arange(6.0, requires_grad=True).reshape(2, 3)
    params = {"a": w, "b": w.T, "c": w[0], "d": torch.ones(1).expand(4)}
    found, _ = read_checkpoint_bytes(checkpoint_bytes(params), "mine")
    torch.testing.assert_close(found["b"], w.detach().T)
    assert fingerprint(found) == fingerprint(params)


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_the_old_one(tmp_path):
    with pytest.raises(StoreError, match=r"model.pt: the checkpoint cannot be written"):
        write_checkpoint(tmp_path / "none" / "model.pt", model())
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="folder: the checkpoint cannot be written"):
        write_checkpoint(tmp_path / "folder", model())
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_tensor_that_no_model_has_is_not_written():
    with pytest.raises(CheckpointError, match=r"tensor 'w' has dtype torch.complex64"):
        checkpoint_bytes({"w": torch.ones(2, dtype=torch.complex64)})
    with pytest.raises(CheckpointError, match="tensor 'w' is sparse"):
        checkpoint_bytes({"w": torch.eye(2).to_sparse()})


# --- fingerprints ----------------------------------------------------------------------------


def test_a_fingerprint_ignores_order_strides_and_format():
    params = model()
    other = dict(reversed([(name, tensor.t().contiguous().t() if tensor.dim() > 1 else tensor)
                           for name, tensor in params.items()]))  # fmt: skip
    assert other["0.weight"].stride() != params["0.weight"].stride()
    from_torch, _ = read_checkpoint_bytes(torch_bytes(other), "mine")
    from_safe, _ = read_checkpoint_bytes(checkpoint_bytes(other), "mine")
    prints = {fingerprint(p) for p in (params, other, from_torch, from_safe)}
    assert len(prints) == 1


def test_a_fingerprint_tells_names_dtypes_shapes_and_values_apart():
    one = torch.ones(4)
    different = [
        {"a": one}, {"b": one}, {"a": one.half()}, {"a": one.bfloat16()}, {"a": one.reshape(2, 2)},
        {"a": one, "b": one}, {"a": one[:3]}, {"a": torch.tensor([1.0, 1, 1, 2])}, {},
        {"a": one.view(torch.int32)},
    ]  # fmt: skip
    assert len({fingerprint(params) for params in different}) == len(different)


# --- damaged and foreign files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "the file is empty"),
        (b"PK", "neither a safetensors file nor a PyTorch zip file; save it with torch.save"),
        (np.random.default_rng(0).bytes(100_000), "neither a safetensors file nor"),
        (b"x" * 7, "neither"),
        (torch_bytes(model())[:-1], "damaged or cut short"),
        (torch_bytes(model())[:400], "damaged or cut short"),
        (torch_bytes(model()) + b"more", "damaged or cut short"),
        (b"PK\x03\x04" + bytes(200), "damaged or cut short"),
        (checkpoint_bytes(model())[:-1], "safetensors file is damaged"),
        (checkpoint_bytes(model())[:60], r"cut short: its header should have \d+ bytes"),
        (safe_bytes(b"{" * 100_000), "header of the safetensors file is damaged"),
        (safe_bytes(b'{"a": ' + b"[" * 100_000), "header of the safetensors file is damaged"),
        (safe_bytes({"__metadata__": 3}), "header of the safetensors file is damaged"),
        (safe_bytes({"__metadata__": {"a": 3}, "a": {}}), "tensor 'a' is listed without a dtype"),
        (safe_bytes({}), "holds no tensors"),
        (torch_bytes({}), "holds no tensors"),
        (torch_bytes(torch.ones(3)), "holds Tensor, not a dict of tensors"),
        (torch_bytes([torch.ones(3)]), "holds list, not a dict of tensors"),
        (torch_bytes({"w": torch.ones(1), "epoch": 3}), "tensor 'epoch' is int, not a tensor"),
        (torch_bytes({3: torch.ones(1)}), "a name is int, not text"),
        (rezipped(torch_bytes(model()), {"byteorder": b"big"}), "big-endian machine"),
        (rezipped(torch_bytes(model()), {"data.pkl": b"\x80\x02"}), "its data.pkl is damaged"),
        (rezipped(torch_bytes(model()), {"data.pkl": b"\x80\x02t."}), "its data.pkl is damaged"),
        (rezipped(torch_bytes(model()), {"data/0": b""}), "claims 48 bytes, but at most 0"),
    ],
    ids=range(24),
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_refused_at_once(data, match):
    start = time.perf_counter()
    refused(data, match)
    assert time.perf_counter() - start < 2


@given(st.data())
def test_no_damage_to_a_file_makes_anything_but_a_checkpoint_error(data):
    whole = data.draw(st.sampled_from([torch_bytes(model()), checkpoint_bytes(model())]))
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_checkpoint_bytes(bytes(broken[: data.draw(st.integers(1, len(whole)))]), "mine.pt")
    except CheckpointError as error:
        assert str(error).startswith("mine.pt: ")  # noqa: PT017


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"none.pt: there is no such file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="no weights are in it, only nothing; expected one"):
        read_checkpoint(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="pipe: this is not a file"):
        read_checkpoint(tmp_path / "pipe")


def test_torchscript_and_other_zip_files_are_refused():
    script = rezipped(torch_bytes(model()), {})
    file = io.BytesIO(script)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    refused(file.getvalue(), r"TorchScript archive, which holds code.*Open it where you trust it")
    file = io.BytesIO()
    np.savez(file, x=[1])
    refused(file.getvalue(), "no weights are in it, only 'x.npy'")


def test_a_file_without_finite_weights_names_the_tensors():
    params = model() | {"bad": torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0])}
    match = r"1 of 4 tensors hold values that are not finite: 'bad' \(1 NaN, 2 infinite\)"
    for data in (torch_bytes(params), checkpoint_bytes(params)):
        refused(data, match)
        found, _ = read_checkpoint_bytes(data, "mine.pt", require_finite=False)
        assert found["bad"].isnan().sum() == 1
    with pytest.raises(CheckpointError, match="model A: 1 of 4"):
        check_finite(params, "model A")


# --- tensors that are not dense and real ------------------------------------------------------


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_bytes({"q": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)})


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (torch_bytes({"a": torch.ones(1), "s": torch.eye(3).to_sparse()}), "'s' is sparse"),
        (torch_bytes({"z": torch.ones(2, dtype=torch.complex64)}), "'z' has dtype torch.complex64"),
        (torch_bytes({"u": torch.ones(2, dtype=torch.uint16)}), "'u' has a dtype that cannot"),
        (torch_bytes({"e": torch.ones(1).expand(5)}), r"'e' claims 20 bytes.* at most 4 .*clone"),
        (torch_bytes({"m": torch.ones(2, device="meta")}), "'m' is on the device 'meta'"),
        (quantised(), "'q' is quantised"),
        (safetensors.torch.save({"f": torch.ones(2).to(torch.float8_e5m2)}), "'f' has dtype F8_E5"),
        (safe_bytes({"w": {"dtype": 3, "shape": []}}), "'w' is listed without a dtype and a shape"),
        (safe_bytes({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}, b"abcd"),
         "safetensors file is damaged"),
        (safe_bytes({"w": {"dtype": "F32", "shape": [2**63, 4], "data_offsets": [0, 0]}}),
         "safetensors file is damaged"),
        (safe_bytes({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**15]}}, b"abcd"),
         "safetensors file is damaged"),
    ],
    ids=range(11),
)  # fmt: skip
def test_a_tensor_that_cannot_be_merged_is_named(data, match):
    refused(data, match)


# --- files that would take all memory ---------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        {"size": 10**12, "stride": 0},
        {"size": 10**12, "numel": 10**12},
        {"size": 10**12},
        {"size": 1000, "numel": 1000},
        {"offset": 10**6},
        {"stride": 10**9},
        {"size": 3, "numel": 10**5, "offset": 50_000},
        {"size": -1},
        {"stride": -1},
        {"offset": -1},
        {"numel": -1},
        {"size": 2**62, "numel": 2**62},
    ],
    ids=str,
)
def test_a_tensor_larger_than_its_storage_is_refused(lie):
    start = time.perf_counter()
    refused(with_pickle(pickled_tensor(**lie)), "claims|data.pkl is damaged.*unusual")
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_protocol_since_the_second_is_read(protocol):
    params, _ = read_checkpoint_bytes(torch_bytes(model(), pickle_protocol=protocol), "mine.pt")
    assert fingerprint(params) == fingerprint(model())


def test_the_opcodes_that_lie_above_can_tell_the_truth():
    params, _ = read_checkpoint_bytes(with_pickle(pickled_tensor()), "mine.pt")
    assert params["a"].tolist() == [1, 1, 1]


def test_a_zip_bomb_is_refused_by_its_list_of_entries():
    zeros = {"data/0": bytes(300_000_000)}
    bomb = rezipped(torch_bytes({"a": torch.ones(3)}), zeros, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1_000_000
    before, start = resident_bytes(), time.perf_counter()
    refused(bomb, r"compressed \(300,\d+,\d+ bytes in \d+,\d+\)")
    assert resident_bytes() - before < 50_000_000
    assert time.perf_counter() - start < 2


def resident_bytes():
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(statm.read_text().split()[1]) * resource.getpagesize()


def test_entries_that_overlap_are_refused():
    data = bytearray(rezipped(torch_bytes({"a": torch.ones(3), "b": torch.ones(3)})))
    first = data.rindex(b"PK\x01\x02", 0, data.index(b"data/0", data.index(b"PK\x01\x02")))
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    refused(bytes(data), "entries of the zip file overlap")


def test_two_entries_of_one_name_are_refused():
    file = io.BytesIO(rezipped(torch_bytes(model())))
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", pickled_tensor())
    refused(file.getvalue(), "two entries have one name")


def test_values_nested_deep_neither_overflow_the_stack_nor_take_long():
    deep = b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s."
    refused(with_pickle(deep), "more than 600,000 steps")
    by_memo = b"\x80\x02})q\x00" + b"0h\x00\x85q\x00" * 100_000 + b"h\x00K\x01s."
    refused(with_pickle(by_memo), "sets an item of something")


HUGE = pickled_tensor(size=10**9, stride=0)[len(b"\x80\x02}X\x01\0\0\0a") : -2]


@pytest.mark.parametrize(
    "opcodes",
    [
        b"ccollections\nOrderedDict\n" + HUGE + b"R.",
        b"ccollections\nOrderedDict\n" + HUGE + b"\x85R.",
        b"ccollections\nCounter\n" + HUGE + b"\x85R.",
        b"ccollections\nOrderedDict\n]" + HUGE + b"a\x85R.",
        b"ccollections\nOrderedDict\n]q\x01\x85q\x02h\x01" + HUGE + b"a0h\x02R.",
        b"ctorch\nSize\n" + HUGE + b"\x85R.",
        b"ccollections\nOrderedDict\n)R" + HUGE + b"b.",
        b"ccollections\nOrderedDict\n)R]" + HUGE + b"ab.",
    ],
    ids=range(8),
)
def test_a_call_that_would_unpack_a_huge_view_is_refused(opcodes):
    start = time.perf_counter()
    refused(with_pickle(b"\x80\x02" + opcodes), "unusual (arguments|state)|not a function")
    assert time.perf_counter() - start < 2


def test_a_long_list_is_not_deep():
    data = torch_bytes({"state_dict": model(), "losses": [(k / 7, k) for k in range(5000)]})
    assert read_checkpoint_bytes(data, "mine.pt")[1]["ignored"] == "'losses'"


@pytest.mark.parametrize("save", [torch_bytes, checkpoint_bytes])
@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (Limits(max_bytes=100), r"has [\d,]+ bytes, more than the limit of 100; save the weights"),
        (Limits(max_tensors=2), "holds 3 tensors, more than the limit of 2|header has|too many"),
        (Limits(max_name=7), "tensor '1.num_batches_tracked' has a name of 21 characters|'0.w"),
        (Limits(max_dims=1), r"tensor '0.weight' has 2 axes \(limit 1\)"),
    ],
)
def test_limits_hold_for_either_kind_of_file(save, limits, match):
    refused(save(model()), match, limits=limits)


def test_many_views_of_one_storage_are_counted_each():
    w = torch.ones(1000)
    data = torch_bytes({f"w{k}": w.view(10, 100) for k in range(20)})
    refused(data, "tensors take 80,000 bytes, more than the limit", limits=Limits(max_bytes=40_000))


def test_a_long_list_of_entries_is_refused_before_it_is_parsed():
    file = io.BytesIO(torch_bytes(model()))
    with zipfile.ZipFile(file, "a") as archive:
        for k in range(100):
            archive.writestr(f"archive/data/extra{k}", b"")
    refused(file.getvalue(), "lists too many entries", limits=Limits(max_tensors=3))


# --- code ------------------------------------------------------------------------------------


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def evils(marker):
    touch = f"open({str(marker)!r}, 'w').close()"
    module, path = b"cposix\nsystem\n", f"touch {marker}".encode()
    argument = b"X" + struct.pack("<I", len(path)) + path
    return {
        "os.system": pickle.dumps(Evil(os.system, f"touch {marker}"), 2),
        "eval": pickle.dumps({"a": Evil(eval, touch)}, 2),
        "exec": pickle.dumps(Evil(exec, touch), 2),
        "open": pickle.dumps(Evil(open, str(marker), "w"), 2),
        "protocol 0": pickle.dumps(Evil(os.system, f"touch {marker}"), 0),
        "protocol 4": pickle.dumps(Evil(os.system, f"touch {marker}"), 4),
        "inst": b"(" + argument + b"iposix\nsystem\n.",
        "obj": b"(" + module + argument + b"o.",
        "newobj": b"\x80\x02" + module + argument + b"\x85\x81.",
        "after the tensors": pickled_tensor()[:-1] + module + argument + b"\x85R.",
        "by a dotted name": b"\x80\x02ctorch\nserialization.os.system\n" + argument + b"\x85R.",
        "hook": b"\x80\x02ctorch\nload\n" + argument + b"\x85R.",
    }


@pytest.mark.parametrize("route", evils(""))
def test_code_in_a_file_does_not_run(tmp_path, route):
    marker = tmp_path / "ran"
    evil = evils(marker)[route]
    refused(with_pickle(evil), "could run code|Python objects|data.pkl is damaged")
    refused(evil, "plain pickle|neither a safetensors")
    assert not marker.exists()


def test_a_legacy_pytorch_file_is_refused_with_what_to_do(tmp_path):
    marker = tmp_path / "ran"
    for value in (model(), {"a": Evil(os.system, f"touch {marker}")}):
        data = torch_bytes(value, _use_new_zipfile_serialization=False)
        refused(data, r"before version 1.6.*not read.*torch.save\(model.state_dict\(\), path\)")
    assert not marker.exists()


def test_a_whole_module_is_refused_with_what_to_do():
    data = torch_bytes(torch.nn.Linear(2, 2))
    refused(data, r"holds 'torch.nn.modules.linear.Linear', which is not a tensor.*state_dict")


def test_equal_models_give_equal_bytes():
    notes = {"made_by": "me", "what": "merged", "recipe": "{}"}
    files = {checkpoint_bytes({"b": torch.ones(2), "a": torch.zeros(3)}, notes) for _ in range(8)}
    assert len(files) == 1
