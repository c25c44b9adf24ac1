import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from merging.results.compute import blobs, job_index
from merging.results.compute import store as compute_store
from merging.results.compute.entry import Entry, encode, read_entry, write_pack
from merging.results.compute.store import Store, open_default
from merging.schema.errors import StoreError

ROOT = Path(__file__).resolve().parents[3]


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    yield made
    made.close()


def put(store: Store, name: str, value: float = 1.0, size: int = 4, **options) -> str:
    store.put(key(name), {"x": np.full(size, value)}, {"name": name}, **options)
    return key(name)


# Results


def test_returns_what_was_put(store):
    arrays = {
        "file": np.arange(6, dtype=np.float32).reshape(2, 3),
        "perm/0": np.array([2, 0, 1]),
        "flags": np.array([True, False]),
        "scalar": np.float64(3.5),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    store.put(key("a"), arrays, {"loss": 0.5, "names": ["é", None], "deep": {"k": 1}})
    found = store.get(key("a"))
    assert found.meta == {"loss": 0.5, "names": ["é", None], "deep": {"k": 1}}
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


def test_the_last_of_two_results_under_one_key_wins(store):
    put(store, "a", 1.0)
    put(store, "a", 2.0)
    assert store.get(key("a")).arrays["x"][0] == 2.0


def test_knows_nothing_of_a_key_that_was_never_put(store):
    assert store.get(key("a")) is None
    assert store.files.path(key("a")) is None
    assert store.jobs.record(key("a")) is None
    assert store.get_partial(key("a")) is None


def test_says_in_one_go_which_of_many_keys_are_there(store):
    there = {put(store, f"r{i}") for i in range(5)}
    wanted = [*there, *(key(f"absent{i}") for i in range(2000))]
    assert store.has(wanted) == there
    assert store.has(iter(wanted)) == there
    assert store.has([]) == set()


def test_another_store_on_the_folder_finds_the_result(store):
    put(store, "a")
    other = Store(store.folder)
    assert other.get(key("a")).meta == {"name": "a"}
    other.close()


def test_refuses_arrays_of_objects(store):
    with pytest.raises(ValueError, match="Object arrays"):
        store.put(key("a"), {"x": np.array([{}])}, {})
    assert store.get(key("a")) is None


@pytest.mark.parametrize("bad", ["", "abc", "../../etc/passwd", "A" * 64, key("a") + "\n"])
def test_refuses_what_is_no_key(store, bad):
    for call in (store.get, store.files.path, store.get_partial):
        with pytest.raises(StoreError, match="expected 64 hexadecimal digits"):
            call(bad)
    with pytest.raises(StoreError, match="expected 64 hexadecimal digits"):
        store.put(bad, {}, {})
    with pytest.raises(StoreError, match="expected 64 hexadecimal digits"):
        store.files.put(bad, b"", ".npz")


def test_a_damaged_result_goes_to_quarantine_and_counts_as_missing(store):
    put(store, "a")
    path = store.folder / key("a")[:2] / f"{key('a')}.npz"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert store.get(key("a")) is None
    assert store.has([key("a")]) == set()
    assert (store.folder / "quarantine" / path.name).read_bytes() == bytes(data)
    put(store, "a")
    assert store.get(key("a")) is not None


def test_a_result_whose_file_was_deleted_counts_as_missing(store):
    put(store, "a")
    (store.folder / key("a")[:2] / f"{key('a')}.npz").unlink()
    assert store.get(key("a")) is None
    assert store.has([key("a")]) == set()


def test_only_the_owner_may_look_into_the_folder(store):
    assert store.folder.stat().st_mode & 0o777 == 0o700


# Bundled results


def test_bundled_results_are_found_and_never_written(store, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    entry = encode({"x": np.arange(3)}, {"from": "bundle"})
    (bundle / f"{key('b')}.npz").write_bytes(entry)
    before = {path: path.stat().st_mtime_ns for path in bundle.iterdir()}
    with_bundle = Store(store.folder, limit_bytes=1, bundled=[bundle])
    put(with_bundle, "other")
    assert with_bundle.has([key("b"), key("c")]) == {key("b")}
    assert with_bundle.get(key("b")).meta == {"from": "bundle"}
    assert {path: path.stat().st_mtime_ns for path in bundle.iterdir()} == before
    with_bundle.close()


def test_packed_results_are_found_like_single_ones(store, tmp_path):
    entries = {key(name): Entry({"x": np.full(2, k)}, {"n": k}) for k, name in enumerate("pq")}
    write_pack(tmp_path / "pair.zip", entries)
    with_bundle = Store(store.folder, bundled=[tmp_path])
    assert with_bundle.has([key("p"), key("q"), key("r")]) == {key("p"), key("q")}
    found = with_bundle.get(key("q"))
    assert found.meta == {"n": 1}
    np.testing.assert_array_equal(found.arrays["x"], [1, 1])


def test_a_pack_depends_on_its_results_only(tmp_path):
    entries = {key("p"): Entry({"x": np.arange(3)}, {"n": 1})}
    write_pack(tmp_path / "one.zip", entries)
    write_pack(tmp_path / "two.zip", entries)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_damaged_bundled_result_counts_as_missing(store, tmp_path):
    (tmp_path / f"{key('b')}.npz").write_bytes(b"not a result")
    with_bundle = Store(store.folder, bundled=[tmp_path])
    assert with_bundle.get(key("b")) is None
    assert with_bundle.has([key("b")]) == set()
    with_bundle.close()


def test_reading_says_what_is_no_result_file(tmp_path):
    with pytest.raises(StoreError, match=r"cannot read .*absent.npz: No such file"):
        read_entry(tmp_path / "absent.npz")
    np.savez(tmp_path / "alien.npz", x=np.arange(3))
    with pytest.raises(StoreError, match=r"alien.npz is no result file"):
        read_entry(tmp_path / "alien.npz")
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04N.")
    with pytest.raises(StoreError, match=r"pickle.npz is no result file"):
        read_entry(tmp_path / "pickle.npz")


# Partial results and files


def test_a_partial_result_is_replaced_and_goes_when_the_whole_one_comes(store):
    for i in range(3):
        store.put_partial(key("a"), {"x": np.arange(i)}, {"i": i})
    assert store.get_partial(key("a")).meta == {"i": 2}
    assert store.has([key("a")]) == set()
    put(store, "a")
    assert store.get_partial(key("a")) is None


def test_a_damaged_partial_result_counts_as_none(store):
    store.put_partial(key("a"), {"x": np.arange(3)}, {})
    (store.folder / key("a")[:2] / f"{key('a')}.partial.npz").write_bytes(b"PK")
    assert store.get_partial(key("a")) is None


def test_keeps_what_a_piece_may_go_on_from_until_it_is_done(store):
    assert store.get_state(key("a")) is None
    for i in range(3):
        store.put_state(key("a"), {"x": np.arange(i)})
    np.testing.assert_array_equal(store.get_state(key("a"))["x"], [0, 1])
    assert store.get(key("a")) is None
    put(store, "a")
    assert store.get_state(key("a")) is None


def test_keeps_files_from_bytes_and_from_other_files(store, tmp_path):
    (tmp_path / "weights").write_bytes(b"from a file")
    store.files.put(key("a"), b"from memory", ".safetensors")
    store.files.put(key("b"), tmp_path / "weights", ".npz")
    assert store.files.path(key("a")).read_bytes() == b"from memory"
    assert store.files.path(key("a")).suffix == ".safetensors"
    assert store.files.path(key("b")).read_bytes() == b"from a file"
    assert store.has([key("a"), key("b")]) == set(), "files are no results"


def test_a_file_and_a_result_may_share_a_key(store):
    store.files.put(key("a"), b"file", ".npz")
    put(store, "a")
    assert store.files.path(key("a")).read_bytes() == b"file"
    assert store.get(key("a")).meta == {"name": "a"}


def test_a_file_that_was_cut_short_counts_as_missing(store):
    store.files.put(key("a"), b"0123456789", ".npz").write_bytes(b"012")
    assert store.files.path(key("a")) is None


def test_refuses_other_kinds_of_files(store):
    with pytest.raises(StoreError, match=r"'.pt' are not kept; expected .safetensors, .npz"):
        store.files.put(key("a"), b"", ".pt")


# Jobs and progress


def test_a_job_record_keeps_what_is_not_written_again(store):
    store.jobs.write(key("j"), title="Align", state="queued", owner="ada", submitted=5.0)
    store.jobs.write(key("j"), state="running", done=2, total=7)
    record = store.jobs.record(key("j"))
    assert (record.title, record.state, record.done, record.total) == ("Align", "running", 2, 7)
    assert (record.owner, record.submitted, record.error, record.started) == (
        "ada",
        5.0,
        None,
        None,
    )


def test_only_the_process_that_answers_for_a_job_updates_it(store):
    store.jobs.write(key("j"), process="one")
    store.jobs.update(key("j"), "two", state="failed")
    assert store.jobs.record(key("j")).state == "queued"
    store.jobs.update(key("j"), "one", state="failed", error="why")
    assert store.jobs.record(key("j")).error == "why"


def test_lists_jobs_by_state_newest_first(store):
    for i, state in enumerate(["done", "running", "queued", "running"]):
        store.jobs.write(key(f"j{i}"), state=state, submitted=float(i))
    assert [job.key for job in store.jobs.records("running")] == [key("j3"), key("j1")]
    assert len(store.jobs.records()) == 4


def test_begins_only_what_is_queued(store):
    for state in ("queued", "stopped"):
        store.jobs.write(key(state), state=state)
        store.jobs.begin(key(state), key("piece"), "host/1/0", 2.5)
    assert store.jobs.record(key("queued")).state == "running"
    assert store.jobs.record(key("stopped")).state == "stopped"


def test_reports_progress_and_hears_of_a_stop(store):
    assert store.jobs.report(key("p"), 1, 4, "sweep 1") is False
    store.jobs.request_stop([key("p")])
    assert store.jobs.stop_requested(key("p"))
    assert store.jobs.report(key("p"), 2, 4, "sweep 2") is True
    assert store.jobs.progress([key("p"), key("q")]) == {
        key("p"): job_index.PieceProgress(2, 4, "sweep 2")
    }
    store.jobs.clear_progress([key("p")])
    assert store.jobs.report(key("p"), 3, 4) is False
    put(store, "p")
    assert store.jobs.progress([key("p")]) == {}


def test_knows_which_process_runs_a_piece_until_it_is_set_aside(store):
    store.jobs.begin(key("j"), key("p"), "host/1/0", 2.5)
    found = store.jobs.progress([key("p")])[key("p")]
    assert (found.worker, found.used) == ("host/1/0", 2.5)
    store.jobs.report(key("p"), 1, 2)
    assert store.jobs.progress([key("p")])[key("p")].worker == "host/1/0"
    store.jobs.set_aside([key("p")])
    assert store.jobs.progress([key("p")]) == {}
    store.jobs.begin(key("j"), key("p"), "host/2/0", 0.0)
    assert store.jobs.report(key("p"), 0, 1) is True, "not before it is sent anew"


# Room


def test_makes_room_by_what_was_used_longest_ago(tmp_path, monkeypatch):
    monkeypatch.setattr(blobs, "_TOUCH_SECONDS", 0.0)
    noise = np.random.default_rng(0).random(1000)  # does not compress: about 9 kB a piece
    store = Store(tmp_path / "store", limit_bytes=40_000)
    for name in "abcd":
        store.put(key(name), {"x": noise}, {}, pinned=name == "a")
    store.get(key("b"))
    store.put(key("e"), {"x": noise}, {})
    assert store.has(map(key, "abcde")) == set(map(key, "abde")), "c was used longest ago"
    assert store.get(key("c")) is None
    left = store.folder.glob("??/*.npz")
    assert sum(path.stat().st_size for path in left) <= 40_000
    store.close()


def test_what_was_just_put_stays_however_large(tmp_path):
    store = Store(tmp_path / "store", limit_bytes=10)
    put(store, "a")
    put(store, "b")
    assert store.has([key("a"), key("b")]) == {key("b")}
    store.close()


def test_a_state_counts_and_makes_room(tmp_path):
    noise = np.random.default_rng(0).random(1000)
    store = Store(tmp_path / "store", limit_bytes=20_000)
    store.put_state(key("a"), {"x": noise})
    for name in "bc":
        store.put(key(name), {"x": noise}, {})
    assert store.get_state(key("a")) is None, "nothing is older"
    assert store.has(map(key, "bc")) == set(map(key, "bc"))
    store.put_state(key("d"), {"x": noise})
    store.put(key("d"), {}, {})
    assert store.has(map(key, "bcd")) == set(map(key, "cd")), "a finished piece has no state"
    assert not list(store.folder.glob("??/*.state.npz"))
    store.put(key("e"), {}, {})
    assert store.has(map(key, "cde")) == set(map(key, "cde")), "and none is counted"
    store.close()


def test_sweeps_states_that_nobody_came_back_for(store):
    store.put_state(key("old"), {})
    store.put_state(key("new"), {})
    day = 25 * 3600
    with sqlite3.connect(store.folder / "index.sqlite") as db:
        db.execute("update blobs set used = used - ? where key = ?", [day, key("old")])
    db.close()
    path = store.folder / key("old")[:2] / f"{key('old')}.state.npz"
    os.utime(path, (time.time() - day,) * 2)
    Store(store.folder).close()
    assert not path.exists()
    assert store.get_state(key("new")) == {}


def test_sweeps_what_killed_processes_left(store):
    put(store, "a")
    folder = store.folder / key("a")[:2]
    names = ["x.tmp", f"{key('a')[:2]}{'0' * 62}.npz", f"{'0' * 64}.partial.npz"]
    for name in names:
        (folder / name).write_bytes(b"")
        (folder / f"new{name}").write_bytes(b"")
        old = time.time() - 25 * 3600
        os.utime(folder / name, (old, old))
    os.utime(folder / f"{key('a')}.npz", (old, old))
    Store(store.folder).close()
    left = {path.name for path in folder.iterdir()}
    assert left == {f"{key('a')}.npz", *(f"new{name}" for name in names)}


# Several at once

WRITER = """
import hashlib, sys
from pathlib import Path
import numpy as np
from merging.results.compute.store import Store
store = Store(Path(sys.argv[1]))
rng = np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
for i in range(int(sys.argv[3])):
    name = hashlib.sha256(str(rng.integers(40)).encode()).hexdigest()
    store.put(name, {"x": rng.random(500)}, {"writer": sys.argv[2]})
    found = store.get(name)
    assert found is not None and found.arrays["x"].shape == (500,)
"""


def test_several_processes_may_write_while_one_is_killed(tmp_path):
    folder = tmp_path / "store"
    command = [sys.executable, "-c", WRITER, str(folder)]
    writers = [
        subprocess.Popen([*command, str(i), "100000" if i == 0 else "150"], cwd=ROOT, stdout=-1)
        for i in range(4)
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    os.kill(writers[0].pid, signal.SIGKILL)
    codes = [writer.wait(timeout=60) for writer in writers]
    for writer in writers:
        writer.stdout.close()
    assert codes == [-signal.SIGKILL, 0, 0, 0]
    store = Store(folder)
    there = store.has(hashlib.sha256(str(i).encode()).hexdigest() for i in range(40))
    missing = [name for name in there if store.get(name) is None]
    assert len(there) == 40
    assert len(missing) <= 1, "at most what the killed one was replacing"
    with sqlite3.connect(folder / "index.sqlite") as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()
    store.close()


def test_many_threads_may_share_a_store(store):
    failures = []

    def work(number: int) -> None:
        try:
            for i in range(30):
                name = put(store, f"{i % 7}", number)
                assert store.get(name) is not None
                store.jobs.report(key(f"p{number}"), i, 30)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# When the disk or the index refuses


def test_says_that_the_disk_is_full(store, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot keep .*the disk is full; free some space"):
        put(store, "a")
    assert list(store.folder.glob("??/*")) == [], "nothing is left behind"


def test_says_that_the_index_has_no_room(store, monkeypatch):
    class Full(sqlite3.Connection):
        def execute(self, query, *rest):
            if query.startswith("insert"):
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(query, *rest)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, **k, factory=Full))
    store.close()
    with pytest.raises(StoreError, match=r"the disk is full; free some space there, or set ONE_"):
        put(store, "a")
    monkeypatch.undo()
    assert store.get(key("a")) is None
    put(store, "a")
    assert store.get(key("a")) is not None


def test_says_that_a_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot open the result store in .*set ONE_BASIN_STORE"):
        Store(tmp_path / "file" / "store")


def test_says_that_a_folder_may_not_be_written(tmp_path, monkeypatch):
    def refused(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(compute_store.tempfile, "TemporaryFile", refused)
    with pytest.raises(
        StoreError, match=r"it may not be written; allow writing there, or set ONE_"
    ):
        Store(tmp_path / "store")


def test_says_that_the_index_is_damaged(store):
    put(store, "a")
    store.close()
    for path in store.folder.glob("index.sqlite*"):
        path.write_bytes(b"this was an index once" * 400)
    for call in (store.get, store.jobs.record, store.files.path):
        with pytest.raises(StoreError, match=r"delete index.sqlite there, and it is made again"):
            call(key("a"))
    with pytest.raises(StoreError, match=r"its index is damaged"):
        Store(store.folder)


def test_refuses_an_index_of_a_newer_version(store):
    store.close()
    with sqlite3.connect(store.folder / "index.sqlite") as db:
        db.execute("pragma user_version = 99")
    db.close()
    with pytest.raises(StoreError, match=r"written by a newer version; update, or set"):
        Store(store.folder)


# Without the index


def lose_index(store, *endings):
    for ending in endings:
        (store.folder / f"index.sqlite{ending}").unlink(missing_ok=True)


def test_finds_results_and_files_of_an_index_that_was_deleted(store):
    put(store, "a", 3.0)
    store.put_partial(key("b"), {}, {})
    for suffix in (".upload", ".safetensors"):
        store.files.put(key(suffix), b"bytes", suffix)
    (store.folder / "ab" / "stranger.npz").parent.mkdir(exist_ok=True)
    (store.folder / "ab" / "stranger.npz").write_bytes(b"?")
    store.close()
    lose_index(store, "", "-wal", "-shm")
    for path in store.folder.glob("??/*"):
        os.utime(path, (time.time() - 7200,) * 2)  # old enough to be swept, were it nobody's
    again = Store(store.folder)
    np.testing.assert_array_equal(again.get(key("a")).arrays["x"], np.full(4, 3.0))
    assert again.has([key("a"), key("b")]) == {key("a")}
    for suffix in (".upload", ".safetensors"):
        assert again.files.path(key(suffix)).read_bytes() == b"bytes"
    assert not (store.folder / "ab" / "stranger.npz").exists()
    again.close()


@pytest.mark.parametrize("endings", [("",), ("", "-wal", "-shm")], ids=["alone", "all"])
def test_goes_on_when_the_index_is_deleted_while_it_is_used(store, endings):
    other = Store(store.folder)
    put(store, "a")
    put(other, "b")
    lose_index(store, *endings)
    put(other, "c")
    assert store.has(map(key, "abc")) == set(map(key, "abc"))
    store.jobs.write(key("j"), state="queued")
    assert other.jobs.record(key("j")).state == "queued"
    assert store.get(key("b")).meta == {"name": "b"}
    other.close()


def test_many_find_the_index_missing_and_one_makes_it(store):
    names = [f"{i}" for i in range(8)]
    for name in names:
        put(store, name)
    others = [Store(store.folder) for _ in names]
    lose_index(store, "", "-wal", "-shm")
    threads = [
        threading.Thread(target=put, args=(other, f"new {name}"))
        for other, name in zip(others, names, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = {key(name) for old in names for name in (old, f"new {old}")}
    assert store.has(wanted) == wanted
    for other in others:
        other.close()


def test_a_result_that_was_damaged_before_the_index_was_made_counts_as_missing(store):
    path = store.folder / key("a")[:2] / f"{key('a')}.npz"
    put(store, "a")
    store.close()
    path.write_bytes(path.read_bytes()[:-30])
    lose_index(store, "", "-wal", "-shm")
    assert store.get(key("a")) is None
    assert store.has([key("a")]) == set()
    assert (store.folder / "quarantine" / path.name).exists()


# The default place


def test_opens_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("ONE_BASIN_STORE", str(tmp_path / "here"))
    store, notice = open_default()
    assert store.folder == tmp_path / "here"
    assert notice is None
    store.close()


def test_opens_in_the_cache_folder_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("ONE_BASIN_STORE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store, _ = open_default()
    assert store.folder == tmp_path / "one-basin"
    store.close()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    store, _ = open_default()
    assert store.folder == tmp_path / "home" / ".cache" / "one-basin"
    store.close()


def test_says_so_when_results_cannot_stay(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ONE_BASIN_STORE", str(tmp_path / "file" / "store"))
    (tmp_path / f"{key('b')}.npz").write_bytes(encode({}, {}))
    store, notice = open_default(bundled=[tmp_path])
    assert notice.startswith("Results are kept only until the app ends: cannot open")
    put(store, "a")
    assert store.has([key("a"), key("b")]) == {key("a"), key("b")}
    store.close()
