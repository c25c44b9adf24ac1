"""The form that takes uploaded models and data."""

from __future__ import annotations

import streamlit as st

from merging.files import server_folder
from merging.results import requests
from merging.schema.how_to_export import HOW_TO_EXPORT
from pages.shared import jobs, session, words
from pages.shared.models import fit
from pages.shared.uploads import choose_architecture, examples, given, remember, say_refused


def form() -> None:
    """Draw the form: two files, their data, and a button that looks at them."""
    st.caption(
        "A `.pt2` archive of any architecture; a zip file of a Hugging Face folder; or a state "
        "dict (safetensors, `torch.save`, Lightning) of a bundled architecture, whose tensor names "
        "are in docs/methods.md, or of one of torchvision's or timm's, by name. Files are read "
        "without running anything in them, and stay on this server."
    )
    with st.expander("Another architecture? Three lines make an archive of it"):
        st.code(HOW_TO_EXPORT, language="python")
    architecture = choose_architecture("models")
    say_refused()
    columns = st.columns(2)
    read: list[requests.UploadedCheckpoint | None] = []
    for column, letter in zip(columns, "AB", strict=True):
        with column:
            read.append(_checkpoint(letter, _known(architecture, read)))
    if None in read:
        return
    a, b = (checkpoint for checkpoint in read if checkpoint is not None)
    fits = jobs.follow("models_uploaded_fit", [requests.FitRequest(a.fingerprint, b.fingerprint)])
    if not fits or not fit.fit(fits[0].result, key="models_uploaded_tensors"):
        return
    subject = _with_data(a, b)
    if subject is not None:
        st.button(
            "Look at these two",
            key="models_use",
            icon=":material/visibility:",
            on_click=session.bring,
            args=(subject, {"a": a.prefix, "b": b.prefix}),
        )


def _known(architecture: str, read: list[requests.UploadedCheckpoint | None]) -> str:
    """Return what is known of the next file's architecture: B may leave it to A."""
    return architecture or (read[0].config if read and read[0] is not None else "")


def _checkpoint(letter: str, architecture: str) -> requests.UploadedCheckpoint | None:
    file = given(f"Model {letter}", server_folder.WEIGHTS, f"models_file_{letter.lower()}")
    if file is None:
        return None
    wanted = file.asked(architecture)
    for found in jobs.follow(f"models_read_{letter}", [wanted]):
        if found.request != wanted:
            return None  # still the file before this one
        checkpoint: requests.UploadedCheckpoint = found.result
        remember(checkpoint)
        st.success(
            f"{checkpoint.tensors:,} tensors, {checkpoint.parameters:,} numbers, fingerprint "
            f"{words.code(checkpoint.fingerprint[:12])}",
            icon=":material/check_circle:",
        )
        for note in checkpoint.notes:
            st.caption(words.plain(note))
        return checkpoint
    return None


def _with_data(
    a: requests.UploadedCheckpoint, b: requests.UploadedCheckpoint
) -> requests.Subject | None:
    found = examples(a.config, key="models")
    if found is None:
        return None
    data, data_fingerprint = found
    return requests.Subject(
        config=a.config,
        model_a=a.fingerprint,
        model_b=b.fingerprint,
        data=data,
        data_fingerprint=data_fingerprint,
    )
