import io
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from merging.files.data.npz import check_fits, read_npz
from merging.schema.errors import DataError


def npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def zipped(compression=zipfile.ZIP_DEFLATED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def header(shape, descr="<f4"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


X, Y = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), np.array([0, 2, 1])


@given(
    hnp.arrays("float32", (3, 2), elements=st.floats(-1e6, 1e6, width=32)),
    st.lists(st.integers(0, 999), min_size=3, max_size=3),
    st.sampled_from([np.savez, np.savez_compressed]),
)
def test_gives_back_what_was_saved(inputs, labels, save):
    x, y = read_npz(npz(save, x=inputs, y=labels), "mine.npz")
    np.testing.assert_array_equal(x, inputs)
    assert (x.dtype, y.dtype, y.tolist()) == (np.float32, np.int64, labels)


def test_reads_a_file_on_disk(tmp_path):
    (tmp_path / "mine.npz").write_bytes(npz(x=X, y=Y))
    np.testing.assert_array_equal(read_npz(tmp_path / "mine.npz", "mine.npz")[0], X)


def test_images_of_bytes_become_fractions():
    x, _ = read_npz(npz(x=np.array([[0, 51, 255]], np.uint8), y=[0]), "mine.npz")
    np.testing.assert_allclose(x, [[0, 0.2, 1]], rtol=1e-6)
    assert x.dtype == np.float32


def test_other_integers_keep_their_values():
    x, _ = read_npz(npz(x=np.array([[-3, 300]], np.int16), y=[0]), "mine.npz")
    assert x.tolist() == [[-3, 300]]


@pytest.mark.parametrize("order", [X.astype(">f4"), np.asfortranarray(X), X.astype(np.float64)])
def test_byte_order_and_layout_do_not_matter(order):
    x, _ = read_npz(npz(x=order, y=Y), "mine.npz")
    np.testing.assert_array_equal(x, X)
    assert x.flags.c_contiguous
    assert x.dtype == np.dtype("=f4")


@pytest.mark.parametrize("labels", [[0.0, 2.0, 1.0], np.array([0, 2, 1], np.uint8)])
def test_whole_labels_of_any_dtype_are_accepted(labels):
    assert read_npz(npz(x=X, y=labels), "mine.npz")[1].tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"y": Y}, r"mine.npz: lacks 'x'; it holds 'y'. Save the inputs as x"),
        ({"x": X}, r"lacks 'y'; it holds 'x'"),
        ({"images": X, "labels": Y}, r"lacks 'x' and 'y'; it holds 'images', 'labels'"),
        ({"x": X, "y": Y[:2]}, r"'x' holds 3 examples and 'y' 2 labels"),
        ({"x": X[:0], "y": Y[:0]}, r"'x' has shape \[0, 4\]: no data"),
        ({"x": X[:, :0], "y": Y}, r"'x' has shape \[3, 0\]: no data"),
        ({"x": X[:, 0], "y": Y}, r"'x' has shape \[3\]; expected one row per example"),
        ({"x": X, "y": np.eye(3)}, r"'y' has shape \[3, 3\]; expected one class .* y.argmax"),
        ({"x": X, "y": [0, 1.5, 2]}, r"'y' holds 1 values that are not class numbers: 1.5"),
        ({"x": X, "y": [0, np.nan, np.inf]}, r"'y' holds 2 values that are not .*: inf, nan"),
        ({"x": X, "y": [0, -1, -2]}, r"'y' holds 2 values that are not class numbers: -2, -1"),
        ({"x": X, "y": [0, 1, 2**40]}, r"not class numbers: 1099511627776"),
        (
            {"x": X.astype(float) * 1e41, "y": Y},
            r"'x' holds 12 values that are NaN, infinite or too",
        ),
        ({"x": X.astype("U4"), "y": Y}, r"'x' holds <U4, and numbers are needed"),
        ({"x": X.astype(complex), "y": Y}, r"'x' holds complex128, and numbers"),
        ({"x": X, "y": np.array([(1, 2)] * 3, dtype="i4,i4")}, r"'y' holds .*f0.*numbers are"),
    ],
)
def test_unfit_data_is_named(arrays, match):
    with pytest.raises(DataError, match=match):
        read_npz(npz(**arrays), "mine.npz")


def test_missing_values_are_counted():
    x = X.copy()
    x[0, :2] = np.nan
    x[2, 1] = np.inf
    with pytest.raises(DataError, match=r"'x' holds 3 values .* in 2 of 3 examples"):
        read_npz(npz(x=x, y=Y), "mine.npz")


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_a_pickle_in_the_file_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    objects = npz(x=np.array([Evil(marker)], dtype=object), y=Y)
    raw = zipped(x=pickle.dumps(Evil(marker)), y=b"")
    with pytest.raises(DataError, match=r"'x' holds object, and numbers are needed"):
        read_npz(objects, "mine.npz")
    with pytest.raises(DataError, match=r"not a complete .npz file"):
        read_npz(raw, "mine.npz")
    assert not marker.exists()


