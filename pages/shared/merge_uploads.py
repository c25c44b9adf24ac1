"""Bringing two to twenty checkpoints of one architecture, their base, and examples."""

from __future__ import annotations

import streamlit as st

from merging import requests
from pages.shared import uploads
from pages.shared.merge_choice import Choice

_MOST = 20


def family() -> Choice | None:
    """The models that were brought; None until all of them are read and fit."""
    st.caption(
        f"Two to {_MOST} checkpoints of one architecture, in any form that the Models page reads. "
        "Nothing in them is executed."
    )
    left, right = st.columns(2)
    with left:
        files = st.file_uploader(
            "Models", uploads.WEIGHTS, accept_multiple_files=True, key="merge_files"
        )
    with right:
        base_file = st.file_uploader(
            "Their base, if they were fine-tuned from one", uploads.WEIGHTS, key="merge_base_file"
        )
    if not 2 <= len(files) <= _MOST:
        if files:
            st.info(f"{len(files)} of at least 2 and at most {_MOST} models are there.")
        return None
    read = _read([*files, *([base_file] if base_file else [])])
    if read is None:
        return None
    models, base = read[: len(files)], read[len(files)] if base_file else None
    examples = uploads.examples(models[0].config, key="merge")
    if examples is None:
        return None
    tasks = (requests.Examples(*examples),) if examples[0] else ()
    on = 0 if tasks else -1
    brought = requests.Family(
        models[0].config,
        tuple(model.fingerprint for model in models),
        tasks,
        (on,) * len(models),
        base.fingerprint if base else "",
        tasks[0] if base and tasks else None,
    )
    titles = tuple(model.name for model in models)
    kind = "tasks" if base else "seeds"
    return Choice("Your checkpoints", kind, brought, titles, ("All examples",) if tasks else ())


def _read(files: list[object]) -> list[requests.BroughtCheckpoint] | None:
    """All checkpoints, the first of which says the architecture of the others."""
    kept = [uploads.keep(file) for file in files]
    if None in kept:
        return None
    first = uploads.read_all("merge_read_first", [requests.CheckpointRequest(*kept[0])])
    if not first:
        return None
    rest = [requests.CheckpointRequest(*one, first[0].config) for one in kept[1:]]
    others = uploads.read_all("merge_read", rest)
    if len(others) < len(rest):
        return None
    strangers = [o.name for o in others if o.config != first[0].config]
    if strangers:
        st.error(
            f"{', '.join(strangers)}: another architecture than {first[0].name}; models of one "
            "architecture can be merged.",
            icon=":material/error:",
        )
        return None
    return [*first, *others]
