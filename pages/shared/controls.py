"""Controls that several pages share, and the choices that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from typing import Any, Literal, cast

import streamlit as st

from merging import methods, paths, requests
from merging.records import Baseline, GroupUnits, Metric
from pages.shared import jobs, state, words

STATISTICS = {
    "interpolated": "As interpolated",
    "reset": "RESET",
    "repair": "REPAIR",
    "rescale": "RESCALE",
}
BASELINES = {"endpoints-mean": "mean of the end points", "linear": "line between the end points"}
QUANTITIES = {
    "distance": "L2 distance",
    "cosine": "Cosine",
    "barrier": "Barrier of the layer alone",
    "variance": "Variance half-way",
}


def segments(label: str, options: Sequence[Any], *, default: Any, **given: Any) -> Any:
    """One of some options that are side by side: always one of them, whatever an address says.

    Args:
        label: What is chosen.
        options: The options.
        default: The one that is chosen first.
        given: More of Streamlit's own arguments.

    Returns:
        The chosen option.
    """
    chosen = st.segmented_control(
        words.plain(label), options, default=default, required=True, **given
    )
    return default if chosen is None else chosen  # `?key=` empties even what is required


def method_options() -> None:
    """Options of the chosen methods, from their cards."""
    chosen = [methods.METHOD_CARDS[name] for name in state.chosen_methods()]
    if not chosen:
        return
    with st.expander("Options", icon=":material/tune:"):
        for column, card in zip(st.columns(len(chosen)), chosen, strict=True):
            with column:
                st.markdown(f"**{words.plain(card.title)}**")
                st.caption(words.plain(f"{card.about} {card.reference}"))
                for option in fields(card.options):
                    option_widget(option, key=state.option_key(card.name, option.name))


def option_widget(
    option: Field[Any], *, key: str, width: int | Literal["stretch"] = "stretch"
) -> None:
    """A widget for one option of a method or a rule, made of the option's own metadata."""
    meta = option.metadata
    if "choices" in meta:
        choices = list(meta["choices"])
        st.selectbox(
            words.plain(meta["label"]),
            choices,
            choices.index(option.default),
            key=key,
            persist_state="session",
        )
        return
    default: Any = option.default
    kind: Any = type(default)
    st.number_input(
        words.plain(meta["label"]),
        kind(meta["min"]),
        kind(meta["max"]),
        default,
        format=None if kind is int else "%g",
        key=key,
        persist_state="session",
        width=width,
    )


@dataclass(frozen=True)
class CurveChoices:
    """What the Interpolate page shows."""

    splits: tuple[requests.Split, ...]
    statistics: requests.Statistics
    baseline: Baseline
    overshoot: float
    log_loss: bool
    path: str


