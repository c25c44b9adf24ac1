"""Whose turn it is, on a cluster and a clock that are made up."""

from __future__ import annotations

import hashlib

import pytest

from merging.results.compute.audience import FOLLOWED_SECONDS, Audience
from merging.results.compute.job import Job, Piece
from merging.results.compute.turns import Flight, Live, Turns, before, is_last


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class Office:
    """Some workers, a clock, and jobs whose pieces take the seconds that they say."""

    def __init__(self, slots=3):
        self.slots, self.now = slots, 0.0
        self.audience = Audience(lambda: self.now)
        self.turns = Turns(self.audience)
        self.lives, self.flights, self.ends, self.lost = {}, {}, {}, []
        self.closed = set()
        self.first, self.finished = {}, {}

    def ask(self, owner, name, pieces=1, seconds=1.0, quick=False, needs=()):
        made = tuple(Piece(key(f"{name}/{i}"), str(seconds)) for i in range(pieces))
        job = Job(key(name), name, made, "", tuple(needs), quick=quick)
        self.audience.ask(job, owner)
        waiting = {piece.key: (rank, piece) for rank, piece in enumerate(made)}
        self.lives[job.key] = Live(job, True, waiting)
        return job

    def close_page(self, owner):
        self.closed.add(owner)

    def run(self, seconds, step=0.25):
        """Let time pass."""
        for _ in range(round(seconds / step)):
            self.now += step
            for live in self.lives.values():
                for owner in self.audience.owners(live.job.key) - self.closed:
                    self.audience.look(live.job, owner)
            for flight in [f for f in self.flights.values() if self.ends[f.turn.key] <= self.now]:
                self.land(flight)
            self.fill()

    def fill(self):
        turns = self.waiting()
        while len(self.flights) < self.slots:
            turn = self.turns.next(turns, self.flights.values(), self.slots)
            if turn is None:
                break
            last = is_last(self.flights.values(), self.slots)
            _, piece = turn.live.waiting[turn.key]
            turn.live.sent[turn.key] = turn.live.waiting.pop(turn.key)
            self.flights[turn.key] = Flight(turn, self.now, last)
            self.ends[turn.key] = self.now + float(piece.payload)
            self.first.setdefault(turn.live.job.title, self.now)
            self.turns.took(turn)
            turns = self.waiting()
        victim = self.turns.evict(turns, self.flights.values(), self.slots, self.now)
        if victim:
            del self.flights[victim.turn.key]
            live = victim.turn.live
            live.waiting = {victim.turn.key: live.sent.pop(victim.turn.key)} | live.waiting
            self.lost.append(live.job.title)

    def waiting(self):
        return self.turns.waiting(self.lives, self.flights.values(), self.flights)

    def land(self, flight):
        del self.flights[flight.turn.key]
        live = flight.turn.live
        del live.sent[flight.turn.key]
        if not live.sent and not live.waiting:
            del self.lives[live.job.key]
            self.finished[live.job.title] = self.now


@pytest.fixture
def office():
    return Office()


def titles(office):
    return sorted(flight.turn.live.job.title for flight in office.flights.values())


def test_one_owner_leaves_the_last_worker_free(office):
    office.ask("ada", "landscape", pieces=50, seconds=2)
    office.run(1)
    assert titles(office) == ["landscape", "landscape"]


def test_an_owner_who_comes_has_a_worker_at_once(office):
    office.ask("ada", "landscape", pieces=50, seconds=1000)
    office.run(5)
    office.ask("bob", "curve", pieces=3)
    office.run(0.25)
    assert titles(office) == ["curve", "landscape", "landscape"]
    office.run(3.5)
    assert "curve" in office.finished
    assert office.lost == []


def test_a_worker_that_is_gone_does_not_leave_the_rest_to_files_that_never_end(office):
    for k in range(2):
        office.ask(f"eve {k}", f"endless {k}", seconds=1e9)
    office.run(20)
    office.slots = 2
    office.ask("ada", "reading")
    office.run(10)
    assert "reading" in office.finished


def test_owners_take_turns_whatever_each_asked_for(office):
    for k in range(300):
        office.ask("ada", f"heavy {k}", pieces=9)
    office.run(4)
    office.ask("bob", "one second")
    office.run(2.25)
    assert "one second" in office.finished


def test_quick_jobs_of_an_owner_come_first_but_not_before_other_owners(office):
    office.slots = 2
    office.ask("ada", "landscape", pieces=9, seconds=1)
    office.ask("ada", "reading", quick=True)
    office.run(0.25)
    assert titles(office) == ["reading"], "and the last worker is for others"
    for k in range(20):
        office.ask("eve", f"reading {k}", quick=True)
    office.ask("bob", "curve")
    office.run(3)
    assert "curve" in office.finished


