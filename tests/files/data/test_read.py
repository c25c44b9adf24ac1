"""Data of every kind that may be given: found from the bytes, read right, said what was done."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from merging.files.data.arrays import fitting
from merging.files.data.read import read_data
from merging.schema.errors import DataError
from tests.hostile.builders import cifar_pickle, tarred


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(entries, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def unzip(data, folder):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)
    return folder


def read(data, **options):
    return read_data(data, "mine", **options)


X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


# --- arrays -----------------------------------------------------------------------------------


def test_class_numbers_make_a_classification():
    found = read(npz(x=X, y=[0, 2, 1]))
    np.testing.assert_array_equal(found.x, X)
    assert (found.kind, found.classes, found.y.tolist()) == ("classification", 3, [0, 2, 1])
    assert (found.x.dtype, found.y.dtype) == (np.float32, np.int64)


@given(hnp.arrays("float64", st.sampled_from([(3,), (3, 2)]), elements=st.floats(0.1, 0.9)))
def test_floats_make_a_regression(y):
    found = read(npz(x=X, y=y))
    np.testing.assert_array_equal(found.y, y.astype(np.float32))
    assert (found.kind, found.classes) == ("regression", y[0].size)


def test_negative_floats_make_a_regression_and_whole_ones_may():
    assert read(npz(x=X, y=[-1.0, 2.0, 3.0])).kind == "regression"
    assert read(npz(x=X, y=[1.0, 2.0, 3.0])).kind == "classification"
    assert read(npz(x=X, y=[1, 2, 3]), kind="regression").y.dtype == np.float32


def test_one_hot_rows_are_classes_and_it_is_said():
    found = read(npz(x=X, y=np.eye(3)[[2, 0, 1]]))
    assert found.y.tolist() == [2, 0, 1]
    assert found.notes == ("The rows of y are one-hot; the place of the one is the class.",)


@pytest.mark.parametrize(("y", "match"), [
    ([0, -1, 1], r"not class numbers: -1; labels must be whole numbers from 0, one .*as floats"),
    (np.ones((2, 3, 4)), r"shape \[2, 3, 4\] for 3 examples"),
    ([0, 1], r"shape \[2\] for 3 examples"),
    ([0.5, np.nan, 1], "1 values that are NaN"),
])  # fmt: skip
def test_targets_that_fit_nothing_are_refused(y, match):
    with pytest.raises(DataError, match=match):
        read(npz(x=X, y=y))


def test_a_known_kind_is_held_to():
    with pytest.raises(DataError, match=r"not class numbers: 0.5"):
        read(npz(x=X, y=[0.5, 1, 2]), kind="classification")


def test_the_kind_is_found_from_bytes_and_not_from_a_name(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(npz(x=X, y=[0, 2, 1]))
    assert read_data(path, "table.csv").y.tolist() == [0, 2, 1]
    assert read_data(b"1,0\n2,1\n", "images.npz").x.tolist() == [[1], [2]]


# --- tokens -----------------------------------------------------------------------------------


def test_rows_of_tokens_predict_their_next():
    found = read(npz(tokens=np.array([[1, 2, 3], [4, 5, 6]], np.uint16)))
    assert (found.x.tolist(), found.y.tolist()) == ([[1, 2], [4, 5]], [[2, 3], [5, 6]])
    assert (found.kind, found.classes, found.x.dtype) == ("tokens", 7, np.int64)


@given(st.integers(2, 60), st.integers(1, 70))
def test_a_long_text_is_cut_so_that_each_token_is_predicted_once(n, window):
    found = read(npz(tokens=np.arange(n)), window=window)
    flat = found.y.ravel()
    np.testing.assert_array_equal(flat, np.arange(1, len(flat) + 1))
    np.testing.assert_array_equal(found.x + 1, found.y)
    assert n - 1 - len(flat) < found.x.shape[1] <= window


# --- images -----------------------------------------------------------------------------------


def picture(pixels, form="PNG", mode=None):
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, form)
    return file.getvalue()


def pixels(seed, shape=(5, 4, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("form", ["PNG", "BMP"])
@pytest.mark.parametrize("source", ["zip", "folder"])
def test_images_are_read_by_class(tmp_path, form, source):
    data = zipped(
        {
            f"top/{label}/{k}.x": picture(pixels(k + 10 * c), form)
            for c, label in enumerate(["ant", "bee"])
            for k in range(3)
        }
        | {"top/ant/Thumbs.db": b"x", "top/notes.txt": b"hello", "__MACOSX/a/._0.x": b"x"}
    )
    found = read(data) if source == "zip" else read_data(unzip(data, tmp_path), "mine")
    assert found.class_names == ("ant", "bee")
    assert found.y.tolist() == [0, 0, 0, 1, 1, 1]
    wanted = [pixels(k + 10 * c).transpose(2, 0, 1) for c in range(2) for k in range(3)]
    np.testing.assert_allclose(found.x, np.array(wanted, np.float32) / 255, atol=1e-7)
    assert found.notes == ("6 colour images of 5 × 4 in 2 folders, one per class.",)


def test_grey_images_have_one_channel_and_mixed_ones_three():
    grey = {f"{c}/1.png": picture(pixels(k, (5, 4))) for k, c in enumerate("ab")}
    assert read(zipped(grey)).x.shape == (2, 1, 5, 4)
    assert read(zipped(grey | {"b/2.png": picture(pixels(3))})).x.shape == (3, 3, 5, 4)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "CMYK"])
def test_other_kinds_of_pixels_become_grey_or_colour(mode):
    form = "JPEG" if mode == "CMYK" else "PNG"
    data = zipped({f"{c}/1": picture(pixels(k), form, mode) for k, c in enumerate("ab")})
    assert read(data).x.shape == (2, 1 if mode in {"LA", "1"} else 3, 5, 4)


def test_images_are_resized_to_a_size_that_is_asked_for():
    data = zipped({"a/1": picture(pixels(0)), "b/1": picture(pixels(1, (9, 7, 3)))})
    found = read(data, image_size=(6, 8))
    assert found.x.shape == (2, 3, 6, 8)
    assert "resized to 6 × 8" in found.notes[1]


def test_folders_called_train_and_test_are_the_two_parts():
    data = zipped({
        f"d/{part}/{c}/{k}": picture(pixels(k)) for part, n in (("train", 2), ("test", 1))
        for c in "ab" for k in range(n)
    })  # fmt: skip
    found = read(data)
    assert (found.split, found.y.tolist()) == (4, [0, 0, 1, 1, 0, 1])


# --- CIFAR ------------------------------------------------------------------------------------


IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3072), np.uint8)
LABELS = [3, 1, 4, 1, 5, 9, 2]
BATCHES = {
    "c/batches.meta": pickle.dumps({"label_names": [f"class {k}" for k in range(10)]}, 2),
    "c/readme.html": b"<html>",
    "c/test_batch": cifar_pickle(IMAGES[5:], LABELS[5:], b"testing batch 1 of 1"),
    "c/data_batch_2": cifar_pickle(IMAGES[3:5], LABELS[3:5], b"training batch 2 of 5"),
    "c/data_batch_1": cifar_pickle(IMAGES[:3], LABELS[:3]),
}


@pytest.mark.parametrize("source", ["tar.gz", "tar", "zip", "folder"])
def test_cifar_is_read_from_its_archive(tmp_path, source):
    data = {"tar.gz": tarred(BATCHES, "gz"), "tar": tarred(BATCHES)}.get(source)
    data = data or zipped(BATCHES)
    found = read_data(unzip(data, tmp_path), "mine") if source == "folder" else read(data)
    wanted = IMAGES.reshape(-1, 3, 32, 32).astype(np.float32) / 255
    np.testing.assert_allclose(found.x, wanted, atol=1e-7)
    assert (found.y.tolist(), found.split, found.classes) == (LABELS, 5, 10)
    assert found.class_names[3] == "class 3"


def test_the_batch_of_the_tests_is_what_python_2_wrote():
    found = pickle.loads(BATCHES["c/data_batch_1"], encoding="bytes")
    np.testing.assert_array_equal(found[b"data"], IMAGES[:3])
    assert found[b"labels"] == LABELS[:3]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("labels", [LABELS, np.array(LABELS)])
def test_a_batch_that_was_pickled_anew_is_read(protocol, order, labels):
    batch = {"data": np.asarray(IMAGES, order=order), "fine_labels": labels, "coarse_labels": [1]}
    found = read(pickle.dumps(batch, protocol))
    np.testing.assert_array_equal(np.rint(found.x * 255).reshape(7, -1), IMAGES)
    assert (found.y.tolist(), found.split) == (LABELS, None)


def test_what_does_not_fit_is_left_out_from_the_training_part_and_said():
    found = read(tarred(BATCHES, "gz"), max_bytes=4 * 3072 * 4)
    assert (found.y.tolist(), found.split) == (LABELS[:2] + LABELS[5:], 2)
    assert "Of 7 images, 4 fit" in found.notes[1]


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 9), st.integers(1, 500))
def test_what_is_kept_fits_and_prefers_the_second_part(n, first, example, limit):
    first = min(n, first)
    a, b = fitting(n, first, example, limit)
    assert 1 <= a.stop + b.stop <= max(1, limit // example)
    assert b.stop == n - first or a.stop == 0


# --- idx --------------------------------------------------------------------------------------


def idx(array, kind=8):
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def mnist(pack=lambda data: data, ending=""):
    x, y = np.arange(5 * 12, dtype=np.uint8).reshape(5, 3, 4), np.arange(5, dtype=np.uint8)
    return {
        f"t10k-images-idx3-ubyte{ending}": pack(idx(x[3:])),
        f"t10k-labels-idx1-ubyte{ending}": pack(idx(y[3:])),
        f"train-images-idx3-ubyte{ending}": pack(idx(x[:3])),
        f"train-labels-idx1-ubyte{ending}": pack(idx(y[:3])),
    }


@pytest.mark.parametrize("files", [mnist(), mnist(gzip.compress, ".gz")])
@pytest.mark.parametrize("source", ["zip", "folder"])
def test_mnist_is_read_in_two_parts(tmp_path, files, source):
    data = zipped(files)
    found = read(data) if source == "zip" else read_data(unzip(data, tmp_path), "mine")
    assert (found.x.shape, found.split, found.y.tolist()) == ((5, 1, 3, 4), 3, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(found.x.ravel() * 255, np.arange(60), rtol=1e-6)


def test_a_pair_of_idx_files_needs_no_names():
    data = zipped({"a": idx(np.ones((2, 3, 3), ">f4"), 0x0D), "b": idx(np.ones(2, np.uint8))})
    found = read(data)
    assert (found.x.max(), found.split) == (1, None)


# --- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "a,b,y\n1,2,0\n3,4.5,1\n", "1,2,0\n3,4.5,1\n", "y;a;b\n0;1;2\n1;3;4.5\n",
    "a\tTarget\tb\r\n1\t0\t2\r\n3\t1\t4.5\r\n", '"a","b","c"\n"1","2","0"\n\n3,4.5,1',
    "\ufeffa,label,b\n1,0,2\n3,1,4.5\n",
])  # fmt: skip
def test_tables_are_read_with_and_without_a_header(text):
    found = read(text.encode())
    assert (found.x.tolist(), found.y.tolist()) == ([[1, 2], [3, 4.5]], [0, 1])
    assert found.kind == "classification"
    assert read(gzip.compress(text.encode())).y.tolist() == [0, 1]
    assert read(zipped({"table": text.encode()})).y.tolist() == [0, 1]


def test_a_table_in_utf_16_is_read():
    assert read("a,y\n1,0\n2,1\n".encode("utf-16")).y.tolist() == [0, 1]


def test_text_labels_are_numbered_in_order_and_it_is_said():
    found = read("länge,art\n1,viola\n2,aster\n3,viola\n".encode())
    assert (found.y.tolist(), found.class_names) == ([1, 0, 1], ("aster", "viola"))
    assert "class numbers in sorted order: 0 = aster, 1 = viola." in found.notes[1]
    assert "'art' is the target, the other 1 columns are features." in found.notes[0]


def test_numbers_to_predict_in_a_table_make_a_regression():
    found = read(b"a,y\n1,0.5\n2,-1\n")
    assert (found.kind, found.y.tolist()) == ("regression", [0.5, -1])
    assert read(b"a,y\n1,5\n2,7\n", kind="regression").kind == "regression"


@given(hnp.arrays("float32", st.tuples(st.integers(2, 6), st.integers(1, 5)),
                  elements=st.floats(-1e6, 1e6, width=32)))  # fmt: skip
def test_what_is_written_as_a_table_is_read_back(x):
    rows = [",".join([*map(repr, row.tolist()), str(k)]) for k, row in enumerate(x)]
    found = read("\n".join(rows).encode())
    np.testing.assert_array_equal(found.x, x)


def test_missing_paths_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="mine: there is no such file or folder"):
        read_data(tmp_path / "none", "mine")
    with pytest.raises(DataError, match="mine: holds no files; add the data"):
        read_data(tmp_path, "mine")
