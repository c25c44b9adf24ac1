"""What a session has chosen. The only module that reads or writes `st.session_state`.

Choices live in widgets that are bound to the address, so that a link restores them; only what
cannot be in an address (models that were uploaded) is kept beside them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import streamlit as st

from merging.results import requests
from merging.schema.cards import matching, paths, zoo
from pages.shared import address

UPLOADED = "your checkpoints"
DEFAULT_METHODS = ("weight", "activation")

Found = TypeVar("Found")


def begin_frame() -> None:
    """Note that the frame is being drawn around a page."""
    st.session_state["_framed"] = True


def end_frame() -> None:
    """Note that the frame is done."""
    st.session_state["_framed"] = False


def is_framed() -> bool:
    """Say whether the frame is being drawn around the page that runs."""
    return bool(st.session_state.get("_framed"))


def owner() -> str:
    """Return what jobs of this session are known by, to the compute service alone."""
    return str(st.session_state.setdefault("_owner", secrets.token_hex(8)))


def asked() -> address.Address:
    """Return what the address said when the session began.

    Streamlit's own binding would put the labels of the options there, and follows a seed of
    infinity; links carry names instead.
    """
    if "_address" not in st.session_state:
        usual = address.Address(zoo.list_pairs()[0], DEFAULT_METHODS, 0)
        st.session_state["_address"] = address.read(
            st.query_params, zoo.list_pairs(), list(matching.METHOD_CARDS), usual
        )
    found: address.Address = st.session_state["_address"]
    return found


def write_address() -> None:
    """Put the pair, the methods and the seed into the address, so that it can be passed on."""
    st.query_params["pair"] = pair_name()
    st.query_params["methods"] = chosen_methods()
    if seed():
        st.query_params["seed"] = str(seed())
    else:
        st.query_params.pop("seed", None)


def pair_names() -> list[str]:
    """List what can be looked at: the bundled pairs, and what this session uploaded."""
    own = [UPLOADED] if "_uploaded" in st.session_state else []
    return [*own, *zoo.list_pairs()]


def pair_name() -> str:
    """Return the chosen pair's name."""
    chosen = st.session_state.get("pair", asked().pair)
    return chosen if chosen in pair_names() else zoo.list_pairs()[0]


def is_uploaded() -> bool:
    """Say whether the models that are looked at were uploaded."""
    return pair_name() == UPLOADED


def pair_title(name: str) -> str:
    """Return what screens call a pair."""
    return "Your checkpoints" if name == UPLOADED else str(zoo.read_card(name)["title"])


def subject_title(looked_at: requests.Subject) -> str:
    """Return what screens call a result's models, which may not be the chosen pair."""
    chosen = ", permutation spec by hand" if looked_at.spec else ""
    for name, card in zoo.read_cards().items():
        if (
            card["fingerprint_a"] == looked_at.model_a
            and card["fingerprint_b"] == looked_at.model_b
        ):
            return pair_title(name) + chosen
    return pair_title(UPLOADED) + chosen


def subject() -> requests.Subject:
    """Return the two models that are looked at, with their data."""
    name = pair_name()
    found: requests.Subject = (
        st.session_state["_uploaded"] if name == UPLOADED else requests.bundled_subject(name)
    )
    return replace(found, spec=_specs().get(found.config, ""))


def prefix(letter: str) -> str:
    """Return what was cut off the names of model `"a"` or `"b"`; nothing of bundled ones."""
    prefixes: dict[str, str] = st.session_state.get("_prefixes", {})
    return prefixes.get(letter, "") if is_uploaded() else ""


def choose_spec(config: str, fingerprint: str) -> None:
    """Use a permutation spec for an architecture on all pages; the derived one if it is empty."""
    _specs()[config] = fingerprint


def _specs() -> dict[str, str]:
    specs: dict[str, str] = st.session_state.setdefault("_specs", {})
    return specs


def bring(subject: requests.Subject, prefixes: Mapping[str, str]) -> None:
    """Look at models that were uploaded. Call before the pair's widget is drawn (a callback).

    Args:
        subject: The models.
        prefixes: What was cut off the names of `"a"` and `"b"`.
    """
    st.session_state["_uploaded"] = subject
    st.session_state["_prefixes"] = dict(prefixes)
    st.session_state["pair"] = UPLOADED


def note_statistics(config: str) -> None:
    """Remember that uploaded models of an architecture keep running statistics."""
    st.session_state.setdefault("_with_statistics", set()).add(config)


def has_statistics(config: str) -> bool:
    """Say whether models of an architecture that keep running statistics were uploaded."""
    return config in st.session_state.get("_with_statistics", ())


def chosen_methods() -> list[str]:
    """Return the names of the methods to compare, in the order of menus."""
    chosen = st.session_state.get("methods", asked().methods)
    return [name for name in matching.METHOD_CARDS if name in chosen]


def option_key(method: str, option: str) -> str:
    """Return the key of the widget of one option."""
    return f"align_{method}_{option}"


def alignment(method: str) -> requests.AlignmentRequest:
    """Ask for the alignment by one method, with the options and the seed that were chosen."""
    card = matching.find_card(method)
    return requests.alignment(subject(), method, _options(card), seed=seed())


def _options(card: matching.MethodCard) -> dict[str, Any]:
    """Return what the option widgets of a method or a kind of path say, where there are any."""
    options: dict[str, Any] = {}
    for field in fields(card.options):
        value = st.session_state.get(option_key(card.name, field.name))
        if value is not None:
            options[field.name] = value
    return options


def path(kind: str, aligned: requests.AlignmentRequest | None) -> requests.PathRequest:
    """Ask for a trained path, with the options and the seed that were chosen."""
    options = _options(paths.find_path_card(kind))
    return requests.path(subject(), aligned, kind, options, seed=seed())


def swag(
    plane: tuple[requests.Corner, ...], around: tuple[requests.Corner, ...], split: requests.Split
) -> requests.SwagRequest:
    """Ask for samples of SWAG, with the options and the seed that were chosen."""
    options = _options(paths.SWAG_CARD)
    return requests.swag(subject(), plane, around, options, seed=seed(), split=split)


def alignments() -> list[requests.AlignmentRequest]:
    """Ask for the alignments by all chosen methods."""
    return [alignment(method) for method in chosen_methods()]


def remember_shown(slot: str, found: Sequence[Found]) -> None:
    """Keep what a slot of a page shows, to be shown on while something newer is computed."""
    st.session_state[f"_shown_{slot}"] = list(found)


def last_shown(slot: str) -> list[Any]:
    """Return what a slot of a page showed last."""
    shown: list[Any] = st.session_state.get(f"_shown_{slot}", [])
    return shown


def want_files(*keys: str) -> None:
    """Note that a person asked for the files of some requests."""
    st.session_state["_wanted_files"] = keys


def wanted_files() -> tuple[str, ...]:
    """Return the keys of the requests whose files a person asked for last."""
    keys: tuple[str, ...] = st.session_state.get("_wanted_files", ())
    return keys


def seed() -> int:
    """Return the chosen seed."""
    return int(st.session_state.get("seed", asked().seed))


def value(key: str, default: Any = None) -> Any:
    """Return what a widget holds; the default before it was drawn first."""
    return st.session_state.get(key, default)
