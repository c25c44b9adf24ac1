"""The parts of the Merge page, each of which asks for what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from merging import requests, visualization, ways
from merging.fusion_records import MergedScore, Mixtures
from merging.regions import SimplexLoss
from merging.visualization import NamedScan, NamedScore
from pages.shared import charts, code, controls, jobs, merge_choices, shares, state, words
from pages.shared.merge_choice import Choice

Row = dict[str, Any]

_FILES = {"folder": "Zip file with model card and recipe", "weights": "Safetensors alone"}


def _rule_title(name: str) -> str:
    return ways.find_way(name).title


def _reference_title(name: str, choice: Choice) -> str:
    if name.startswith("model "):
        return choice.models[int(name.removeprefix("model "))]
    return requests.REFERENCE_TITLES[name]


def _scores(
    choice: Choice, wanted: Sequence[requests.FusionRequest], slot: str
) -> list[NamedScore]:
    """What is there of references and fused models."""
    asked: list[Any] = [requests.ReferencesRequest(choice.family), *wanted]
    rows: list[NamedScore] = []
    for found in jobs.follow(slot, asked):
        if isinstance(found.request, requests.FusionRequest):
            rows.append(NamedScore(_rule_title(found.request.rule), False, found.result))
        elif found.request.family == choice.family:
            titles = [_reference_title(score.name, choice) for score in found.result]
            pairs = zip(titles, found.result, strict=True)
            rows += [NamedScore(title, True, score) for title, score in pairs]
    return rows


def compare(choice: Choice, chosen: Sequence[str]) -> None:
    """All rules side by side on all tasks, and what they are compared with."""
    wanted = merge_choices.fusions(choice, chosen)
    rows = _scores(choice, wanted, "merge_scores")
    if not rows:
        return
    _headline(rows)
    charts.show(
        visualization.plot_rule_scores(rows, choice.tasks, **charts.look()),
        key="merge_grid",
        alt=visualization.describe_rule_scores(rows, choice.tasks),
    )
    counts = [task.examples for task in rows[0].score.tasks]
    source = [choice.title, f"{_counted(counts)} test examples", _tuning_words()]
    if choice.chosen_moments is not None:
        source.append(f"curvature: Adam's second moments × {choice.chosen_moments.scale:,.10g}")
    charts.source(*source)
    _order_words(choice)
    _width_words(choice)
    charts.table(_rows(rows, choice), key="merge_table")
    st.caption(
        "± is one standard error over the examples; two rules are compared on the same examples, "
        "so smaller differences can be real. ECE: mean gap between confidence and accuracy, "
        "15 bins. Differs from a parent: share of the examples that are answered otherwise."
    )
    notes = [f"{row.title}: {_notes(row.score)}." for row in rows if _notes(row.score)]
    if notes:
        st.caption(words.plain(" ".join(notes)))
    if any("heads" in row.score.notes for row in rows):
        st.caption(
            "Where every model keeps a head of its own, a task is answered by the heads of the "
            "models that were trained on it; several answer with the mean of their outputs."
        )
    code.offer(wanted, key="merge")


def _order_words(choice: Choice) -> None:
    """How the models were lined up, and how far matchings of two at a time disagree."""
    found = None if choice.order is None else jobs.read(choice.order)
    if choice.order is None or found is None:
        return
    kind = requests.ORDER_TITLES[choice.order.kind].lower()
    said = f"Lined up first ({kind}, {found.seconds:.1f} s)."
    if not np.isnan(found.pairwise_cycle_error):
        said += (
            f" Cycle error, the share of units that come back elsewhere after going round three "
            f"models: {found.pairwise_cycle_error:.0%} by matchings of two at a time, "
            f"{found.cycle_error:.0%} in this order."
        )
    st.caption(words.plain(said))


def _width_words(choice: Choice) -> None:
    """Whose widths the result has, where models differ in them."""
    if choice.family.configs:
        st.caption(
            f"The merged model is as wide as **{words.plain(choice.models[0])}**; the units of the "
            "others were carried to its own."
        )


def _counted(counts: Sequence[int]) -> str:
    if len(set(counts)) == 1 and len(counts) > 1:
        return f"{len(counts)} × {counts[0]:,}"
    return " + ".join(f"{count:,}" for count in counts)


def _tuning_words() -> str:
    if merge_choices.tuned():
        return "coefficients chosen on validation examples"
    return f"coefficients as set, α {state.value('merge_alpha', requests.FIRST_FACTOR):g}"


def _headline(rows: Sequence[NamedScore]) -> None:
    ordered = visualization.sorted_scores(rows)
    merged = [row for row in ordered if not row.reference]
    if not merged or visualization.is_by_loss(rows):
        return
    best = merged[0]
    by_title = {row.score.name: row for row in rows if row.reference}
    columns = st.columns(3)
    columns[0].metric(
        f"Best rule: {words.plain(best.title)}",
        f"{best.score.accuracy:.1%}",
        border=True,
        help=f"Mean accuracy over the tasks, ± {best.score.accuracy_error:.1%}.",
    )
    singles = [row for row in rows if row.score.name.startswith("model ")]
    alone = max((row.score.accuracy for row in singles), default=float("nan"))
    columns[1].metric("Best single model", f"{alone:.1%}", border=True)
    reference = by_title.get("joint") or by_title.get("probabilities")
    if reference is not None:
        columns[2].metric(
            words.plain(reference.title), f"{reference.score.accuracy:.1%}", border=True
        )


def _rows(rows: Sequence[NamedScore], choice: Choice) -> list[Row]:
    by_loss = visualization.is_by_loss(rows)
    table = []
    for named in visualization.sorted_scores(rows):
        score = named.score
        row: Row = {"Model": named.title}
        if not by_loss:
            row["Accuracy (%)"] = round(100 * score.accuracy, 2)
            row["± SE"] = round(100 * score.accuracy_error, 2)
        row["Loss"] = round(score.loss, 4)
        row["± SE of loss"] = round(score.loss_error, 4)
        row["ECE (%)"] = _percent(score.calibration_error)
        row["From the base"] = _known(score.base_distance)
        row["From the nearest parent"] = _known(min(score.distances, default=np.nan))
        row["Differs from a parent (%)"] = _percent(float(np.mean(score.disagreement or np.nan)))
        row["Gradient mismatch"] = _known(score.mismatch)
        row["Seconds"] = _known(score.seconds)
        row["kB"] = round(score.bytes / 1000)
        if not by_loss:
            for title, task in zip(choice.tasks, score.tasks, strict=True):
                row[f"{title} (%)"] = round(100 * task.accuracy, 2)
        table.append(row)
    empty = {name for name in table[0] if all(row[name] is None for row in table)}
    return [{k: v for k, v in row.items() if k not in empty} for row in table]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.4g}")


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else round(100 * float(value), 2)


def _notes(score: MergedScore) -> str:
    said = []
    for name, value in score.notes.items():
        shown = value
        if isinstance(value, float):
            shown = f"{value:.3g}"
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], str):
            shown = f"{len(value)} tensors"  # their names would say little, and there are many
        elif isinstance(value, (list, tuple)):
            shown = ", ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in value)
        said.append(f"{name} {shown}")
    return "; ".join(said)


def coefficients(choice: Choice, chosen: Sequence[str]) -> None:
    """Accuracy against one coefficient, on validation examples: how much tuning a rule needs."""
    split: Any = controls.segments(
        "Examples",
        ["validation", "test"],
        default="validation",
        format_func=str.capitalize,
        key="merge_scan_split",
        help="Choose on validation examples. Looking at the test examples here is for "
        "understanding; what is chosen on them is no longer measured by them.",
    )
    scans = []
    for rule in chosen:
        scan = requests.tuning(merge_choices.wanted(choice, rule))
        if scan is not None:
            scans.append(requests.on_split(scan, split))
    if not scans:
        st.info("None of the chosen rules has a coefficient that would have to be tuned.")
        return
    found = jobs.follow("merge_scans", scans)
    groups: dict[str, list[NamedScan]] = {}
    for f in found:
        named = NamedScan(_rule_title(f.request.fusion.rule), f.request.knob, f.result)
        groups.setdefault(f.request.knob, []).append(named)
    levels = _levels(choice, split)
    for knob, named_scans in groups.items():
        charts.show(
            visualization.plot_scans(named_scans, levels, **charts.look()),
            key=f"merge_scan_{knob}",
            alt=visualization.describe_scans(named_scans),
            rows=_scan_rows(named_scans),
        )
    if found:
        charts.source(choice.title, f"{found[0].result.split} examples", "the best value is ringed")


def _levels(choice: Choice, split: str) -> list[tuple[str, float]]:
    if split != "test":
        return []
    found = jobs.read(requests.ReferencesRequest(choice.family))
    wanted = {"joint", "base"}
    return [
        (requests.REFERENCE_TITLES[s.name], s.accuracy) for s in found or [] if s.name in wanted
    ]


def _scan_rows(scans: Sequence[NamedScan]) -> list[Row]:
    return [
        {
            "Rule": named.title,
            "Coefficient": named.knob,
            "Value": float(value),
            "Accuracy (%)": round(100 * float(accuracy.mean()), 2),
            "Loss": round(float(loss.mean()), 4),
        }
        for named in scans
        for value, accuracy, loss in zip(
            named.scan.values, named.scan.accuracy, named.scan.loss, strict=True
        )
    ]


def mixtures(choice: Choice) -> None:
    """Shares of the weighted mean by sliders."""
    if choice.family.configs:
        st.info("Models of different widths have no weighted mean.")
        return
    wanted = requests.MixturesRequest(choice.family, choice.order, choice.statistics)
    for found in jobs.follow("merge_mixtures", [wanted]):
        if found.request != wanted:
            continue
        result = found.result
        if len(choice.models) == 3:
            left, right = st.columns(2, gap="large")
            with left:
                shares.sliders(result, choice.models, choice.tasks, key="merge_shares")
            with right:
                _triangle(result, choice.models)
        else:
            shares.sliders(result, choice.models, choice.tasks, key="merge_shares")
        best = int(np.nanargmin(result.loss.mean(1)))
        mixed = ", ".join(
            f"{name} {share:.0%}"
            for name, share in zip(choice.models, result.shares[best], strict=True)
            if share
        )
        charts.source(
            choice.title,
            f"{len(result.shares):,} means computed, linear in between",
            f"{result.split} examples",
        )
        st.caption(f"Lowest mean loss of the grid: {words.plain(mixed)}.")


def _triangle(found: Mixtures, models: Sequence[str]) -> None:
    """The same grid as a picture: every point is a mean, the nearer a corner the more of it."""
    simplex = visualization.simplex_of_shares(found, models)
    charts.show(
        # In half a page's width it has to be drawn as for a phone.
        visualization.plot_simplex(simplex, dark=charts.dark(), compact=True),
        key="merge_triangle",
        alt=visualization.describe_simplex(simplex),
        rows=_share_rows(simplex),
    )
    st.caption("Mean loss over the tasks. The nearer to a corner, the larger that model's share.")


def _share_rows(simplex: SimplexLoss) -> list[Row]:
    return [
        {
            **{f"{n} (%)": round(100 * w) for n, w in zip(simplex.names, row, strict=True)},
            "Loss": round(float(loss), 4),
            "Accuracy (%)": round(100 * float(accuracy), 2),
        }
        for row, loss, accuracy in zip(
            simplex.weights.tolist(), simplex.loss, simplex.accuracy, strict=True
        )
    ]


def calibration(choice: Choice, chosen: Sequence[str]) -> None:
    """How far confidence can be trusted."""
    rows = _scores(choice, merge_choices.fusions(choice, chosen), "merge_calibration")
    known = [row for row in rows if row.score.tasks[0].counts]
    if not known:
        return
    ordered = visualization.sorted_scores(known)
    titles = [row.title for row in ordered]
    first = [row.title for row in ordered if not row.reference][:2]
    first += [row.title for row in ordered if row.score.name in ("joint", "probabilities")]
    picked = st.multiselect(
        "Models", titles, first[:4], max_selections=6, key="merge_calibration_models"
    )
    drawn = [row for row in ordered if row.title in picked]
    if not drawn:
        return
    charts.show(
        visualization.plot_reliability(drawn, **charts.look()),
        key="merge_reliability",
        alt=visualization.describe_reliability(drawn),
    )
    charts.source(choice.title, "all tasks' test examples together", "15 bins of equal width")


def cards(chosen: Sequence[str]) -> None:
    """What every rule is, what it assumes and when it fails."""
    for name in chosen:
        card = ways.find_way(name)
        with st.container(border=True):
            st.markdown(f"**{words.plain(card.title)}** · {words.plain(card.family)}")
            st.code(card.formula, language=None, wrap_lines=True)
            st.markdown(
                f"**Assumes:** {words.plain(card.assumes)}  \n**Fails:** {words.plain(card.fails)}"
            )
            st.caption(words.plain(card.paper))


def take_away(choice: Choice, chosen: Sequence[str]) -> None:
    """Merged models as files."""
    ready = {one.rule: one for one in merge_choices.fusions(choice, chosen)}
    if not ready:
        return
    rules = st.multiselect(
        "Merged by",
        list(ready),
        list(ready)[:1],
        format_func=_rule_title,
        # Among other rules the choice is another widget: in this one nothing would be left of it.
        key=f"merge_take_rules_{'_'.join(ready)}",
    )
    what: Any = controls.segments(
        "As",
        list(_FILES),
        default="folder",
        format_func=_FILES.__getitem__,
        key="merge_take_what",
    )
    if not rules:
        st.info("Choose at least one rule.", icon=":material/arrow_upward:")
        return
    _width_words(choice)
    prefix = choice.prefixes[0] if choice.prefixes else ""
    wanted = [requests.FusionExportRequest(ready[rule], what, prefix) for rule in rules]
    _make(wanted)
    code.offer(wanted, key="merge")


def _make(wanted: Sequence[requests.FusionExportRequest]) -> None:
    """Files that are there or asked for, and a button that asks for the others."""
    asked = state.wanted_files()
    missing = [one for one in wanted if one.key not in asked and jobs.read(one) is None]
    if missing:
        st.button(
            "Make the file" if len(missing) == 1 else f"Make {len(missing):d} files",
            key="merge_take_make",
            icon=":material/build:",
            on_click=state.want_files,
            args=tuple(one.key for one in wanted),
        )
    there = [one for one in wanted if one not in missing]
    for k, found in enumerate(jobs.follow("merge_take", there)):
        if found.request in there and found.complete:
            _hand_over(found.result, key=f"merge_take_file_{k}")


def _hand_over(file: requests.Download, *, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            words.plain(f"Download {file.name}"),
            file.data,
            file.name,
            key=key,
            icon=":material/download:",
            on_click="ignore",
        )
        st.caption(words.plain(" ".join(file.notes)), width="content")
