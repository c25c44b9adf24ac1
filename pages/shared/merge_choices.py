"""What the Merge page merges: the models, their base and order, and the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, cast

import streamlit as st

from merging import cards, requests, ways
from pages.shared import controls, jobs, merge_uploads, state, words
from pages.shared.merge_choice import Choice

PAIR, OWN = "pair", "own"
_STATISTICS = {"merged": "Merged", "reset": "RESET"}
_CURVATURES = {"examples": "From examples", "optimizer": "From Adam's second moment"}


def choose() -> Choice | None:
    """Which models, with or without a base, as they are or lined up; None until there are any."""
    names = [*cards.list_families(), PAIR, OWN]
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    with left:
        name = st.selectbox(
            "What is merged", names, format_func=_title, key="merge_family", bind="query-params"
        )
    whole = merge_uploads.brought() if name == OWN else _whole(str(name))
    if whole is None:
        return None
    with right:
        members = _members(whole, str(name))
    if len(members) < 2:
        st.info("Choose at least two models.", icon=":material/arrow_upward:")
        return None
    return _with_curvature(_with_order(_with_widths(_some(whole, members))))


def _title(name: str) -> str:
    if name == PAIR:
        return f"The pair in the sidebar: {state.pair_title(state.pair_name())}"
    return "Your checkpoints" if name == OWN else str(cards.read_family_card(name)["title"])


def _whole(name: str) -> Choice:
    if name == PAIR:
        subject = state.subject()
        tasks = ("All examples",) if subject.data else ()
        family = requests.pair_family(subject)
        prefixes = (state.prefix("a"), state.prefix("b"))
        return Choice(_title(PAIR), "seeds", family, ("Model A", "Model B"), tasks, prefixes)
    card = cards.read_family_card(name)
    # A task is called as the model is that was trained on it.
    titles = {data["name"]: data["title"] for data in card["data"]}
    if card["kind"] == "tasks":
        titles |= {model["data"][0]: model["title"] for model in card["models"]}
    return Choice(
        card["title"],
        card["kind"],
        requests.bundled_family(name),
        tuple(model["title"] for model in card["models"]),
        tuple(titles[task] for task in card["tasks"]),
    )


def _members(whole: Choice, name: str) -> tuple[int, ...]:
    chosen = st.pills(
        "Models",
        range(len(whole.models)),
        selection_mode="multi",
        default=range(len(whole.models)),
        format_func=lambda k: words.plain(whole.models[k]),
        key=f"merge_members_{name}",
        wrap=True,
    )
    return tuple(sorted(chosen))


def _some(whole: Choice, members: tuple[int, ...]) -> Choice:
    titles = tuple(whole.models[k] for k in members)
    prefixes = tuple(whole.prefixes[k] for k in members if whole.prefixes)
    moments = None if whole.moments is None else whole.moments.of(members)
    return replace(
        whole,
        family=whole.family.of(members),
        models=titles,
        prefixes=prefixes,
        moments=moments,
    )


def _with_widths(choice: Choice) -> Choice:
    """Let a person say whose widths the result has, where models differ in them."""
    if not choice.family.configs:
        return choice
    everyone = range(len(choice.models))
    first = controls.segments(
        "The merged model is as wide as",
        everyone,
        default=0,
        format_func=lambda k: words.plain(choice.models[k]),
        key=f"merge_width_of_{len(everyone)}",
        wrap=True,
        help="These models differ in widths. Optimal transport carries the units of the others to "
        "those of this one.",
    )
    return _some(choice, (first, *(k for k in everyone if k != first)))


def _with_order(choice: Choice) -> Choice:
    family = choice.family
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if family.base and not st.toggle(
            "Use the base they came from",
            value=True,
            key="merge_base",
            help="Without it only rules that need no base are left.",
        ):
            family = family.without_base()
        order = None
        # A run keeps the order of its units, and other widths have no order in common.
        if not (family.base or family.configs or choice.kind == "run"):
            order = _order(family)
        statistics: Any = "merged"
        if family.tasks and controls.keeps_statistics(family.config):
            statistics = controls.segments(
                "Running statistics",
                ["merged", "reset"],
                default="reset",
                format_func=_STATISTICS.__getitem__,
                key="merge_statistics",
            )
    return replace(choice, family=family, order=order, statistics=statistics)


def _order(family: requests.Family) -> requests.OrderRequest | None:
    titles: dict[Any, str] = {"none": "As they are", **requests.ORDER_TITLES}
    kind = controls.segments(
        "Line the units up first",
        list(titles),
        default="merge many",
        format_func=lambda name: words.plain(titles[name]),
        key="merge_order",
        bind="query-params",
        help="Models without a common base differ in the order of their units.",
    )
    return None if kind == "none" else requests.OrderRequest(family, kind, state.seed())


def _with_curvature(choice: Choice) -> Choice:
    """Where curvature comes from; nothing is asked where there is nothing to choose."""
    moments = choice.moments
    if moments is None:
        return choice
    if not choice.family.base:
        moments = moments.without_base()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source: Any = controls.segments(
            "Curvature",
            [*(["examples"] if choice.family.tasks else []), "optimizer"],
            default="examples" if choice.family.tasks else "optimizer",
            format_func=_CURVATURES.__getitem__,
            key=f"merge_curvature_{bool(choice.family.tasks)}",
            help="For Fisher averaging and gradient matching. Adam remembers a mean of squared "
            "gradients of minibatches: other than curvature from examples it takes no time, and "
            "has all in it that training added, such as dropout.",
        )
        if source == "optimizer":
            scale = st.number_input(
                "Training examples × batch size",
                min_value=1.0,
                value=requests.Moments.scale,
                format="%.0f",
                key="merge_moment_scale",
                help="What the second moments are multiplied by, alike for all models. Only δ and "
                "what counts as flat are compared with it.",
            )
            moments = replace(moments, scale=float(scale))
    return replace(choice, moments=moments, curvature=source)


def choose_rules(choice: Choice) -> list[str]:
    """Names of the rules to compare; options are set in an expander."""
    lacking = {name: _lacking(name, choice) for name in ways.names()}
    usable = [name for name, lack in lacking.items() if not lack]
    first = [name for name in requests.FIRST_RULES[choice.kind] if name in usable] or usable[:3]
    chosen = st.pills(
        "Rules",
        usable,
        selection_mode="multi",
        default=first,
        format_func=lambda name: words.plain(ways.find_way(name).title),
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
    """What a rule needs and these models have not, in words; empty if it can be used."""
    card = ways.find_way(name)
    if card.family == "trajectory" and choice.kind != "run":
        return "needs the checkpoints of one run, in their order"
    return requests.lacking(card, choice.family, choice.chosen_moments)


def _say_lacking(lacking: Mapping[str, str]) -> None:
    """Which rules these models cannot be merged by, and why."""
    by_words: dict[str, list[str]] = {}
    for name, lack in lacking.items():
        if lack:
            by_words.setdefault(lack, []).append(ways.find_way(name).title)
    if not by_words:
        return
    count = sum(map(len, by_words.values()))
    label = "1 rule cannot be used here" if count == 1 else f"{count} rules cannot be used here"
    with st.expander(words.plain(label), icon=":material/block:"):
        for lack, titles in by_words.items():
            verb = lack if len(titles) == 1 else _plural(lack)
            st.caption(f"**{words.plain(', '.join(titles))}** {words.plain(verb)}.")


def _plural(lack: str) -> str:
    """What is said of one rule, said of several."""
    verb, _, rest = lack.partition(" ")
    return f"{verb.removesuffix('s')} {rest}"


def _options(chosen: Sequence[str]) -> None:
    with st.expander("Options of the rules", icon=":material/tune:"):
        st.toggle(
            "Coefficients that are best on validation examples",
            value=True,
            key="merge_tuned",
            bind="query-params",
            help="Never chosen on the test examples that are reported. Off: as set here.",
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
        with_options = [name for name in chosen if fields(ways.find_way(name).options)]
        for row in range(0, len(with_options), 3):
            for column, name in zip(st.columns(3), with_options[row : row + 3], strict=False):
                with column:
                    st.markdown(f"**{words.plain(ways.find_way(name).title)}**")
                    for option in fields(ways.find_way(name).options):
                        controls.option_widget(option, key=f"merge_{name}_{option.name}")


def tuned() -> bool:
    """Whether coefficients are chosen on validation examples."""
    return bool(state.value("merge_tuned", True))


def wanted(choice: Choice, rule: str) -> requests.FusionRequest:
    """The fusion by one rule, with the options that were set."""
    card = ways.find_way(rule)
    options: dict[str, Any] = {}
    for option in fields(card.options):
        value = state.value(f"merge_{rule}_{option.name}")
        if value is not None:
            options[option.name] = value
    alpha = float(cast("float", state.value("merge_alpha", requests.FIRST_FACTOR)))
    weights = (alpha,) * len(choice.family.models) if card.weights == "scales" else ()
    return requests.fusion(
        choice.family,
        rule,
        options,
        weights=weights,
        order=choice.order,
        statistics=choice.statistics,
        seed=state.seed(),
        moments=choice.chosen_moments if card.needs_fishers else None,
    )


def fusions(choice: Choice, chosen: Sequence[str]) -> list[requests.FusionRequest]:
    """The fusions by all chosen rules, with their best coefficients as far as they are known."""
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
