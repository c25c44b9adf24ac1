"""The choice of fusion rules and their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

import streamlit as st

from merging.results import requests
from merging.schema.cards.fusion import table
from pages.shared import jobs, option_widget, session, words
from pages.shared.merge.choice import Choice


def choose_rules(choice: Choice) -> list[str]:
    """Let a person choose the rules to compare; options are set in an expander."""
    lacking = {name: _lacking(name, choice) for name in table.RULE_CARDS}
    usable = [name for name, lack in lacking.items() if not lack]
    first = [name for name in requests.FIRST_RULES[choice.kind] if name in usable] or usable[:3]
    chosen = st.pills(
        "Rules",
        usable,
        selection_mode="multi",
        default=first,
        format_func=lambda name: words.plain(table.find_card(name).title),
        # Other models can be fused by other rules: their choice is another widget.
        key=f"merge_rules_{choice.kind}_{bool(choice.family.base)}_{choice.curvature}",
    )
    _say_lacking(lacking)
    if not chosen:
        st.info("Choose at least one rule.", icon=":material/arrow_upward:")
    ordered = [name for name in usable if name in chosen]
    if ordered:
        _options(ordered)
    return ordered


def _lacking(name: str, choice: Choice) -> str:
    """Say what a rule needs that these models do not have; empty if it can be used."""
    card = table.find_card(name)
    if card.family == "trajectory" and choice.kind != "run":
        return "needs the checkpoints of one run, in their order"
    return requests.lacking(card, choice.family, choice.chosen_moments)


def _say_lacking(lacking: Mapping[str, str]) -> None:
    """Say which rules these models cannot be merged by, and why."""
    by_words: dict[str, list[str]] = {}
    for name, lack in lacking.items():
        if lack:
            by_words.setdefault(lack, []).append(table.find_card(name).title)
    if not by_words:
        return
    count = sum(map(len, by_words.values()))
    label = "1 rule cannot be used here" if count == 1 else f"{count} rules cannot be used here"
    with st.expander(words.plain(label), icon=":material/block:"):
        for lack, titles in by_words.items():
            verb = lack if len(titles) == 1 else _plural(lack)
            st.caption(f"**{words.plain(', '.join(titles))}** {words.plain(verb)}.")


def _plural(lack: str) -> str:
    """Turn what is said of one rule into what is said of several."""
    verb, _, rest = lack.partition(" ")
    return f"{verb.removesuffix('s')} {rest}"


def _options(chosen: Sequence[str]) -> None:
    with st.expander("Options of the rules", icon=":material/tune:"):
        st.toggle(
            "Coefficients that are best on validation examples",
            value=True,
            key="merge_tuned",
            bind="query-params",
            help="Never chosen on the test examples that are reported. Off: the values set here.",
        )
        st.number_input(
            "Factor of every model, α",
            -2.0,
            2.0,
            requests.FIRST_FACTOR,
            0.05,
            key="merge_alpha",
            persist_state="session",
            disabled=tuned(),
            help="For task arithmetic, DARE, gradient matching and removing a task.",
        )
        with_options = [name for name in chosen if fields(table.find_card(name).options)]
        for row in range(0, len(with_options), 3):
            for column, name in zip(st.columns(3), with_options[row : row + 3], strict=False):
                with column:
                    st.markdown(f"**{words.plain(table.find_card(name).title)}**")
                    for option in fields(table.find_card(name).options):
                        option_widget.option_widget(option, key=f"merge_{name}_{option.name}")


def tuned() -> bool:
    """Say whether coefficients are chosen on validation examples."""
    return bool(session.value("merge_tuned", True))


def wanted(choice: Choice, rule: str) -> requests.FusionRequest:
    """Ask for the fusion by one rule, with the options that were set."""
    card = table.find_card(rule)
    options: dict[str, Any] = {}
    for option in fields(card.options):
        value = session.value(f"merge_{rule}_{option.name}")
        if value is not None:
            options[option.name] = value
    alpha = float(cast("float", session.value("merge_alpha", requests.FIRST_FACTOR)))
    weights = (alpha,) * len(choice.family.models) if card.weights == "scales" else ()
    return requests.fusion(
        choice.family,
        rule,
        options,
        weights=weights,
        order=choice.order,
        statistics=choice.statistics,
        seed=session.seed(),
        moments=choice.chosen_moments if card.needs_fishers else None,
    )


def fusions(choice: Choice, chosen: Sequence[str]) -> list[requests.FusionRequest]:
    """Ask for the fusions by all chosen rules, with their best coefficients if known."""
    asked = [wanted(choice, rule) for rule in chosen]
    if not tuned() or not choice.family.tasks:
        return asked
    scans = {one: scan for one in asked if (scan := requests.tuning(one)) is not None}
    found = {f.request: f for f in jobs.follow("merge_tuning", list(scans.values()))}
    ready = []
    for one in asked:
        if one not in scans:
            ready.append(one)
        elif (there := found.get(scans[one])) is not None and there.complete:
            ready.append(requests.tuned(one, there.result))
    return ready