@pytest.mark.parametrize("hostile", [2, 3, 6])
def test_a_first_piece_waits_for_seconds_behind_files_that_never_end(office, hostile):
    for k in range(hostile):
        office.ask(f"eve {k}", f"endless {k}", seconds=1e9)
    office.run(60)
    began = office.now
    office.ask("ada", "reading a small file", quick=True)
    office.run(12)
    assert office.first["reading a small file"] - began <= 8
    assert len(office.lost) <= hostile


def test_what_had_to_make_room_ends_at_last(office):
    for k in range(4):
        office.ask(f"owner {k}", f"long {k}", seconds=100)
    for k in range(200):
        office.ask(f"visitor {k}", f"short {k}")
        office.run(3)
    assert {f"long {k}" for k in range(4)} <= office.finished.keys()
    assert {f"short {k}" for k in range(190)} <= office.finished.keys()


def test_long_work_of_an_owner_goes_on_behind_files_that_never_end(office):
    for k in range(3):
        office.ask(f"eve {k}", f"endless {k}", seconds=1e9)
    office.run(10)
    office.ask("ada", "distillation", seconds=100)
    office.run(900)
    assert "distillation" in office.finished


def test_nobody_makes_room_for_work_of_their_own(office):
    office.slots = 1
    office.ask("ada", "long", seconds=500)
    office.run(20)
    office.ask("ada", "more")
    office.run(100)
    assert office.lost == []


def test_on_one_worker_owners_take_turns_too(office):
    office.slots = 1
    office.ask("ada", "long", seconds=40)
    office.run(20)
    office.ask("bob", "short")
    office.run(5)
    assert "short" in office.finished
    office.run(60)
    assert "long" in office.finished


def test_what_nobody_follows_waits_behind_all_that_somebody_does(office):
    office.ask("ada", "left", pieces=300, seconds=1)
    office.close_page("ada")
    office.run(FOLLOWED_SECONDS + 5)
    office.ask("bob", "landscape", pieces=20, seconds=1)
    office.run(1.5)
    assert titles(office) == ["landscape", "landscape"]
    office.run(9)
    assert "landscape" in office.finished
    office.run(0.25)
    assert titles(office) == ["left", "left"]


def test_a_long_piece_that_nobody_follows_makes_room(office):
    for k in range(2):
        office.ask("ada", f"left {k}", seconds=1e9)
    office.close_page("ada")
    office.run(FOLLOWED_SECONDS + 5)
    office.ask("bob", "landscape", pieces=20, seconds=10)
    office.ask("cem", "curve", pieces=20, seconds=10)
    office.run(60)
    assert office.lost
    assert "left 0" not in titles(office) or "left 1" not in titles(office)


def test_a_job_waits_for_what_it_needs(office):
    need = office.ask("ada", "alignment", seconds=5)
    office.ask("ada", "curve", needs=[need])
    office.run(4)
    assert titles(office) == ["alignment"]
    office.run(3)
    assert "curve" in office.first


def test_a_job_of_several_owners_counts_for_whoever_waits(office):
    office.ask("ada", "landscape", pieces=50, seconds=1000)
    office.run(1)
    shared = office.ask("ada", "shared")
    office.run(1)
    assert "shared" not in office.first
    office.audience.ask(shared, "bob")
    office.run(0.25)
    assert "shared" in office.first


def test_tells_how_many_others_have_their_turn_before(office):
    office.slots = 0
    office.ask("ada", "a", pieces=5)
    office.ask("ada", "a too")
    office.ask("bob", "b")
    office.ask("cem", "c")
    places = before(office.waiting(), office.audience.owners)
    assert sorted(places[key(name)] for name in ("a", "b", "c")) == [0, 1, 2]
    assert places[key("a")] == places[key("a too")]


# Who follows what


def test_who_looked_lately_follows_and_who_looked_last_owns():
    now = [0.0]
    audience = Audience(lambda: now[0])
    need = Job(key("need"), "", (), "")
    job = Job(key("job"), "", (), "", (need,))
    audience.look(job, "nobody asked for it")
    assert audience.owners(job.key) == frozenset()
    audience.ask(job, "ada")
    now[0] = 80.0
    audience.look(job, "bob")
    now[0] = 100.0
    assert audience.followers(need.key) == audience.owners(job.key) == {"bob"}
    assert audience.unseen(need.key) == 20
    now[0] = 500.0
    assert audience.followers(job.key) == frozenset()
    assert audience.owners(job.key) == {"bob"}
    audience.forget(job.key)
    assert audience.unseen(job.key) == float("inf")


def test_who_left_a_job_does_not_follow_it_by_looking_but_by_asking():
    audience = Audience()
    job = Job(key("job"), "", (), "")
    audience.ask(job, "ada")
    audience.ask(job, "bob")
    audience.leave([job.key], "ada")
    audience.look(job, "ada")
    assert audience.followers(job.key) == {"bob"}
    assert audience.has_left(job.key, "ada")
    audience.ask(job, "ada")
    assert audience.followers(job.key) == {"ada", "bob"}
