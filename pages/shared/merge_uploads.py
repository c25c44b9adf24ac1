"""Bringing two to twenty checkpoints of one architecture, their base, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from merging import requests, server_folder
from merging.errors import MergingError
from pages.shared import jobs, uploads
from pages.shared.merge_choice import Choice

_MOST = 20


def brought() -> Choice | None:
    """The models that were brought; None until all of them are read and fit."""
    st.caption(
        f"Two to {_MOST} checkpoints of one architecture, in any form that the Models page reads. "
        "Nothing in them is executed."
    )
    left, right = st.columns(2)
    with left:
        models = _models()
    with right:
        base = uploads.given(
            "Their base, if they were fine-tuned from one", server_folder.WEIGHTS, "merge_base_file"
        )
    if not 2 <= len(models) <= _MOST:
        if models:
            there = "1 model is" if len(models) == 1 else f"{len(models)} models are"
            st.info(f"{there} there; 2 to {_MOST} can be merged.")
        return None
    read = _read(models if base is None else [*models, base])
    if read is None:
        return None
    found = uploads.examples(read[0].config, key="merge")
    if found is None:
        return None
    return _choice(read[: len(models)], read[len(models) :], found)


def _models() -> list[uploads.Given]:
    """The models that were uploaded, and then those that were chosen on the server."""
    kinds = [kind.removeprefix(".") for kind in server_folder.WEIGHTS]
    files: list[Any] = st.file_uploader(
        "Models", kinds, accept_multiple_files=True, key="merge_files"
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
        st.error(str(error), icon=":material/error:")
        return []


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
        moments=_moments(models, base),
    )


def _moments(
    models: Sequence[requests.BroughtCheckpoint], base: Sequence[requests.BroughtCheckpoint]
) -> requests.Moments | None:
    """Adam's second moments, if all models have them."""
    own = tuple(model.second_moment for model in models)
    return requests.Moments(own, base[0].second_moment if base else "") if all(own) else None


def _read(given: Sequence[uploads.Given]) -> list[requests.BroughtCheckpoint] | None:
    """All checkpoints; the first one says the architecture of the others."""
    first = _follow("merge_read_first", [given[0].asked()])
    if not first:
        return None
    rest = [one.asked(first[0].config) for one in given[1:]]
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