def test_a_zip_bomb_is_refused_by_what_it_declares():
    bomb = zipped(x=header((1000, 100_000)) + bytes(150_000_000), y=b"")
    assert len(bomb) < 500_000
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"'x' takes 150,000,\d+ bytes, more than the limit of"):
        read_npz(bomb, "mine.npz", max_bytes=100_000_000)
    assert time.perf_counter() - start < 2


def test_bytes_that_would_grow_over_the_limit_as_floats_are_refused():
    data = npz(np.savez_compressed, x=np.zeros((100, 1000), np.uint8), y=np.zeros(100))
    with pytest.raises(DataError, match="'x' as float32 takes 400,000 bytes"):
        read_npz(data, "mine.npz", max_bytes=200_000)


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**40, 2**40), (1,), (-1, -4)])
def test_a_header_that_lies_is_refused(shape):
    data = zipped(x=header(shape) + bytes(16), y=b"")
    with pytest.raises(DataError, match=r"'x' claims shape .* and 16 are stored|not a complete"):
        read_npz(data, "mine.npz")


def test_an_entry_that_declares_less_than_it_holds_is_refused():
    data = zipped(x=header((4, 1000)) + bytes(16000), y=b"")
    size = len(header((4, 1000))) + 16000
    data = data.replace(struct.pack("<I", size), struct.pack("<I", size - 12000))
    with pytest.raises(DataError, match=r"not a complete .npz file \(BadZipFile: Bad CRC-32"):
        read_npz(data, "mine.npz")


def test_unusual_compression_is_refused():
    data = zipped(zipfile.ZIP_BZIP2, x=b"", y=b"")
    with pytest.raises(DataError, match="compressed in a way that NumPy does not use"):
        read_npz(data, "mine.npz")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        np.random.default_rng(0).bytes(5000),
        npz(x=X, y=Y)[:-1],
        npz(x=X, y=Y)[:-30],
        npz(x=X, y=Y)[100:],
        zipped(x=b"\x93NUMPY\x03\x00", y=b""),
        zipped(x=b"", y=b""),
        npz(x=X, y=Y).replace(b"'shape'", b"'shade'"),
        pickle.dumps({"x": X}),
    ],
    ids=range(10),
)
def test_a_file_that_is_not_a_whole_npz_is_refused(data):
    with pytest.raises(DataError, match=r"^mine.npz: "):
        read_npz(data, "mine.npz")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"mine.npz: the file cannot be read"):
        read_npz(tmp_path / "none.npz", "mine.npz")
    with pytest.raises(DataError, match=r"mine.npz: the file cannot be read"):
        read_npz(tmp_path, "mine.npz")


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (5, 28, 28), (5, 784), (5, 28, 28, 1)])
def test_images_take_the_shape_of_the_model(shape):
    x = np.arange(5 * 784, dtype=np.float32).reshape(shape)
    fitted = check_fits(x, np.arange(5), (1, 28, 28), 10)
    assert fitted.shape == (5, 1, 28, 28)
    np.testing.assert_array_equal(fitted.ravel(), x.ravel())


def test_images_are_flattened_for_a_model_of_vectors():
    assert check_fits(np.zeros((5, 28, 28), np.float32), np.zeros(5), (784,), 10).shape == (5, 784)


@pytest.mark.parametrize(
    ("shape", "example", "match"),
    [
        ((5, 27, 28), (1, 28, 28), r"x has shape \[5, 27, 28\], and the model takes \[n, 1, 28, 2"),
        ((5, 32, 32, 3), (3, 32, 32), r"channels are last: save x.transpose\(0, 3, 1, 2\)"),
        ((5, 14, 56), (1, 28, 28), r"x has shape \[5, 14, 56\]"),
        ((5, 32, 96), (3, 32, 32), r"x has shape \[5, 32, 96\]"),
    ],
)
def test_images_of_another_shape_are_refused(shape, example, match):
    with pytest.raises(DataError, match=match):
        check_fits(np.zeros(shape, np.float32), np.zeros(5, np.int64), example, 10)


def test_labels_out_of_range_are_listed():
    y = np.array([9, 10, 12, 12, 3])
    with pytest.raises(DataError, match=r"y holds 3 labels outside 0 to 9: 10, 12; .*10 classes"):
        check_fits(np.zeros((5, 784), np.float32), y, (784,), 10)
