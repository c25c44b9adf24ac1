"""Open what a person named: models, data and permutation spec, kept in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from merging.cli.wanted import Named
from merging.files.data.bundled import DATASETS, load_dataset
from merging.files.data.user_data import own_data
from merging.files.user_function import is_function
from merging.results import requests
from merging.results.compute.store import Store
from merging.results.requests import Examples, Family, Subject, UploadedCheckpoint
from merging.results.uploads import keep
from merging.schema.cards.zoo import list_families, list_pairs
from merging.schema.errors import MergingError


@dataclass(frozen=True)
class Origin:
    """Where models and data come from, for a recipe and for the person who named them.

    Attributes:
        sources: The files and names that were given, by what they are (`model_a`, say).
        notes: What was done on reading them, in sentences.
        spec: The permutation spec as JSON, if it was chosen; empty for the derived one.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    spec: str = ""


@dataclass(frozen=True)
class OpenedPair:
    """Two models that were opened.

    Attributes:
        subject: The models and their data.
        origin: Where they come from.
        files: What was read of their files; empty for a bundled pair.
    """

    subject: Subject
    origin: Origin
    files: tuple[UploadedCheckpoint, ...] = ()

    def prefix(self, number: int) -> str:
        """Return what was cut off all names of a model's file; nothing of bundled ones."""
        return self.files[number].prefix if self.files else ""


@dataclass(frozen=True)
class OpenedModels:
    """Models to fuse that were opened.

    Attributes:
        family: The models, their base and their data.
        origin: Where they come from.
        files: What was read of the models' files, in order; empty for bundled models.
        base: What was read of the base's file; None without one.
    """

    family: Family
    origin: Origin
    files: tuple[UploadedCheckpoint, ...] = ()
    base: UploadedCheckpoint | None = None

    def prefix(self, number: int) -> str:
        """Return what was cut off all names of a model's file; nothing of bundled ones."""
        return self.files[number].prefix if self.files else ""


def open_pair(named: Named, store: Store) -> OpenedPair:
    """Open two models, their data and the permutation spec that was chosen.

    Args:
        named: How a person names them.
        store: Where what is read is kept.

    Returns:
        The models.

    Raises:
        MergingError: If they cannot be read, or do not fit.
    """
    found = _bundled_pair(named.models[0]) if len(named.models) == 1 else _read_pair(named, store)
    if not named.spec and not named.freeze:
        return found
    chosen = keep.keep_spec(named.spec, found.subject.config, store, freeze=named.freeze)
    path = store.files.path(chosen.fingerprint) if chosen.fingerprint else None
    note = f"A chosen spec: {chosen.groups} groups, {chosen.units:,} units."
    origin = replace(
        found.origin,
        notes=(*found.origin.notes, note),
        spec=path.read_text("utf-8") if path is not None else "",
    )
    subject = replace(found.subject, spec=chosen.fingerprint)
    return replace(found, subject=subject, origin=origin)


def _bundled_pair(name: str) -> OpenedPair:
    if name not in list_pairs():
        raise MergingError(
            f"{name!r} is not a bundled pair; give two checkpoints, or one of "
            f"{', '.join(list_pairs())}"
        )
    return OpenedPair(requests.bundled_subject(name), Origin({"pair": name}))


def _read_pair(named: Named, store: Store) -> OpenedPair:
    if len(named.models) != 2:
        raise MergingError("give two checkpoints, or the name of one bundled pair")
    files = _read_models(named.models, named.architecture, store)
    a, b = files
    examples, data_origin = _read_data(named.data, a.config, store)
    subject = Subject(
        config=a.config,
        model_a=a.fingerprint,
        model_b=b.fingerprint,
        data=examples.data if examples else "",
        data_fingerprint=examples.data_fingerprint if examples else "",
    )
    models = dict(zip(("model_a", "model_b"), named.models, strict=True))
    return OpenedPair(subject, _origin(models, named.models, files, data_origin), files)


def open_models(named: Named, store: Store) -> OpenedModels:
    """Open models to fuse, their base and their data.

    Args:
        named: How a person names them.
        store: Where what is read is kept.

    Returns:
        The models.

    Raises:
        MergingError: If they cannot be read, or do not fit.
    """
    if len(named.models) == 1:
        return _bundled_models(named.models[0])
    paths = (*named.models, *([named.base] if named.base else []))
    read = _read_models(paths, named.architecture, store)
    count = len(named.models)
    files, base = read[:count], read[count] if named.base else None
    examples, data_origin = _read_data(named.data, files[0].config, store)
    sources = {f"model_{k}": path for k, path in enumerate(paths)} | {"models": str(count)}
    return OpenedModels(
        family=requests.uploaded_family(files, base, examples),
        origin=_origin(sources, paths, read, data_origin),
        files=files,
        base=base,
    )


def _bundled_models(name: str) -> OpenedModels:
    if name in list_families():
        return OpenedModels(requests.bundled_family(name), Origin({"family": name}))
    if name in list_pairs():
        family = requests.pair_family(requests.bundled_subject(name))
        return OpenedModels(family, Origin({"family_of_pair": name}))
    raise MergingError(
        f"{name!r} is not a bundled family or pair; give two checkpoints or more, or one of "
        f"{', '.join([*list_families(), *list_pairs()])}"
    )


def _read_models(
    paths: Sequence[str], architecture: str, store: Store
) -> tuple[UploadedCheckpoint, ...]:
    """Read checkpoints; where no architecture is given, that of the first is for all of them."""
    found: list[UploadedCheckpoint] = []
    for path in map(Path, paths):
        found.append(keep.keep_checkpoint(path, path.name, store, architecture=architecture))
        architecture = architecture or found[0].config
    return tuple(found)


def _read_data(given: str, config: str, store: Store) -> tuple[Examples | None, Origin]:
    if not given:
        return None, Origin()
    if given in DATASETS:
        return Examples(given, load_dataset(given).fingerprint), Origin()
    if is_function(given):
        found = keep.keep_arrays(own_data(given), given, config, store)
    else:
        found = keep.keep_data(Path(given), Path(given).name, config, store)
    examples = Examples(found.fingerprint, found.fingerprint)
    return examples, Origin({"data": given}, found.notes)


def _origin(
    sources: Mapping[str, str],
    paths: Sequence[str],
    files: Sequence[UploadedCheckpoint],
    data: Origin,
) -> Origin:
    notes = [
        f"{Path(path).name}: {note}"
        for path, file in zip(paths, files, strict=True)
        for note in file.notes
    ]
    return Origin({**sources, **data.sources}, (*notes, *data.notes))
