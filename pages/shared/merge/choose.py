"""What the Merge page merges: the models, their base and order, and the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from merging.results import requests
from merging.schema.cards import zoo
from merging.schema.cards.titles import NAIVE_TITLE
from pages.shared import option_widget, session, words
from pages.shared import statistics as shared_statistics
from pages.shared.merge import bring
from pages.shared.merge.choice import Choice

PAIR, OWN = "pair", "own"
_STATISTICS = {"merged": "Merged", "reset": "RESET"}
_CURVATURES = {"examples": "From examples", "optimizer": "From Adam's second moment"}


def choose() -> Choice | None:
    """Let a person choose the models and how they are aligned; None until there are any."""
    names = [*zoo.list_families(), PAIR, OWN]
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    with left:
        name = st.selectbox(
            "What is merged", names, format_func=_title, key="merge_family", bind="query-params"
        )
    whole = bring.uploaded() if name == OWN else _whole(str(name))
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
        return f"The pair in the sidebar: {session.pair_title(session.pair_name())}"
    return "Your checkpoints" if name == OWN else str(zoo.read_family_card(name)["title"])


def _whole(name: str) -> Choice:
    if name == PAIR:
        subject = session.subject()
        tasks = ("All examples",) if subject.data else ()
        family = requests.pair_family(subject)
        prefixes = (session.prefix("a"), session.prefix("b"))
        return Choice(
            title=_title(PAIR),
            kind="seeds",
            family=family,
            models=("Model A", "Model B"),
            tasks=tasks,
            prefixes=prefixes,
        )
    card = zoo.read_family_card(name)
    # A task is called as the model is that was trained on it.
    titles = {data["name"]: data["title"] for data in card["data"]}
    if card["kind"] == "tasks":
        titles |= {model["data"][0]: model["title"] for model in card["models"]}
    return Choice(
        title=card["title"],
        kind=card["kind"],
        family=requests.bundled_family(name),
        models=tuple(model["title"] for model in card["models"]),
        tasks=tuple(titles[task] for task in card["tasks"]),
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
    first = option_widget.segments(
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
        if family.tasks and shared_statistics.keeps_statistics(family.config):
            statistics = option_widget.segments(
                "Running statistics",
                ["merged", "reset"],
                default="reset",
                format_func=_STATISTICS.__getitem__,
                key="merge_statistics",
            )
    return replace(choice, family=family, order=order, statistics=statistics)


def _order(family: requests.Family) -> requests.OrderRequest | None:
    titles: dict[Any, str] = {"none": NAIVE_TITLE, **requests.ORDER_TITLES}
    kind = option_widget.segments(
        "Align the units first",
        list(titles),
        default="merge many",
        format_func=lambda name: words.plain(titles[name]),
        key="merge_order",
        bind="query-params",
        help="Models without a common base differ in the order of their units.",
    )
    return None if kind == "none" else requests.OrderRequest(family, kind, session.seed())


def _with_curvature(choice: Choice) -> Choice:
    """Let a person choose where curvature comes from, if there is a choice."""
    moments = choice.moments
    if moments is None:
        return choice
    if not choice.family.base:
        moments = moments.without_base()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source: Any = option_widget.segments(
            "Curvature",
            [*(["examples"] if choice.family.tasks else []), "optimizer"],
            default="examples" if choice.family.tasks else "optimizer",
            format_func=_CURVATURES.__getitem__,
            key=f"merge_curvature_{bool(choice.family.tasks)}",
            help="For Fisher averaging and gradient matching. Adam keeps a running mean of squared "
            "gradients of minibatches. Unlike curvature from examples it takes no time, and it "
            "includes all that training added, such as dropout.",
        )
        if source == "optimizer":
            scale = st.number_input(
                "Training examples × batch size",
                min_value=1.0,
                value=requests.Moments.scale,
                format="%.0f",
                key="merge_moment_scale",
                help="The second moments of all models are multiplied by this number. It matters "
                "only beside δ, and for which entries count as flat.",
            )
            moments = replace(moments, scale=float(scale))
    return replace(choice, moments=moments, curvature=source)
