"""The server's folder: what is inside can be opened, and nothing else, by whatever name."""

from __future__ import annotations

import contextlib
import json
import os
import threading

import pytest

from merging.files import beneath, server_folder
from merging.schema.errors import MergingError


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
    with server_folder.opened(server_folder.identity(name)) as path:
        assert path.name == name.rpartition("/")[2]
        assert _content(path) == _content(root / name)


def _content(path):
    if path.is_file():
        return path.read_bytes()
    return {file.name: file.read_bytes() for file in path.iterdir()}


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
    for attempt in (lambda: server_folder.identity(name), lambda: _open(wanted)):
        with pytest.raises(
            MergingError, match=r"inside the server's folder|no such file"
        ) as caught:
            attempt()
        assert str(root) not in str(caught.value)


def _open(wanted):
    with server_folder.opened(wanted) as path:
        return path


def test_a_model_s_folder_with_a_link_that_leads_out_is_refused(root):
    (root / "bert" / "more.safetensors").symlink_to(root.parent / "secret.pt")
    with pytest.raises(MergingError, match="not a file inside"):
        server_folder.identity("bert")


def test_a_folder_of_links_as_caches_have_them_is_read(root):
    (root / "blobs").mkdir()
    (root / "blobs" / "abc").write_bytes(b"shard")
    snapshot = root / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    with server_folder.opened(server_folder.identity("snapshots/1")) as path:
        assert (path / "model.safetensors").read_bytes() == b"shard"


@pytest.mark.parametrize("target", ["../../secret.pt", "../runs/../../secret.pt", "loop.pt"])
def test_links_are_walked_only_as_far_as_they_stay_inside(root, target):
    (root / "runs" / "loop.pt").symlink_to(target)
    with pytest.raises(MergingError, match=r"inside the server's folder|no such file"):
        server_folder.identity("runs/loop.pt")


def test_what_is_read_is_what_was_checked(root):
    place = root / "runs" / "a.safetensors"
    with server_folder.opened(server_folder.identity("runs/a.safetensors")) as path:
        place.unlink()
        place.symlink_to(root.parent / "secret.pt")
        assert path.read_bytes() == b"a"


@pytest.mark.parametrize("swapped", ["file", "folder"])
def test_names_that_are_swapped_all_the_while_give_nothing_away(root, swapped):
    inside, outside = root / "x" / "m.pt", root.parent / "other"
    inside.parent.mkdir()
    inside.write_bytes(b"a")
    outside.mkdir()
    (outside / "m.pt").write_bytes(b"s")  # as long as the one inside
    os.utime(inside, ns=(1, 1))
    os.utime(outside / "m.pt", ns=(1, 1))
    wanted = server_folder.identity("x/m.pt")
    with _swapping(inside if swapped == "file" else inside.parent, outside, root / "aside"):
        seen = {_read_or_refused(wanted) for _ in range(400)}
    assert b"s" not in seen
    assert b"a" in seen


def _read_or_refused(wanted):
    try:
        with server_folder.opened(wanted) as path:
            return path.read_bytes()
    except MergingError:
        return b"refused"


@contextlib.contextmanager
def _swapping(place, outside, aside):
    """Put a link that leads out in the place of a file or a folder, and back, again and again."""
    link = place.parent / "link"
    link.symlink_to(outside / "m.pt" if place.is_file() else outside)
    done = threading.Event()

    def swap():
        while not done.is_set():
            place.rename(aside)
            link.rename(place)
            place.rename(link)
            aside.rename(place)

    thread = threading.Thread(target=swap)
    thread.start()
    yield
    done.set()
    thread.join()


def test_where_a_system_cannot_open_safely_nothing_is_opened(root, monkeypatch):
    monkeypatch.setattr(server_folder, "is_supported", lambda: False)
    with pytest.raises(MergingError, match="cannot open files in a folder safely; upload"):
        server_folder.identity("runs/a.safetensors")


def test_where_a_handle_has_no_path_a_copy_is_read(root, monkeypatch, tmp_path):
    monkeypatch.setattr(beneath, "_HANDLES", tmp_path / "none")
    with server_folder.opened(server_folder.identity("bert")) as path:
        assert not (path / "model.safetensors").is_symlink()
        assert _content(path) == _content(root / "bert")


def test_a_pipe_is_refused(root):
    os.mkfifo(root / "pipe.pt")
    with pytest.raises(MergingError, match="not a file inside"):
        server_folder.identity("pipe.pt")


def test_a_file_that_changed_is_asked_for_again(root):
    wanted = server_folder.identity("runs/a.safetensors")
    (root / "runs" / "a.safetensors").write_bytes(b"other")
    with pytest.raises(MergingError, match="changed on the server since it was chosen"):
        _open(wanted)


@pytest.mark.parametrize("wanted", ["", "{", "[]", "3", '{"size": 1}'])
def test_what_names_no_file_is_refused(root, wanted):
    with pytest.raises(MergingError, match="names no file on the server"):
        _open(wanted)


def test_a_folder_that_is_none_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv(server_folder.FOLDER, str(tmp_path / "none"))
    with pytest.raises(MergingError, match="does not name a folder"):
        server_folder.names(server_folder.WEIGHTS)