def curve_choices() -> CurveChoices:
    """Splits, statistics, barrier definition, overshoot, scale and trained paths."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        splits = st.pills(
            "Examples",
            ["test", "train"],
            selection_mode="multi",
            default=["test"],
            format_func=str.capitalize,
            key="interpolate_splits",
            bind="query-params",
        )
        statistics = statistics_choice(list(STATISTICS), key="interpolate_statistics")
        baseline = st.selectbox(
            "Barrier above the",
            list(BASELINES),
            format_func=BASELINES.__getitem__,
            key="interpolate_baseline",
            bind="query-params",
            width=240,
        )
        beyond = st.toggle("Beyond both models", key="interpolate_beyond", bind="query-params")
        log_loss = st.toggle("Log scale", key="interpolate_log", bind="query-params")
        path = path_choice(["none", *paths.PATH_CARDS], key="interpolate_path")
    if path != "none":
        _path_options(path)
    return CurveChoices(
        tuple(cast("list[requests.Split]", splits or ["test"])),
        statistics,
        cast("Baseline", baseline),
        0.25 if beyond else 0.0,
        log_loss,
        path,
    )


def path_choice(options: Sequence[str], *, key: str) -> str:
    """Which kind of path is trained, if any."""
    titles = {"none": "None"} | {name: card.title for name, card in paths.PATH_CARDS.items()}
    chosen = segments(
        "Trained path",
        options,
        default=options[0],
        format_func=lambda name: words.plain(titles[name]),
        key=key,
        bind="query-params",
        help=words.plain(" ".join(f"{c.title}: {c.about}" for c in paths.PATH_CARDS.values()))
        + " Trained on the training examples, before and after alignment.",
    )
    return str(chosen)


def _path_options(kind: str) -> None:
    """Options of a kind of path, or of SWAG, from its card."""
    card = paths.SWAG_CARD if kind == paths.SWAG_CARD.name else paths.PATH_CARDS[kind]
    with st.expander(f"Options of {words.plain(card.title)}", icon=":material/tune:"):
        st.caption(words.plain(f"{card.about} {card.reference}"))
        with st.container(horizontal=True):
            for option in fields(card.options):
                option_widget(option, key=state.option_key(card.name, option.name), width=170)


def statistics_choice(options: Sequence[str], *, key: str) -> Any:
    """What is done about the statistics of hidden units."""
    return segments(
        "Statistics of hidden units",
        options,
        default="interpolated",
        format_func=STATISTICS.__getitem__,
        key=key,
        bind="query-params",
        help=(
            "RESET re-estimates the running statistics of BatchNorm on "
            f"{requests.SHOWN_EXAMPLES:,} training examples; REPAIR gives hidden units the mean "
            "and deviation of their parents; RESCALE the deviation only."
        ),
    )


# Bends lie close to the line: a window with wider margins would show mostly what is far from it.
_PATH_MARGIN = 0.1
SurfaceKind = Literal["aligned", "path", "three", "random", "simplex"]
KINDS = {
    "aligned": "A, B and the aligned B",
    "path": "Trained path",
    "three": "Any three models",
    "random": "Random directions",
    "simplex": "Mixtures",
}


@dataclass(frozen=True)
class SurfaceChoices:
    """What the Landscape page shows."""

    kind: SurfaceKind
    points: tuple[str, ...]
    level: int
    metric: Metric
    split: requests.Split
    statistics: Literal["interpolated", "reset"]
    path: str = "bezier"
    samples: bool = False


def surface_choices() -> SurfaceChoices:
    """Plane, resolution, quantity, examples, statistics, the path, and whether to sample."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = segments(
            "Plane",
            list(KINDS),
            default="aligned",
            format_func=KINDS.__getitem__,
            key="landscape_plane",
            wrap=True,
            bind="query-params",
        )
        side = st.select_slider(
            "Points per side",
            requests.LEVEL_SIDES,
            33,
            key="landscape_side",
            bind="query-params",
            width=180,
        )
        metric = segments(
            "Colour",
            ["loss", "accuracy"],
            default="loss",
            format_func=str.capitalize,
            key="landscape_metric",
            bind="query-params",
        )
        split = segments(
            "Examples",
            ["test", "train"],
            default="test",
            format_func=str.capitalize,
            key="landscape_split",
            bind="query-params",
        )
        statistics = "interpolated"
        if keeps_statistics():
            statistics = statistics_choice(["interpolated", "reset"], key="landscape_statistics")
        path = "bezier"
        if kind == "path":
            path = path_choice(list(paths.PATH_CARDS), key="landscape_path")
        samples = kind in ("aligned", "path", "three") and st.toggle(
            "SWAG samples",
            key="landscape_swag",
            bind="query-params",
            help=f"{words.plain(paths.SWAG_CARD.about)} Drawn where they project to on the plane.",
        )
    if kind in ("path", "simplex"):
        st.caption("Options of paths are set on the Interpolate page, and hold here too.")
    if samples:
        _path_options(paths.SWAG_CARD.name)
    points = _plane_points(kind)
    return SurfaceChoices(
        cast("SurfaceKind", kind),
        points,
        requests.LEVEL_SIDES.index(side),
        cast("Metric", metric),
        cast("requests.Split", split),
        cast("Literal['interpolated', 'reset']", statistics),
        path,
        samples,
    )


def keeps_statistics(config: str = "") -> bool:
    """Whether models keep running statistics (BatchNorm), as far as is known.

    Args:
        config: Their architecture; that of the chosen pair unless given.

    Returns:
        Of models that this session brought, whether their files hold such statistics; of others,
        whether their symmetry says so, and False while it was not looked at.
    """
    wanted = config or state.subject().config
    if state.has_statistics(wanted):
        return True
    summary = jobs.read(requests.SymmetryRequest(wanted))
    return summary is not None and summary.keeps_statistics


def _plane_points(kind: str) -> tuple[str, ...]:
    titles = {"a": "Model A", "b": "Model B"}
    for method in state.chosen_methods():
        titles[method] = f"π(B), {methods.METHOD_CARDS[method].title.lower()}"
    names = list(titles)
    if kind == "random":
        around = st.selectbox(
            "Around", names, format_func=titles.__getitem__, key="landscape_around", width=320
        )
        return (str(around),)
    if kind == "simplex":
        bends = {f"{kind} {m}": f"bend of {title}" for kind, m, title in _bends()}
        titles |= bends
        chosen = st.multiselect(
            "Mix these",
            list(titles),
            names[:1] + names[2:4] if len(names) > 3 else names[:3],
            format_func=titles.__getitem__,
            max_selections=4,
            key="landscape_mix",
        )
        if len(chosen) < 3:
            st.info("Choose three or four models to mix.", icon=":material/arrow_upward:")
            return ()
        return tuple(chosen)
    if kind == "three":
        chosen = st.multiselect(
            "Through these three",
            names,
            names[:3],
            format_func=titles.__getitem__,
            max_selections=3,
            key="landscape_three",
        )
        if len(chosen) < 3:
            st.info("Choose three models for the plane.", icon=":material/arrow_upward:")
            return ()
        return tuple(chosen)
    return ("a", "b")


