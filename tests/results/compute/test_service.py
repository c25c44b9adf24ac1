import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from merging.results.compute import cluster as compute_cluster
from merging.results.compute import conductor, turns
from merging.results.compute.processes import Limits, find_process
from merging.results.compute.service import ACTIVE, Context, Job, Piece, Service
from merging.results.compute.store import Store
from merging.schema.errors import ComputeError, StoppedError, StoreError

ROOT = Path(__file__).resolve().parents[3]

RUNNERS = '''
import json, os, time
from pathlib import Path
import numpy as np
from merging.schema.errors import DataError

def work(payload, context):
    """Count this run in a file, then take some steps."""
    asked = json.loads(payload)
    with Path(asked["ran"]).open("a") as file:
        file.write(asked["name"] + "\\n")
    for i in range(asked["steps"]):
        time.sleep(asked["sleep"])
        context.partial({"x": np.arange(i + 1)}, {"steps": i + 1})
        context.report(i + 1, asked["steps"], f"step {i + 1}")
    return {"x": np.arange(asked["steps"])}, {"name": asked["name"], "nice": os.nice(0)}

def refuse(payload, context):
    raise DataError("the data set has 3 classes, but the model has 10")

def stumble(payload, context):
    return {}["absent"]

def trip(payload, context):
    raise ValueError(f"cannot read {payload}")

def die(payload, context):
    os._exit(3)

def spin(payload, context):
    with Path(payload).open("a") as file:
        file.write("spin\\n")
    while True:
        pass

def grow(payload, context):
    found = [0]
    while True:
        found = found + found

def read(payload, context):
    return context.store.get(payload).arrays, {}
'''


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture(scope="module", autouse=True)
def runners(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runners")
    (folder / "basin_runners.py").write_text(RUNNERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{folder}")
        patch.setenv("ONE_BASIN_WORKERS", "2")
        patch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    made = Service(store)
    yield made
    made.close()
    store.close()


@pytest.fixture
def fresh(tmp_path):
    """A service with a compute process of its own, to be mistreated."""
    store = Store(tmp_path / "store")
    made = Service(store)
    yield made
    made.close()
    store.close()


@pytest.fixture
def working(tmp_path, request):
    """Makes jobs of `work`, and counts how often each piece ran."""

    def make(name="job", pieces=1, steps=3, sleep=0.02, needs=()):
        ask = {"ran": str(tmp_path / "ran"), "steps": steps, "sleep": sleep}
        names = [f"{request.node.name}/{name}/{i}" for i in range(pieces)]
        made = [Piece(key(n), json.dumps({**ask, "name": n})) for n in names]
        job_key = key(f"{request.node.name}/{name}")
        return Job(job_key, name, tuple(made), "basin_runners:work", tuple(needs))

    make.ran = lambda: (tmp_path / "ran").read_text().splitlines()
    return make


def one_piece(name: str, function: str, payload: str = "", needs=(), limits=None) -> Job:
    pieces = (Piece(key(f"{name}/piece"), payload),)
    return Job(key(name), name, pieces, f"basin_runners:{function}", needs, limits)


def wait(service, job, until=lambda status: status.state not in ACTIVE, seconds=30, owner=""):
    deadline = time.monotonic() + seconds
    while not until(status := service.status(job, owner)):
        assert time.monotonic() < deadline, status
        time.sleep(0.01)
    return status


def compute_process() -> psutil.Process:
    children = psutil.Process().children()
    return next(child for child in children if "merging.results.compute.service" in child.cmdline())


# The usual way


def test_runs_a_job_and_keeps_every_result(service, working):
    job = working(pieces=3)
    assert service.status(job).state == "missing"
    service.submit(job, owner="ada")
    assert wait(service, job).state == "done"
    for piece in job.pieces:
        found = service.store.get(piece.key)
        np.testing.assert_array_equal(found.arrays["x"], [0, 1, 2])
        assert found.meta["name"] == json.loads(piece.payload)["name"]
        assert found.meta["nice"] == os.nice(0) + 5
        assert service.store.get_partial(piece.key) is None
    record = wait_record(service, job, "done")
    assert (record.owner, record.title, record.done, record.total) == ("ada", "job", 3, 3)


def wait_record(service, job, state):
    """The record follows the last result by a moment."""
    deadline = time.monotonic() + 10
    while (record := service.store.jobs.record(job.key)).state != state:
        assert time.monotonic() < deadline, record
        time.sleep(0.01)
    return record


def test_submitting_and_asking_how_it_stands_return_at_once(service, working):
    job = working(pieces=200, steps=1, sleep=0.0)
    began = time.perf_counter()
    service.submit(job)
    submitted = time.perf_counter() - began
    assert submitted < 0.1
    wait(service, job)
    began = time.perf_counter()
    for _ in range(20):
        service.status(job)
    assert (time.perf_counter() - began) / 20 < 0.02


def test_progress_and_partial_results_show_while_a_job_runs(service, working):
    job = working(steps=15, sleep=0.1)
    service.submit(job)
    seen = [wait(service, job, lambda s: s.done > 0.1), wait(service, job, lambda s: s.done > 0.5)]
    partial = service.store.get_partial(job.pieces[0].key)
    assert partial.meta["steps"] == len(partial.arrays["x"]) >= 2
    for status in seen:
        assert status.state == "running"
        assert status.note.startswith("step ")
        assert 0 < status.done < status.total == 1
        assert 0 < status.eta < 10
    assert seen[0].seconds < seen[1].seconds
    assert wait(service, job).done == 1


def test_earlier_pieces_run_first(service, working):
    job = working(pieces=12, steps=1, sleep=0.05)
    service.submit(job)
    wait(service, job)
    ran = [int(name.rsplit("/", 1)[1]) for name in working.ran()]
    assert sorted(ran) == list(range(12))
    assert all(abs(place - number) <= 3 for place, number in enumerate(ran)), ran


def test_what_is_in_the_store_is_not_run_again(service, working):
    job = working(pieces=3)
    service.store.put(job.pieces[1].key, {}, {})
    service.submit(job)
    wait(service, job)
    service.submit(job)
    assert service.status(job).state == "done"
    time.sleep(0.2)
    assert sorted(name[-1] for name in working.ran()) == ["0", "2"]


def test_who_asks_for_the_same_shares_one_computation(service, working):
    job = working(pieces=4, sleep=0.1)
    other = Job(key(job.key), "the same pieces, backwards", job.pieces[::-1], job.runner)
    for _ in range(3):
        service.submit(job)
        service.submit(other)
    assert wait(service, job).state == "done"
    assert wait(service, other).state == "done"
    assert len(working.ran()) == 4


def test_a_job_without_pieces_is_done(service):
    job = Job(key("nothing"), "nothing", (), "basin_runners:work")
    service.submit(job)
    assert service.status(job).state == "done"


# Jobs that need others


def test_what_a_job_needs_comes_first(service, working):
    need = working("need", pieces=2, sleep=0.1)
    job = one_piece("reads", "read", need.pieces[1].key, needs=(need,))
    service.submit(job)
    waiting = wait(service, job, lambda status: status.note)
    assert waiting.note.startswith("First: need")
    assert wait(service, job).state == "done"
    assert service.status(need).state == "done"
    np.testing.assert_array_equal(service.store.get(job.pieces[0].key).arrays["x"], [0, 1, 2])


def test_a_job_fails_with_the_message_of_what_it_needs(service, working):
    need = one_piece("refused need", "refuse")
    job = working(needs=[working("between", needs=[need])])
    service.submit(job)
    status = wait(service, job)
    assert status.state == "failed"
    assert status.error == "the data set has 3 classes, but the model has 10"


def test_stopping_a_job_stops_what_only_it_needs(service, working):
    need = working("need", steps=50, sleep=0.1)
    job = working(needs=[need])
    service.submit(job)
    wait(service, need, lambda status: status.state == "running")
    service.stop(job)
    assert wait(service, job, seconds=2).state == "stopped"
    assert wait(service, need, seconds=2).state == "stopped"


def test_stopping_a_job_leaves_what_others_need(service, working):
    need = working("need", steps=8, sleep=0.1)
    one, two = working("one", needs=[need]), working("two", needs=[need])
    service.submit(one, "ada")
    service.submit(two, "bob")
    wait(service, need, lambda status: status.state == "running", owner="ada")
    service.stop(one, "ada")
    assert wait(service, one, seconds=2, owner="ada").state == "stopped"
    service.stop(need, "ada")
    says = "goes on, because somebody else is waiting for it"
    while service.status(need, "ada").note != says:
        assert service.status(need, "bob").note != says
        time.sleep(0.01)
    assert wait(service, two, owner="bob").state == "done"


def test_stopping_a_job_stops_what_of_the_same_person_needs_it(service, working):
    need = working("need", steps=50, sleep=0.1)
    job = working("curve", needs=[need])
    service.submit(need, "ada")
    service.submit(job, "ada")
    wait(service, need, lambda status: status.state == "running", owner="ada")
    service.stop(need, "ada")
    assert wait(service, need, seconds=2, owner="ada").state == "stopped"
    assert wait(service, job, seconds=2, owner="ada").state == "stopped"


# Stopping and resuming


def test_a_stopped_job_keeps_what_it_found_and_goes_on_from_there(service, working):
    job = working(pieces=20, steps=3, sleep=0.05)
    service.submit(job)
    wait(service, job, lambda status: status.done >= 3)
    began = time.monotonic()
    service.stop(job)
    stopped = wait(service, job)
    assert time.monotonic() - began < 1
    assert stopped.state == "stopped"
    assert stopped.error is None
    time.sleep(0.6)
    found = service.store.has(piece.key for piece in job.pieces)
    assert 3 <= len(found) < 15
    before = len(working.ran())
    service.submit(job)
    assert wait(service, job).state == "done"
    assert len(working.ran()) - before <= 20 - len(found)


def test_a_running_piece_stops_at_its_next_report(service, working):
    job = working(steps=1000, sleep=0.05)
    service.submit(job)
    wait(service, job, lambda status: status.done > 0)
    service.stop(job)
    wait(service, job)
    deadline = time.monotonic() + 3
    while service.store.jobs.progress([job.pieces[0].key]):
        assert time.monotonic() < deadline, "it still reports"
        time.sleep(0.02)
    assert service.store.get_partial(job.pieces[0].key).meta["steps"] > 0


def test_stopping_and_resuming_at_once_is_no_race(service, working):
    job = working(pieces=6, steps=6, sleep=0.05)
    service.submit(job)
    wait(service, job, lambda status: status.done > 0)
    for _ in range(5):
        service.stop(job)
        service.submit(job)
    deadline = time.monotonic() + 20
    while (status := service.status(job)).state != "done":  # it may look stopped for a moment
        assert status.state in ("stopped", *ACTIVE), status
        assert time.monotonic() < deadline, status
        time.sleep(0.02)


def test_a_piece_that_does_not_listen_is_ended_and_others_go_on(service, working, tmp_path):
    deaf, job = one_piece("deaf", "spin", str(tmp_path / "spun")), working(steps=40, sleep=0.1)
    service.submit(deaf, "eve")
    service.submit(job, "ada")
    wait(service, deaf, lambda s: s.state == "running", owner="eve")
    wait(service, job, lambda s: s.done > 0, owner="ada")
    progress = service.store.jobs.progress([deaf.pieces[0].key])[deaf.pieces[0].key]
    process = find_process(progress.worker)
    began = time.monotonic()
    service.stop(deaf, "eve")
    seen = wait(service, deaf, lambda s: s.note == "stopping" or s.state == "stopped", owner="eve")
    assert (seen.state, seen.note) == ("running", "stopping"), "it is said once it is so"
    assert wait(service, deaf, owner="eve").state == "stopped"
    assert time.monotonic() - began < 2
    deadline = time.monotonic() + 2  # the system takes its time to clear up after a killed process
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert wait(service, job, owner="ada").state == "done"
    assert len(working.ran()) == 1
    assert (tmp_path / "spun").read_text() == "spin\n", "it is not tried again"
    service.submit(deaf, "eve")
    wait(service, deaf, lambda s: s.state == "running", owner="eve")
    service.stop(deaf, "eve")
    assert wait(service, deaf, owner="eve").state == "stopped"


def test_a_worker_comes_back_however_long_that_takes(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "1ms")  # no start is faster
    deaf = one_piece("comes back", "spin", str(tmp_path / "spun"))
    fresh.submit(deaf)
    while not (tmp_path / "spun").exists():
        time.sleep(0.05)
    fresh.stop(deaf)
    wait(fresh, deaf)
    deadline = time.monotonic() + 30
    while len(fresh._conductor._flights._known) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_stopping_what_does_not_run_changes_nothing(service, working):
    job = working()
    service.stop(job)
    time.sleep(0.1)
    assert service.status(job).state == "missing"


# Failures


def test_an_error_of_merging_is_shown_as_it_stands_and_may_be_tried_again(service):
    job = one_piece("refused", "refuse")
    for _ in range(2):
        service.submit(job)
        status = wait(service, job)
        assert status.state == "failed"
        assert status.error == "the data set has 3 classes, but the model has 10"


def test_any_other_error_becomes_a_sentence(service):
    job = one_piece("stumbles", "stumble")
    service.submit(job)
    assert wait(service, job).error == "this ended with an unexpected KeyError: 'absent'"
    assert "Traceback" in (service.store.folder / "compute.log").read_text()


def test_names_of_files_are_legible_in_the_log(service):
    job = one_piece("trips", "trip", "a\u202etp.\x1b[2Jb")
    service.submit(job)
    assert wait(service, job).state == "failed"
    logged = (service.store.folder / "compute.log").read_text()
    assert "ValueError: cannot read a\\u202etp.\\x1b[2Jb" in logged
    assert "\u202e" not in logged
    assert "\x1b" not in logged


def test_a_runner_that_is_not_there_becomes_a_sentence(service):
    job = Job(key("lost"), "lost", (Piece(key("lost piece"), ""),), "basin_absent:run")
    service.submit(job)
    assert "No module named 'basin_absent'" in wait(service, job).error


def test_a_piece_that_ends_its_worker_fails_its_job_only(service, working):
    deadly, job = one_piece("deadly", "die"), working(pieces=3)
    service.submit(deadly)
    status = wait(service, deadly)
    assert status.state == "failed"
    assert "the process that worked on this ended twice" in status.error
    service.submit(job)
    assert wait(service, job).state == "done"


def test_a_piece_that_takes_too_much_fails_in_words(service, tmp_path):
    late = one_piece("late", "spin", str(tmp_path / "spun"), limits=Limits(0.5, 1 << 30))
    large = one_piece("large", "grow", limits=Limits(60, 1 << 28))
    service.submit(late)
    service.submit(large)
    status = wait(service, large)
    assert status.state == "failed"
    assert "needed more than 0.2 GB of memory" in status.error
    status = wait(service, late)
    assert status.state == "failed"
    assert "took more than 0 s of processor time" in status.error
    assert (tmp_path / "spun").read_text() == "spin\n", "it is not tried again"


def test_files_that_never_end_do_not_hold_the_service(service, working, tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "_SHORT_SECONDS", 1.0)
    endless = [one_piece(f"endless {k}", "spin", str(tmp_path / "spun")) for k in range(3)]
    for k, job in enumerate(endless):
        service.submit(job, f"eve {k}")
        wait(service, job, lambda s: s.state == "running", owner=f"eve {k}")
    job = working()
    began = time.monotonic()
    service.submit(job, "ada")
    assert wait(service, job, owner="ada").state == "done"
    assert time.monotonic() - began < 25  # 4 on a machine that does nothing else
    for k, job in enumerate(endless):
        assert service.status(job, f"eve {k}").state == "running"
        service.stop(job, f"eve {k}")
    for k, job in enumerate(endless):
        assert wait(service, job, owner=f"eve {k}").state == "stopped"


def test_what_nobody_looks_at_any_more_is_dropped_in_words(service, working, monkeypatch):
    job = working(steps=200, sleep=0.05)
    service.submit(job)
    wait(service, job, lambda status: status.done > 0)
    monkeypatch.setattr(conductor, "_DROPPED_SECONDS", 0.5)
    time.sleep(1.5)
    status = wait(service, job)
    assert status.state == "stopped"
    assert "nobody has looked at this for an hour" in status.error


def test_goes_on_when_the_index_is_deleted_meanwhile(fresh, working):
    job, later = working("job", pieces=10, steps=2, sleep=0.05), working("later")
    fresh.submit(job)
    wait(fresh, job, lambda status: status.done >= 2)
    for path in fresh.store.folder.glob("index.sqlite*"):
        path.unlink()
    fresh.submit(job)
    assert wait(fresh, job).state == "done"
    fresh.submit(later)
    assert wait(fresh, later).state == "done"


# Death and resurrection


def test_finished_pieces_outlive_the_compute_process(fresh, working):
    job = working(pieces=20, steps=2, sleep=0.05)
    fresh.submit(job)
    wait(fresh, job, lambda status: status.done >= 5)
    process = compute_process()
    workers = process.children(recursive=True)
    process.kill()
    found = fresh.store.has(piece.key for piece in job.pieces)
    before = working.ran()
    assert wait(fresh, job).state == "done"
    again = working.ran()[len(before) :]
    known = {json.loads(piece.payload)["name"] for piece in job.pieces if piece.key in found}
    assert len(known) >= 5
    assert not known & set(again), "what was finished is not computed again"
    assert psutil.wait_procs(workers, timeout=5)[1] == []

    job = working("second", pieces=200, steps=20, sleep=0.05)
    fresh.submit(job)
    wait(fresh, job, lambda status: status.state == "running")
    compute_process().kill()
    wait(fresh, job, lambda status: status.state == "queued" or status.done > 0)
    deadline = time.monotonic() + 10
    while not any(
        "merging.results.compute.service" in child.cmdline()
        for child in psutil.Process().children()
    ):
        assert time.monotonic() < deadline
    compute_process().kill()
    status = wait(fresh, job)
    assert status.state == "interrupted"
    assert "the compute process ended twice" in status.error


PARENT = """
import sys, time
from pathlib import Path
from merging.results.compute.service import Job, Piece, service
from merging.results.compute.store import Store
store = Store(Path(sys.argv[1]))
job = Job("a" * 64, "long", (Piece("b" * 64, sys.argv[2]),), "basin_runners:work")
made = service(store)
assert service(store) is made
made.submit(job)
while made.status(job).done == 0:
    time.sleep(0.02)
print("running", flush=True)
if sys.argv[3] == "wait":
    time.sleep(60)
"""


def start_parent(tmp_path, then):
    payload = json.dumps({"name": "x", "ran": str(tmp_path / "ran"), "steps": 600, "sleep": 0.1})
    command = [sys.executable, "-W", "error", "-c", PARENT, str(tmp_path / "store"), payload, then]
    pipe = subprocess.PIPE
    parent = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    assert parent.stdout.readline() == "running\n", parent.stderr.read()
    return parent, psutil.Process(parent.pid).children(recursive=True)


def test_no_process_outlives_a_parent_that_is_killed(tmp_path):
    parent, family = start_parent(tmp_path, "wait")
    assert len(family) >= 3
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    assert psutil.wait_procs(family, timeout=10)[1] == []

    store = Store(tmp_path / "store")
    assert store.jobs.record("a" * 64).state == "running"
    job = Job("a" * 64, "long", (Piece("b" * 64, ""),), "basin_runners:work")
    service = Service(store)
    assert store.jobs.record("a" * 64).state == "interrupted"
    assert service.status(job).state == "interrupted"
    service.close()
    store.close()


def test_a_parent_that_ends_takes_everything_along_quietly(tmp_path):
    parent, family = start_parent(tmp_path, "end")
    family = [p for p in family if p.is_running()]
    _, errors = parent.communicate(timeout=20)
    assert (parent.returncode, errors) == (0, "")
    assert psutil.wait_procs(family, timeout=5)[1] == []
    store = Store(tmp_path / "store")
    assert store.jobs.record("a" * 64).state == "interrupted"
    store.close()


def test_the_credentials_are_gone_once_they_are_read(service, working):
    service.submit(working())
    wait(service, working())
    command = compute_process().cmdline()
    card = Path(command[command.index("merging.results.compute.service") + 1])
    assert not card.exists()
    assert card.parent.stat().st_mode & 0o777 == 0o700
    listening = [c for c in compute_process().net_connections() if c.status == "LISTEN"]
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


def test_says_so_when_the_compute_process_does_not_start(fresh, working, monkeypatch):
    monkeypatch.setattr(compute_cluster.sys, "executable", "/bin/false")
    fresh.submit(working())
    status = wait(fresh, working())
    assert status.state == "interrupted"
    assert "compute.log says why" in status.error
    monkeypatch.undo()
    fresh.submit(working())
    assert wait(fresh, working()).state == "done"


def test_says_so_when_the_store_is_full(fresh, working, monkeypatch):
    def full(*args, **fields):
        raise StoreError("cannot write a job in here: the disk is full")

    monkeypatch.setattr(fresh.store.jobs, "update", full)
    job = one_piece("refused for the store", "refuse")
    fresh.submit(job)
    status = wait(fresh, job)
    assert status.state == "failed"
    assert status.error == "the data set has 3 classes, but the model has 10"
    monkeypatch.undo()
    fresh.submit(working())
    assert wait(fresh, working()).state == "done"


def test_says_so_when_a_job_cannot_be_taken(fresh, working, monkeypatch):
    def full(*args, **fields):
        raise StoreError("cannot write a job in here: the disk is full")

    monkeypatch.setattr(fresh._conductor, "_accept", full)
    fresh.submit(working())
    status = wait(fresh, working())
    assert (status.state, status.error) == (
        "failed",
        "cannot write a job in here: the disk is full",
    )


def test_warms_up_before_the_first_job(tmp_path, runners):
    (runners / "basin_warm.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'warm')!r}).touch()"
    )
    store = Store(tmp_path / "store")
    service = Service(store, preload="basin_warm")
    service.warm_up()
    deadline = time.monotonic() + 20
    while not (tmp_path / "warm").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    service.close()
    store.close()


def test_a_closed_service_takes_no_jobs(tmp_path, working):
    store = Store(tmp_path / "store")
    service = Service(store)
    service.close()
    service.close()
    with pytest.raises(ComputeError, match="was closed; restart the app"):
        service.submit(working())
    store.close()


# Other clusters


def test_two_services_share_a_cluster_by_address_and_one_computation(tmp_path, working):
    from distributed import LocalCluster

    job = working(pieces=3, sleep=0.2)
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    ) as compute_cluster:
        stores = [Store(tmp_path / "store") for _ in range(2)]
        services = [Service(store, address=compute_cluster.scheduler_address) for store in stores]
        for service in services:
            service.submit(job)
        for service in services:
            assert wait(service, job).state == "done"
        assert len(working.ran()) == 3
        for service, store in zip(services, stores, strict=True):
            service.close()
            store.close()


def test_says_so_when_no_cluster_answers(tmp_path, working, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    monkeypatch.setattr(compute_cluster, "_CONNECT_SECONDS", 0.5)
    store = Store(tmp_path / "store")
    service = Service(store)
    service.submit(working())
    status = wait(service, working())
    assert status.state == "interrupted"
    assert "the cluster at tcp://127.0.0.1:9 cannot be reached" in status.error
    service.close()
    store.close()


# What a runner is given


def test_a_context_reports_now_and_then_and_stops_when_asked(tmp_path):
    store = Store(tmp_path)
    context = Context(store, key("p"))
    context.report(1, 10, "one")
    context.report(2, 10, "two")
    assert store.jobs.progress([key("p")])[key("p")].done == 1, "the second came too soon"
    store.jobs.request_stop([key("p")])
    time.sleep(0.25)
    with pytest.raises(StoppedError, match="stopped as asked"):
        context.report(3, 10, "three")
    store.close()


def test_a_context_keeps_the_last_partial_result(tmp_path):
    store = Store(tmp_path)
    context = Context(store, key("p"))
    for i in range(5):
        context.partial({}, {"i": i})
    assert store.get_partial(key("p")).meta == {"i": 0}
    context.flush()
    assert store.get_partial(key("p")).meta == {"i": 4}
    store.close()
