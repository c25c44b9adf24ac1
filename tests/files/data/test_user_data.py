"""Examples of a function of whoever started the process."""

import os

import numpy as np
import pytest
import torch

from merging.files.data import user_data
from merging.files.data.user_data import own_data
from merging.files.user_function import OWN_DATA, OWN_MODEL, call_own, is_function, read_arguments
from merging.schema.errors import DataError, MergingError

X = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def returning(monkeypatch):
    """Let the server's function return a value."""

    def let(value):
        monkeypatch.setenv(OWN_DATA, "mine:data")
        monkeypatch.setattr(user_data, "call_own", lambda function, variable: value)
        return own_data("mine:data")

    return let


def test_inputs_and_targets_are_taken_as_they_are(returning):
    found = returning((X, np.array([0, 2, 1, 0])))
    assert np.array_equal(found.x, X)
    assert found.y.tolist() == [0, 2, 1, 0]
    assert (found.kind, found.classes, found.split) == ("classification", 3, None)


def test_tensors_and_a_test_part_of_its_own_are_kept_apart(returning):
    x, y = torch.tensor(X), torch.tensor([0.5, 1.5, 2.5, 3.25])
    found = returning(((x[:3], y[:3]), (x[3:], y[3:])))
    assert np.array_equal(found.x, X)
    assert found.y.tolist() == [0.5, 1.5, 2.5, 3.25]
    assert (found.kind, found.split) == ("regression", 3)


def test_whole_numbers_with_as_many_targets_are_tokens(returning):
    tokens = torch.tensor([[1, 5, 2], [0, 3, 4]])
    found = returning((tokens, tokens.roll(-1, 1)))
    assert (found.kind, found.classes) == ("tokens", 6)
    assert found.x.dtype == np.int64


def test_bytes_are_pictures(returning):
    found = returning((np.full((2, 1, 3, 3), 255, np.uint8), np.array([0, 1])))
    assert found.x.max() == 1.0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (X, "returned a ndarray; it has to return inputs and targets"),
        ((X, X, X), "returned a tuple of 3"),
        (((X,), (X,)), "returned a part of a tuple of 1"),
        (("x", "y"), "returned a str"),
        ((X, np.array(["a"] * 4)), "returned a ndarray"),
        ((X, np.arange(3)), "expected one per example"),
        ((X * np.nan, np.arange(4)), "NaN"),
        (((X, np.arange(4)), (X[:, :2], np.arange(4))), "two parts do not fit"),
        ((np.array([[1, -1]]), np.array([[1, 1]])), "whole numbers from 0"),
    ],
)
def test_what_is_no_examples_is_refused(returning, value, words):
    with pytest.raises(DataError, match=words):
        returning(value)


def test_only_the_function_of_the_server_is_called(monkeypatch):
    monkeypatch.setenv(OWN_DATA, "mine:data")
    with pytest.raises(MergingError, match="start it with --data os:getcwd"):
        call_own("os:getcwd", OWN_DATA)
    monkeypatch.delenv(OWN_MODEL, raising=False)
    with pytest.raises(MergingError, match="start it with --model os:getcwd"):
        call_own("os:getcwd", OWN_MODEL)


def test_functions_are_taken_from_the_command_line_of_the_app(monkeypatch):
    monkeypatch.setenv(OWN_MODEL, "before:it")
    monkeypatch.setenv(OWN_DATA, "")
    read_arguments(["--other", "3", "--data", "mine.parts:test"])
    assert os.environ[OWN_DATA] == "mine.parts:test"
    assert os.environ[OWN_MODEL] == "before:it"


@pytest.mark.parametrize("name", ["data.npz", "mnist", "C:\\data.npz", "a/b:c", "1a:b", "a:", ":b"])
def test_files_are_no_functions(name):
    assert not is_function(name)
