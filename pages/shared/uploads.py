"""Bringing two checkpoints and data: read in a worker, checked, and only then looked at."""

from __future__ import annotations

import hashlib
from typing import Any

import streamlit as st

from merging import cards, requests
from merging.errors import MergingError
from pages.shared import jobs, state, summaries

_DATA = {"mnist": "MNIST, 5,000 digits", "digits": "Digits, 8 × 8", "mnist1d": "MNIST-1D"}
_OWN = "own"


def form() -> None:
    """Two files, their data, and a button that looks at them."""
    st.caption(
        "A state dict of a bundled architecture: safetensors, or a file of `torch.save`. Files "
        "are read without running anything in them, and stay on this server. Tensor names are in "
        "docs/methods.md."
    )
    columns = st.columns(2)
    read: list[requests.BroughtCheckpoint | None] = []
    for column, letter in zip(columns, "AB", strict=True):
        with column:
            read.append(_checkpoint(letter))
    if None in read:
        return
    a, b = (checkpoint for checkpoint in read if checkpoint is not None)
    fits = jobs.follow("models_brought_fit", [requests.FitRequest(a.fingerprint, b.fingerprint)])
    if not fits or not summaries.fit(fits[0].result, key="models_brought_tensors"):
        return
    subject = _with_data(a, b)
    if subject is not None:
        st.button(
            "Look at these two",
            key="models_use",
            type="primary",
            icon=":material/visibility:",
            on_click=state.bring,
            args=(subject,),
        )


def _upload(label: str, kinds: list[str], key: str) -> tuple[str, str] | None:
    file = st.file_uploader(label, type=kinds, key=key)
    if file is None:
        return None
    data = file.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    try:
        jobs.keep_upload(digest, data)
    except MergingError as error:
        st.error(str(error), icon=":material/error:")
        return None
    return digest, file.name


def _checkpoint(letter: str) -> requests.BroughtCheckpoint | None:
    upload = _upload(
        f"Model {letter}",
        ["safetensors", "pt", "pth", "bin", "ckpt"],
        f"models_file_{letter.lower()}",
    )
    if upload is None:
        return None
    for found in jobs.follow(f"models_read_{letter}", [requests.CheckpointRequest(*upload)]):
        if found.request.upload != upload[0]:
            return None  # still the file before this one
        brought: requests.BroughtCheckpoint = found.result
        st.success(
            f"{brought.tensors} tensors, {brought.parameters:,} numbers, fingerprint "
            f"`{brought.fingerprint[:12]}`",
            icon=":material/check_circle:",
        )
        for note in brought.notes:
            st.caption(note)
        return brought
    return None


def _with_data(
    a: requests.BroughtCheckpoint, b: requests.BroughtCheckpoint
) -> requests.Subject | None:
    choice = st.segmented_control(
        "Examples to evaluate on",
        [*_DATA, _OWN],
        default="mnist",
        required=True,
        format_func=lambda name: _DATA.get(name, "A file of mine (.npz with x and y)"),
        key="models_data",
    )
    fields: dict[str, Any] = {
        "config": a.config,
        "model_a": a.fingerprint,
        "model_b": b.fingerprint,
    }
    if choice != _OWN:
        return requests.Subject(**fields, data=choice, data_fingerprint=_bundled_data(choice))
    upload = _upload("Examples", ["npz"], "models_file_data")
    if upload is None:
        return None
    for found in jobs.follow("models_read_data", [requests.DataRequest(*upload, a.config)]):
        if (found.request.upload, found.request.config) != (upload[0], a.config):
            return None  # still the file before this one
        data: requests.BroughtData = found.result
        st.success(f"{data.examples:,} examples of {data.classes} classes")
        for note in data.notes:
            st.caption(note)
        return requests.Subject(**fields, data=data.fingerprint, data_fingerprint=data.fingerprint)
    return None


def _bundled_data(name: str) -> str:
    return next(
        str(card["data_fingerprint"])
        for card in cards.read_cards().values()
        if card["data"] == name
    )
