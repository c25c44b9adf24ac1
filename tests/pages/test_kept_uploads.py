"""Uploads are hashed and written once, limited for each session and in all, and forgotten."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import pytest
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from merging.results.compute.store import Store
from pages.shared import upload_limits
from pages.shared.kept_uploads import KeptUploads, called
from pages.shared.upload_limits import Limits, forget_left, held_files

LIMITS = Limits(session_files=3, session_bytes=100, whole_bytes=150)


@dataclass
class Upload:
    """An upload that counts how often it is read."""

    file_id: str
    data: bytes
    name: str = "a.pt"
    reads: list[None] = field(default_factory=list)

    def getvalue(self) -> bytes:
        self.reads.append(None)
        return self.data


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def kept(store):
    return KeptUploads(store)


def test_an_upload_is_read_once_however_often_a_page_runs(kept, store):
    file = Upload("1", b"weights")
    digests = {kept.keep(file) for _ in range(5)}
    assert digests == {hashlib.sha256(b"weights").hexdigest()}
    assert len(file.reads) == 1
    assert store.files.path(digests.pop()).read_bytes() == b"weights"


def test_an_upload_for_which_room_was_made_is_written_again(kept, store):
    file = Upload("1", b"weights")
    store.files.drop_upload(kept.keep(file))
    assert store.files.path(kept.keep(file)).read_bytes() == b"weights"


def test_an_upload_is_dropped_when_no_file_of_it_is_left(kept, store):
    same = [kept.keep(Upload(str(k), b"weights")) for k in range(2)]
    other = kept.keep(Upload("2", b"others"))
    kept.forget_all_but(["0", "2"])
    assert store.files.path(same[0]) is not None
    kept.forget_all_but(["2"])
    assert store.files.path(same[0]) is None
    assert not list(store.folder.glob(f"*/{same[0]}*"))
    assert store.files.path(other) is not None


def test_dropping_leaves_what_is_no_upload(store):
    mark = "a" * 64
    store.files.put(mark, b"read", ".safetensors")
    store.files.drop_upload(mark)
    assert store.files.path(mark).read_bytes() == b"read"


def test_a_long_name_keeps_both_ends():
    shown = called(Upload("1", b"", "n" * 1_000_000 + ".safetensors"))
    assert len(shown) <= 120
    assert shown.endswith(".safetensors")


@pytest.mark.parametrize(
    ("file", "size", "held", "words"),
    [
        ("d", 1, {"me": {"a": 1, "b": 1, "c": 1}}, "You have 3 files here, and that is the most"),
        ("a", 1, {"me": {"a": 1, "b": 1, "c": 1}}, ""),
        ("b", 61, {"me": {"a": 40}}, "All your files together may have"),
        ("b", 60, {"me": {"a": 40}}, ""),
        ("a", 60, {"me": {"a": 90}}, ""),
        ("b", 60, {"other": {"a": 91}}, "All readers' files together may have"),
        ("b", 59, {"other": {"a": 91}}, ""),
    ],
)
def test_what_is_beyond_a_limit_is_refused_in_words(file, size, held, words):
    found = LIMITS.refusal("me", file, size, held)
    assert found.startswith(words)
    assert bool(found) == bool(words)


class Runtime:
    """Streamlit's runtime, with its own file manager and no sessions but those named."""

    def __init__(self, *active: str) -> None:
        self.active = set(active)
        self.uploaded_file_mgr = MemoryUploadedFileManager("/upload")

    def is_active_session(self, session: str) -> bool:
        return session in self.active

    def put(self, session: str, file: str, size: int) -> None:
        self.uploaded_file_mgr.add_file(session, UploadedFileRec(file, "x", "y", bytes(size)))


@pytest.fixture
def runtime(monkeypatch):
    made = Runtime("here", "away")
    monkeypatch.setattr(upload_limits, "get_instance", lambda: made)
    return made


def test_streamlit_s_own_manager_says_what_it_holds(runtime):
    runtime.put("here", "a", 3)
    runtime.put("here", "b", 4)
    assert held_files() == {"here": {"a": 3, "b": 4}}


def test_files_are_forgotten_when_nobody_can_come_back_to_them(runtime):
    left: dict[str, float] = {}
    runtime.put("here", "a", 3)
    runtime.put("away", "b", 4)
    runtime.active.remove("away")
    forget_left(left, now=0.0)
    forget_left(left, now=119.0)
    assert "away" in held_files()
    forget_left(left, now=120.0)
    assert held_files() == {"here": {"a": 3}}
    assert left == {}


def test_who_comes_back_in_time_keeps_the_files(runtime):
    left: dict[str, float] = {}
    runtime.put("away", "b", 4)
    runtime.active.remove("away")
    forget_left(left, now=0.0)
    runtime.active.add("away")
    forget_left(left, now=100.0)
    runtime.active.remove("away")
    forget_left(left, now=130.0)
    forget_left(left, now=240.0)
    assert "away" in held_files()
