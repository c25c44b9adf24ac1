"""The parts of the Merge page, each of which asks for what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import streamlit as st

from merging import visualization
from merging.results import requests
from merging.schema.cards.fusion import table as fusion_table
from merging.schema.records.scores import MergedScore
from merging.visualization import NamedScore
from pages.shared import as_code, charts, jobs, session, words
from pages.shared.merge import rules as merge_rules
from pages.shared.merge.choice import Choice
from pages.shared.rows import Row, rounded

_FILES = {"folder": "Zip file with model card and recipe", "weights": "Safetensors alone"}


def rule_title(name: str) -> str:
    """Return what screens call a rule."""
    return fusion_table.find_card(name).title


def _reference_title(score: MergedScore, choice: Choice) -> str:
    if score.model_number is not None:
        return choice.models[score.model_number]
    return requests.REFERENCE_TITLES[score.name]


def scored(choice: Choice, wanted: Sequence[requests.FusionRequest], slot: str) -> list[NamedScore]:
    """Follow references and fused models, and name those that are there."""
    asked: list[Any] = [requests.ReferencesRequest(choice.family), *wanted]
    rows: list[NamedScore] = []
    for found in jobs.follow(slot, asked):
        if isinstance(found.request, requests.FusionRequest):
            rows.append(NamedScore(rule_title(found.request.rule), False, found.result))
        elif found.request.family == choice.family:
            titles = [_reference_title(score, choice) for score in found.result]
            pairs = zip(titles, found.result, strict=True)
            rows += [NamedScore(title, True, score) for title, score in pairs]
    return rows


def compare(choice: Choice, chosen: Sequence[str]) -> None:
    """Show all rules side by side on all tasks, and what they are compared with."""
    wanted = merge_rules.fusions(choice, chosen)
    rows = scored(choice, wanted, "merge_scores")
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
    width_words(choice)
    charts.table(_rows(rows, choice), key="merge_table")
    st.caption(
        "± is one standard error over the examples; two rules are compared on the same examples, "
        "so smaller differences can be real. ECE: mean gap between confidence and accuracy, "
        "15 bins. Differs from a parent: share of the examples that are answered differently."
    )
    notes = [f"{row.title}: {_notes(row.score)}." for row in rows if _notes(row.score)]
    if notes:
        st.caption(words.plain(" ".join(notes)))
    if any("heads" in row.score.notes for row in rows):
        st.caption(
            "Where every model keeps a head of its own, a task is answered by the heads of the "
            "models that were trained on it; several answer with the mean of their outputs."
        )
    as_code.offer(wanted, key="merge")


def _order_words(choice: Choice) -> None:
    """Say how the models were lined up, and how far matchings of two at a time disagree."""
    found = None if choice.order is None else jobs.read(choice.order)
    if choice.order is None or found is None:
        return
    kind = requests.ORDER_TITLES[choice.order.kind].lower()
    said = f"Aligned first ({kind}, {found.seconds:.1f} s)."
    if not np.isnan(found.pairwise_cycle_error):
        said += (
            f" Cycle error, the share of units that end up elsewhere after going round three "
            f"models: {found.pairwise_cycle_error:.0%} by matching two at a time, "
            f"{found.cycle_error:.0%} in this order."
        )
    st.caption(words.plain(said))


def width_words(choice: Choice) -> None:
    """Say whose widths the result has, where models differ in them."""
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
    if merge_rules.tuned():
        return "coefficients chosen on validation examples"
    return f"coefficients as set, α {session.value('merge_alpha', requests.FIRST_FACTOR):g}"


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
    singles = [row for row in rows if row.score.model_number is not None]
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
        row[f"Loss ({score.loss_unit})"] = round(score.loss, 4)
        row["± SE of loss"] = round(score.loss_error, 4)
        row["ECE (%)"] = rounded(100 * score.calibration_error, 2)
        row["From the base"] = _known(score.base_distance)
        row["From the nearest parent"] = _known(min(score.distances, default=np.nan))
        row["Differs from a parent (%)"] = rounded(
            100 * float(np.mean(score.disagreement or np.nan)), 2
        )
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
