"""Uploads of checkpoints and data: read in a worker, checked, and only then looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from merging.files import server_folder
from merging.files.user_function import OWN_DATA, OWN_MODEL, STARTED
from merging.results import requests
from merging.schema.cards import zoo
from merging.schema.errors import MergingError
from pages.shared import jobs, option_widget, session, upload_limits, words
from pages.shared.kept_uploads import called

_DATA = {"mnist": "MNIST, 5,000 digits", "digits": "Digits, 8 × 8", "mnist1d": "MNIST-1D"}
_OWN, _NONE = "own", "none"
_CHOICES = {**_DATA, _OWN: "A file of mine", _NONE: "No examples"}
_KINDS = {
    "classification": " of {} classes",
    "regression": ", {} number(s) to predict each",
    "tokens": " of tokens, {} different ones",
}
_LOOK_SECONDS = 2.0
_FROM_FILES, _BY_NAME = "Found from the files", "By name: torchvision or timm"


@dataclass(frozen=True)
class Given:
    """A file that a person gave: uploaded, or chosen in the server's folder.

    Attributes:
        upload: SHA-256 of what was uploaded.
        name: The file's name.
        file: Identity of a file in the server's folder.
    """

    upload: str
    name: str
    file: str = ""

    def asked(self, architecture: str = "") -> requests.CheckpointRequest:
        """Ask for what is in it, as a checkpoint."""
        return requests.CheckpointRequest(
            upload=self.upload, name=self.name, architecture=architecture, file=self.file
        )


def on_server(name: str) -> Given:
    """Return a file of the server's folder.

    Raises:
        MergingError: If there is no such file inside.
    """
    return Given("", name.rpartition("/")[2], server_folder.identity(name))


def upload(label: str, kinds: Sequence[str], key: str) -> tuple[str, str] | None:
    """Let a person choose a file, and keep its bytes for a worker.

    Args:
        label: What the file is.
        kinds: Endings that the browser offers, with their dots.
        key: Key of the widget.

    Returns:
        The SHA-256 of the bytes, and the file's name; None while there is none.
    """
    endings = [kind.removeprefix(".") for kind in kinds]
    file = st.file_uploader(
        words.plain(label),
        type=endings,
        key=key,
        help=words.plain(upload_limits.limits_words()),
    )
    return None if file is None else keep(file)


@st.fragment(run_every=_LOOK_SECONDS)
def say_refused() -> None:
    """Say why an upload was refused; asks now and then, since a refused file runs no page."""
    if refused := upload_limits.refusal():
        st.warning(words.plain(refused), icon=":material/block:")


def keep(file: Any) -> tuple[str, str] | None:
    """Keep an upload for a worker to read.

    Args:
        file: What a file uploader returned.

    Returns:
        Its SHA-256 and its name; None, and a message on the page, if it cannot be kept.
    """
    try:
        return jobs.keep_upload(file), called(file)
    except MergingError as error:
        words.tell(error)
        return None


def given(label: str, kinds: Sequence[str], key: str) -> Given | None:
    """Let a person give a file, or choose one in the server's folder where there is one.

    Args:
        label: What the file is.
        kinds: Endings that can be chosen, with their dots.
        key: Key of the widget.

    Returns:
        The file; None while there is none.
    """
    uploaded = upload(label, kinds, key)
    try:
        if server_folder.is_on():
            chosen = st.selectbox(
                f"{words.plain(label)}, from the server's folder",
                server_folder.names(kinds),
                index=None,
                placeholder="Or choose a file on the server",
                label_visibility="collapsed",
                key=f"{key}_server",
            )
            if chosen is not None:
                return on_server(str(chosen))
    except MergingError as error:
        words.tell(error)
        return None
    return None if uploaded is None else Given(*uploaded)


def choose_architecture(key: str) -> str:
    """Ask for the architecture: a name, the server's own function, or nothing.

    Args:
        key: The page, for the widgets' keys.

    Returns:
        What checkpoints are asked for with; empty for what the files say.
    """
    own = os.environ.get(OWN_MODEL, "")
    choices = [_FROM_FILES, _BY_NAME, *([own] if own else [])]
    choice = st.selectbox("Architecture", choices, key=f"{key}_architecture")
    if choice == _BY_NAME:
        return str(st.text_input("Name", placeholder="torchvision:resnet18", key=f"{key}_name"))
    return requests.canonical({"architecture": "own", "function": own}) if choice == own else ""


def remember(checkpoint: requests.UploadedCheckpoint) -> None:
    """Remember what pages have to know of a checkpoint that was read."""
    if checkpoint.keeps_statistics:
        session.note_statistics(checkpoint.config)


def examples(config: str, *, key: str) -> tuple[str, str] | None:
    """Let a person choose what models are evaluated on.

    Args:
        config: Canonical JSON of their architecture.
        key: The page, for the widgets' keys.

    Returns:
        Name and fingerprint of the data, both empty for none; None until a file was read.
    """
    function = os.environ.get(OWN_DATA, "")
    choices = {**_CHOICES, **({function: function} if function else {})}
    choice = option_widget.segments(
        "Examples to evaluate on",
        list(choices),
        default="mnist",
        format_func=lambda name: words.plain(choices[name]),
        key=f"{key}_data",
        help=(
            "Your own file: `.npz` with `x` and `y` (or `tokens`), a table as CSV, a zip file of "
            "images in one folder per class, CIFAR's Python archive, or MNIST's idx files in a zip "
            "file. Without examples, only weight matching works and no curve can be drawn."
        ),
    )
    if choice == _NONE:
        return "", ""
    if choice not in (_OWN, function):
        return str(choice), _bundled_data(str(choice))
    if choice == function:
        wanted = requests.DataRequest(
            upload=STARTED, name=function, config=config, function=function
        )
    else:
        file = given("Examples", server_folder.EXAMPLES, f"{key}_file_data")
        if file is None:
            return None
        wanted = requests.DataRequest(
            upload=file.upload, name=file.name, config=config, file=file.file
        )
    for found in jobs.follow(f"{key}_read_data", [wanted]):
        if replace(found.request, name=wanted.name) != wanted:
            return None  # still the file before this one
        data: requests.UploadedData = found.result
        st.success(
            words.plain(f"{data.examples:,} examples{_KINDS[data.kind].format(data.classes)}")
        )
        for note in data.notes:
            st.caption(words.plain(note))
        return data.fingerprint, data.fingerprint
    return None


def _bundled_data(name: str) -> str:
    return next(
        str(card["data_fingerprint"]) for card in zoo.read_cards().values() if card["data"] == name
    )
