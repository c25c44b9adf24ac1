"""What all requests share: the subject, the key, the pieces, and reading from the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from merging.results.compute.entry import Entry
from merging.results.compute.job import Job, Piece
from merging.results.compute.processes import limits_of_uploads
from merging.results.compute.store import Store
from merging.results.requests.bundled import is_bundled
from merging.schema.cards.zoo import read_card

# Part of every key: raise it when the meaning of a result changes.
SCHEMA = 1
RUNNER = "merging.results.tasks:run_piece"

Split = Literal["train", "test"]
Result = TypeVar("Result")


def added(default: Any) -> Any:
    """Declare a field that older requests did not have: it is left out of the key at its default.

    So results that were kept before the field was there are found still.
    """
    return field(default=default, metadata={"added": True})


@dataclass(frozen=True)
class Subject:
    """The two models that are looked at, and their data, by fingerprint.

    Attributes:
        config: Canonical JSON of the architecture and its sizes.
        model_a: Fingerprint of model A.
        model_b: Fingerprint of model B.
        data: Name of a bundled data set, or the fingerprint of an uploaded one.
        data_fingerprint: Fingerprint of the data.
        spec: Fingerprint of a permutation spec that a person chose; empty for the derived one.
    """

    config: str
    model_a: str
    model_b: str
    data: str
    data_fingerprint: str
    spec: str = added("")


def bundled_subject(name: str) -> Subject:
    """Return the subject of a bundled pair.

    Raises:
        UnknownNameError: If there is no such pair.
    """
    card = read_card(name)
    return Subject(
        config=canonical(card["config"]),
        model_a=card["fingerprint_a"],
        model_b=card["fingerprint_b"],
        data=card["data"],
        data_fingerprint=card["data_fingerprint"],
    )


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Request(Generic[Result]):
    """Something that can be asked for; one child per kind of result."""

    task: ClassVar[str]
    words: ClassVar[str] = ""
    quick: ClassVar[bool] = False  # whether it looks at what a person uploaded, who waits for it

    @property
    def payload(self) -> dict[str, Any]:
        """The request as JSON values."""
        return {"task": self.task, **_fields(self)}

    @property
    def key(self) -> str:
        """SHA-256 of the canonical JSON: where the result is kept."""
        return digest(self.payload)

    @property
    def title(self) -> str:
        """What a person reads while it is computed."""
        return self.words or self.task

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the requests whose results must be there first."""
        return ()

    def parts(self) -> list[dict[str, Any]]:
        """Return how the request is cut: what each piece adds to the payload, important first."""
        return [{}]

    def job(self) -> Job:
        """Return the request as the compute service takes it."""
        pieces = tuple(
            Piece(self.piece_key(part), canonical({"request": self.payload, "part": part}))
            for part in self.parts()
        )
        needs = tuple(request.job() for request in self.needs())
        limits = None if is_bundled(self.payload) else limits_of_uploads(quick=self.quick)
        key = digest({"job": self.payload})
        return Job(
            key=key,
            title=self.title,
            pieces=pieces,
            runner=RUNNER,
            needs=needs,
            limits=limits,
            quick=self.quick,
        )

    def piece_key(self, part: Mapping[str, Any]) -> str:
        """Return where the result of one piece is kept."""
        return digest({**self.payload, **part})

    def entries(self, store: Store) -> list[Entry | None]:
        """Return what is stored of every piece."""
        keys = [self.piece_key(part) for part in self.parts()]
        present = store.has(keys)
        return [store.get(key) if key in present else None for key in keys]

    def read(self, store: Store) -> Result | None:
        """Return the result, or None while a piece is missing."""
        found = self.entries(store)
        whole = [entry for entry in found if entry is not None]
        return self.result(whole) if len(whole) == len(found) else None

    def read_partial(self, store: Store) -> Result | None:
        """Return what is there so far, if that can be shown already."""
        keys = [self.piece_key(part) for part in self.parts()]
        if len(keys) > 1:
            found = [self.decode(entry) for entry in self.entries(store) if entry is not None]
            return self.join(found) if self.shows(found) else None
        entry = store.get_partial(keys[0])
        return self.result([entry]) if entry is not None else None

    def result(self, entries: list[Entry]) -> Result:
        """Return the result from the stored pieces that are there."""
        return self.join([self.decode(entry) for entry in entries])

    def shows(self, found: list[Any]) -> bool:
        """Return whether what some pieces found is enough to show something."""
        return bool(found)

    def encode(self, found: Any) -> Entry:
        """Return what a piece found as it is stored; `decode` reads it."""
        raise NotImplementedError

    def decode(self, entry: Entry) -> Any:
        """Return what a piece found from what is stored of it."""
        raise NotImplementedError

    def join(self, found: list[Any]) -> Result:
        """Return the result from what its pieces found; most kinds have one piece."""
        (whole,) = found
        return whole


def _fields(record: Any) -> dict[str, Any]:
    values = {f: getattr(record, f.name) for f in fields(record)}
    return {
        f.name: _plain(value)
        for f, value in values.items()
        if not ("added" in f.metadata and value == f.default)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Request):
        return value.payload
    if is_dataclass(value):
        return _fields(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, with the schema version."""
    return hashlib.sha256(canonical({"schema": SCHEMA, "value": value}).encode()).hexdigest()
