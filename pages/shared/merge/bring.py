"""Uploads of two to twenty checkpoints of one architecture, their base, and examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from merging.files import server_folder
from merging.results import requests
from merging.schema.errors import MergingError
from pages.shared import jobs, upload_limits, uploads, words
from pages.shared.merge.choice import Choice

_MOST = 20


def uploaded() -> Choice | None:
    """Return the models that were uploaded; None until all of them are read and fit."""
    st.caption(
        f"Two to {_MOST} checkpoints of one architecture, in any form that the Models page reads. "
        "Nothing in them is executed."
    )
    architecture = uploads.choose_architecture("merge")
    uploads.say_refused()
    left, right = st.columns(2)
    with left:
        models = _models()
        is_run = len(models) > 1 and _is_run(models)
    with right:
        base = uploads.given(
            "Their base, if they were fine-tuned from one", server_folder.WEIGHTS, "merge_base_file"
        )
    if not 2 <= len(models) <= _MOST:
        if models:
            there = "1 model is" if len(models) == 1 else f"{len(models)} models are"
            st.info(f"{words.plain(there)} there; 2 to {_MOST} can be merged.")
        return None
    read = _read(models if base is None else [*models, base], len(models), architecture)
    if read is None:
        return None
    uploads.remember(read[0])
    found = uploads.examples(read[0].config, key="merge")
    if found is None:
        return None
    parts, ends = read[: len(models)], read[len(models) :]
    if not is_run:
        return _choice(parts, ends, found)
    return replace(_choice(sorted(parts, key=_place), ends, found), kind="run")


def _is_run(models: Sequence[uploads.Given]) -> bool:
    """Say whether the models are said to be checkpoints of one run; their order is shown then."""
    is_run = st.toggle(
        "Checkpoints of one run",
        key="merge_run",
        help="For SWA, EMA and LAWA, which depend on the order of the checkpoints. They are sorted "
        "by name, and numbers in names by size, so that 9 comes before 10.",
    )
    if is_run:
        st.caption(words.plain(" → ".join(model.name for model in sorted(models, key=_place))))
    return is_run


def _place(model: uploads.Given | requests.UploadedCheckpoint) -> list[tuple[int, str]]:
    """Return where a checkpoint comes in its run: 9 before 10, as nobody pads numbers."""
    parts = re.split(r"(\d+)", model.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _models() -> list[uploads.Given]:
    """Return the models that were uploaded, and then those that were chosen on the server."""
    kinds = [kind.removeprefix(".") for kind in server_folder.WEIGHTS]
    files: list[Any] = st.file_uploader(
        "Models",
        kinds,
        accept_multiple_files=True,
        key="merge_files",
        help=words.plain(upload_limits.limits_words()),
    )
    found = [uploads.Given(*kept) for file in files if (kept := uploads.keep(file)) is not None]
    if not server_folder.is_on():
        return found
    try:
        chosen = st.multiselect(
            "Models, from the server's folder",
            server_folder.names(server_folder.WEIGHTS),
            placeholder="Or choose files on the server",
            label_visibility="collapsed",
            key="merge_files_server",
        )
        return [*found, *(uploads.on_server(str(name)) for name in chosen)]
    except MergingError as error:
        words.tell(error)
        return []


def _choice(
    models: Sequence[requests.UploadedCheckpoint],
    base: Sequence[requests.UploadedCheckpoint],
    examples: tuple[str, str],
) -> Choice:
    known = requests.Examples(*examples) if examples[0] else None
    family = requests.uploaded_family(models, base[0] if base else None, known)
    return Choice(
        title="Your checkpoints",
        kind="tasks" if base else "seeds",
        family=family,
        models=_called_apart([model.name for model in models]),
        tasks=("All examples",) if known else (),
        prefixes=tuple(model.prefix for model in models),
        moments=_moments(models, base),
    )


def _called_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that tell models apart even if their files have one name."""
    seen: Counter[str] = Counter()
    called = []
    for name in names:
        seen[name] += 1
        called.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(called)


def _moments(
    models: Sequence[requests.UploadedCheckpoint], base: Sequence[requests.UploadedCheckpoint]
) -> requests.Moments | None:
    """Return Adam's second moments, if all models have them."""
    own = tuple(model.second_moment for model in models)
    return requests.Moments(own, base[0].second_moment if base else "") if all(own) else None


def _read(
    given: Sequence[uploads.Given], count: int, architecture: str
) -> list[requests.UploadedCheckpoint] | None:
    """Read all checkpoints, `count` models and perhaps a base; the first gives the architecture."""
    first = _follow("merge_read_first", [given[0].asked(architecture)])
    if not first:
        return None
    rest = [one.asked(first[0].config) for one in given[1:]]
    others = _follow("merge_read", rest)
    if len(others) < len(rest):
        return None
    read = [*first, *others]
    try:  # strangers are named before somebody looks for examples
        requests.uploaded_family(read[:count], read[count] if len(read) > count else None)
    except MergingError as error:
        words.tell(error)
        return None
    return read


def _follow(
    slot: str, wanted: Sequence[requests.CheckpointRequest]
) -> list[requests.UploadedCheckpoint]:
    """Return what was read of these files; none of files that were there before."""
    return [found.result for found in jobs.follow(slot, wanted) if found.request in wanted]
