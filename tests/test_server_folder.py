"""The server's folder: what is inside can be opened, and nothing else, by whatever name."""

from __future__ import annotations

import json
import os

import pytest

from merging import server_folder
from merging.errors import MergingError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with a model, a model's folder and links; beside it a secret."""
    inside = tmp_path / "models"
    (inside / "bert").mkdir(parents=True)
    (inside / "bert" / "config.json").write_text("{}")
    (inside / "bert" / "model.safetensors").write_bytes(b"weights")
    (inside / "runs").mkdir()
    (inside / "runs" / "a.safetensors").write_bytes(b"a")
    (inside / "runs" / ".hidden.pt").write_bytes(b"h")
    (inside / "examples.npz").write_bytes(b"e")
    (tmp_path / "secret.pt").write_bytes(b"secret")
    (inside / "link.pt").symlink_to(tmp_path / "secret.pt")
    (inside / "within.pt").symlink_to(inside / "runs" / "a.safetensors")
    (inside / "out").symlink_to(tmp_path)
    monkeypatch.setenv(server_folder.FOLDER, str(inside))
    return inside


def test_it_is_off_by_default(monkeypatch):
    monkeypatch.delenv(server_folder.FOLDER, raising=False)
    assert not server_folder.is_on()
    with pytest.raises(MergingError, match="opens no files of its own"):
        server_folder.identity("a.pt")


def test_files_and_folders_of_models_are_listed_and_no_link_that_leads_out(root):
    assert server_folder.names(server_folder.WEIGHTS) == [
        "bert", "runs/a.safetensors", "within.pt"
    ]  # fmt: skip
    assert server_folder.names(server_folder.EXAMPLES) == ["examples.npz"]


@pytest.mark.parametrize("name", ["runs/a.safetensors", "bert", "within.pt"])
def test_what_is_inside_is_found_by_its_identity(root, name):
    path = server_folder.find(server_folder.identity(name))
    assert path == (root / name).resolve()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.pt", "runs/../../secret.pt", "/etc/passwd", "link.pt", "out/secret.pt", "out",
        "", ".", "runs/..", "..", "a\0b", "..\\secret.pt", "no/such.pt", "a" * 5000,
        "//etc/passwd", "~/secret.pt", "runs/./../../secret.pt",
    ],
)  # fmt: skip
def test_nothing_outside_is_ever_found(root, name):
    wanted = json.dumps({"path": name, "size": 6, "changed": 0})
    for attempt in (lambda: server_folder.identity(name), lambda: server_folder.find(wanted)):
        with pytest.raises(
            MergingError, match=r"inside the server's folder|no such file"
        ) as caught:
            attempt()
        assert str(root) not in str(caught.value)


def test_a_model_s_folder_with_a_link_that_leads_out_is_refused(root):
    (root / "bert" / "deep").mkdir()
    (root / "bert" / "deep" / "more.safetensors").symlink_to(root.parent / "secret.pt")
    with pytest.raises(MergingError, match="not a file inside"):
        server_folder.identity("bert")


def test_a_pipe_is_refused(root):
    os.mkfifo(root / "pipe.pt")
    with pytest.raises(MergingError, match="not a file inside"):
        server_folder.identity("pipe.pt")


def test_a_file_that_changed_is_asked_for_again(root):
    wanted = server_folder.identity("runs/a.safetensors")
    (root / "runs" / "a.safetensors").write_bytes(b"other")
    with pytest.raises(MergingError, match="changed on the server since it was chosen"):
        server_folder.find(wanted)


@pytest.mark.parametrize("wanted", ["", "{", "[]", "3", '{"size": 1}'])
def test_what_names_no_file_is_refused(root, wanted):
    with pytest.raises(MergingError, match="names no file on the server"):
        server_folder.find(wanted)


def test_a_folder_that_is_none_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv(server_folder.FOLDER, str(tmp_path / "none"))
    with pytest.raises(MergingError, match="does not name a folder"):
        server_folder.names(server_folder.WEIGHTS)
