"""Bringing two to twenty checkpoints of one architecture, their base, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from merging import requests, server_folder
from pages.shared import jobs, uploads
from pages.shared.merge_choice import Choice

_MOST = 20
_KINDS = [kind.removeprefix(".") for kind in server_folder.WEIGHTS]


def brought() -> Choice | None:
    """The models that were brought; None until all of them are read and fit."""
    st.caption(
        f"Two to {_MOST} checkpoints of one architecture, in any form that the Models page reads. "
        "Nothing in them is executed."
    )
    left, right = st.columns(2)
    with left:
        files: list[Any] = st.file_uploader(
            "Models", _KINDS, accept_multiple_files=True, key="merge_files"
        )
    with right:
        base_file = st.file_uploader(
            "Their base, if they were fine-tuned from one", _KINDS, key="merge_base_file"
        )
    if not 2 <= len(files) <= _MOST:
        if files:
            st.info(f"{len(files)} models are there; 2 to {_MOST} can be merged.")
        return None
    read = _read(files if base_file is None else [*files, base_file])
    if read is None:
        return None
    found = uploads.examples(read[0].config, key="merge")
    if found is None:
        return None
    return _choice(read[: len(files)], read[len(files) :], found)


def _choice(
    models: Sequence[requests.BroughtCheckpoint],
    base: Sequence[requests.BroughtCheckpoint],
    examples: tuple[str, str],
) -> Choice:
    tasks = (requests.Examples(*examples),) if examples[0] else ()
    family = requests.Family(
        models[0].config,
        tuple(model.fingerprint for model in models),
        tasks,
        (0 if tasks else -1,) * len(models),
        base[0].fingerprint if base else "",
        tasks[0] if base and tasks else None,
    )
    return Choice(
        "Your checkpoints",
        "tasks" if base else "seeds",
        family,
        tuple(model.name for model in models),
        ("All examples",) if tasks else (),
    )


def _read(files: Sequence[Any]) -> list[requests.BroughtCheckpoint] | None:
    """All checkpoints; the first one says the architecture of the others."""
    kept = [one for file in files if (one := uploads.keep(file)) is not None]
    if len(kept) < len(files):
        return None
    first = _follow("merge_read_first", [requests.CheckpointRequest(*kept[0])])
    if not first:
        return None
    rest = [requests.CheckpointRequest(*one, first[0].config) for one in kept[1:]]
    others = _follow("merge_read", rest)
    if len(others) < len(rest):
        return None
    strangers = [other.name for other in others if other.config != first[0].config]
    if strangers:
        st.error(
            f"{', '.join(strangers)}: another architecture than {first[0].name}; models of one "
            "architecture can be merged.",
            icon=":material/error:",
        )
        return None
    return [*first, *others]


def _follow(
    slot: str, wanted: Sequence[requests.CheckpointRequest]
) -> list[requests.BroughtCheckpoint]:
    """What was read of these files; none of files that were there before."""
    return [found.result for found in jobs.follow(slot, wanted) if found.request in wanted]