def _bends() -> list[tuple[str, str, str]]:
    """Bends of paths that may be mixed: kind, method and words."""
    return [
        (kind, method, f"{card.title}, {_alignment_words(method)}")
        for kind, card in paths.PATH_CARDS.items()
        if kind != "neb"
        for method in ("naive", *state.chosen_methods())
    ]


def _alignment_words(method: str) -> str:
    return "not aligned" if method == "naive" else methods.METHOD_CARDS[method].title.lower()


def surface_requests(choice: SurfaceChoices) -> list[requests.SurfaceRequest]:
    """The surfaces that a choice asks for.

    One per method for the plane of A, B and pi(B); for that of A, B and a bend, one before
    alignment and one per method.
    """
    if choice.kind == "simplex":
        return []
    models: dict[str, Any] = {"a": "a", "b": "b"}
    models.update((a.method, a) for a in state.alignments())
    aligned = [model for name, model in models.items() if name not in ("a", "b")]
    planes: list[tuple[Any, ...]] = []
    if choice.kind == "aligned":
        planes = [("a", "b", model) for model in aligned]
    elif choice.kind == "path":
        wanted = [state.path(choice.path, a) for a in (None, *state.alignments())]
        planes = [("a", path.end, path) for path in wanted]
    elif choice.points:
        planes = [tuple(models[name] for name in choice.points)]
    shown: tuple[Any, ...] = ()
    if choice.kind == "three" and planes:
        shown = tuple(model for model in models.values() if model not in planes[0])
    return [
        requests.SurfaceRequest(
            state.subject(),
            plane,
            shown,
            level=choice.level,
            split=choice.split,
            statistics=choice.statistics,
            margin=_PATH_MARGIN if choice.kind == "path" else 0.25,
            seed=state.seed() if choice.kind == "random" else 0,
        )
        for plane in planes
    ]


def swag_requests(
    choice: SurfaceChoices, surfaces: Sequence[requests.SurfaceRequest]
) -> list[requests.SwagRequest]:
    """Samples around both ends of every plane, if they were asked for."""
    if not choice.samples:
        return []
    found = []
    for surface in surfaces:
        models = [p for p in surface.points if not isinstance(p, requests.PathRequest)]
        found.append(state.swag(surface.points, (models[0], models[-1]), choice.split))
    return found


def simplex_requests(choice: SurfaceChoices) -> list[requests.SimplexRequest]:
    """The mixtures that a choice asks for."""
    if choice.kind != "simplex" or not choice.points:
        return []
    points = tuple(_corner(name) for name in choice.points)
    level = min(choice.level, len(requests.SIMPLEX_SIDES) - 1 - (len(points) > 3))
    return [
        requests.SimplexRequest(state.subject(), points, level, choice.split, choice.statistics)
    ]


def _corner(name: str) -> requests.Corner:
    if name in ("a", "b"):
        return cast("Literal['a', 'b']", name)
    kind, _, method = name.partition(" ")
    if not method:
        return state.alignment(kind)
    return state.path(kind, None if method == "naive" else state.alignment(method))


def one_alignment(*, key: str) -> requests.AlignmentRequest | None:
    """One of the chosen methods, or None if none is chosen."""
    chosen = state.chosen_methods()
    if not chosen:
        return None
    method = segments(
        "Method",
        chosen,
        default=chosen[0],
        format_func=lambda name: words.plain(methods.METHOD_CARDS[name].title),
        key=f"{key}_method",
    )
    return state.alignment(method)


def one_group(units: list[GroupUnits], *, key: str) -> GroupUnits:
    """One permutation group."""
    chosen = st.selectbox(
        "Permutation group",
        range(len(units)),
        format_func=lambda k: f"{units[k].group} · {_how_many(units[k])}",
        key=f"{key}_group",
        help="Named after the first parameter axis that it occurs on. Of a group that is nested in "
        "another, such as the units of a head, all units are shown side by side: 4 × 16 are four "
        "heads of 16 units, each with an order of its own.",
    )
    return units[chosen or 0]


def _how_many(units: GroupUnits) -> str:
    size = units.permutation.size
    times = "" if units.run == size else f"{size // units.run} × "
    return f"{times}{units.run} units"


def unit_order(*, key: str) -> Literal["index", "cycle", "match"]:
    """How the dots are sorted."""
    labels = {"index": "By index", "match": "By match", "cycle": "By cycle"}
    chosen = segments(
        "Sort the units",
        list(labels),
        default="index",
        format_func=lambda name: words.plain(labels[name]),
        key=f"{key}_order",
        bind="query-params",
    )
    return cast("Literal['index', 'cycle', 'match']", chosen)


def layer_quantity(*, key: str) -> Any:
    """What is compared layer by layer."""
    return segments(
        "Compare",
        list(QUANTITIES),
        default="distance",
        format_func=QUANTITIES.__getitem__,
        key=f"{key}_quantity",
        bind="query-params",
    )
