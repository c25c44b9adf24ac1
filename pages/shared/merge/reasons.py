"""Why merges of a family are as good as they are: the last part of the Merge page."""

from __future__ import annotations

import streamlit as st

from merging import visualization
from merging.results import requests
from merging.schema.cards.fusion import table
from merging.schema.records.explanations import Removal
from merging.visualization import NamedScan
from pages.shared import charts, jobs, session, words
from pages.shared.merge.choice import Choice
from pages.shared.rows import Row, rounded


def reasons(choice: Choice) -> None:
    """Show gradient mismatch, the formula behind several rules, task vectors and errors."""
    if not choice.family.base:
        st.info("These measures compare steps from a base, and these models have none.")
        return
    known = min(choice.family.trained_on, default=-1) >= 0
    formula = "gradient_matching" in requests.usable_rules(choice.family, choice.chosen_moments)
    if known:
        _mismatch(choice)
    if known and formula:
        _switches(choice)
    _vectors(choice)
    if known and formula:
        _weights(choice)
        if choice.family.joint:
            _errors(choice)
            _removal(choice)


def _mismatch(choice: Choice) -> None:
    st.subheader("Gradient mismatch and error", anchor=False)
    st.caption(
        "At the merged model, the gradients of all tasks differ from those at the models it was "
        "made from. The more they differ, the farther the merge is from training on all tasks."
    )
    scans = requests.mismatch_scans(choice.family, choice.statistics, choice.chosen_moments)
    found = jobs.follow("merge_mismatch", scans)
    named = [
        NamedScan(table.find_card(f.request.fusion.rule).title, f.request.knob, f.result)
        for f in found
    ]
    if not named:
        return
    charts.show(
        visualization.plot_mismatch(named, **charts.look()),
        key="merge_mismatch_points",
        alt=visualization.describe_mismatch(named),
        rows=_mismatch_rows(named),
    )
    charts.source(
        choice.title,
        f"rank correlation {visualization.rank_correlation(named):.2f}",
        "test error; gradients on training examples",
        "coefficients from 0.1 to 1 (TIES: 0.2 to 2)",
    )


def _mismatch_rows(scans: list[NamedScan]) -> list[Row]:
    return [
        {
            "Rule": named.title,
            "Coefficient": float(value),
            "Mismatch": float(mismatch),
            "Test error (%)": rounded(100 - 100 * float(accuracy.mean()), 2),
            f"Test loss ({named.scan.loss_unit})": round(float(loss.mean()), 4),
        }
        for named in scans
        for value, mismatch, accuracy, loss in zip(
            named.scan.values,
            named.scan.mismatch,
            named.scan.accuracy,
            named.scan.loss,
            strict=True,
        )
    ]


def _switches(choice: Choice) -> None:
    st.subheader("One formula, several rules", anchor=False)
    st.code(table.find_card("gradient_matching").formula, language=None, wrap_lines=True)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        h0 = st.toggle("Curvature of the base, H₀", value=True, key="merge_switch_h0")
        ht = st.toggle("Curvature of the tasks, Hₜ", value=True, key="merge_switch_ht")
        mean = st.toggle("α = 1 / T", value=False, key="merge_switch_mean")
        delta = st.select_slider(
            "Prior δ",
            [requests.LEAST_PRIOR, 1e-6, 1e-3, 0.1, 1.0, 10.0, 1000.0],
            requests.LEAST_PRIOR,
            format_func=lambda value: f"{value:g}",
            key="merge_switch_delta",
            width=220,
        )
    wanted = requests.switched(
        choice.family,
        base_curvature=h0,
        task_curvature=ht,
        mean=mean,
        delta=delta,
        moments=choice.chosen_moments,
    )
    name = _name(h0, ht, mean)
    for found in jobs.follow("merge_switched", [wanted]):
        if found.request == wanted:
            left, right = st.columns(2)
            score = found.result
            left.metric(
                words.plain(name), f"{score.accuracy:.1%}", border=True, help="Mean test accuracy"
            )
            right.metric("Gradient mismatch", words.plain(_length(score.mismatch)), border=True)
    st.caption(
        "Without Hₜ the weights of all entries are α: task arithmetic, and with α = 1 / T the "
        "mean. Without H₀ (and a small prior) the base cancels out: Fisher averaging. A large "
        "prior leads from gradient matching to task arithmetic."
    )


def _length(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _name(h0: bool, ht: bool, mean: bool) -> str:
    if not ht:
        return "The mean" if mean else "Task arithmetic, α = 1"
    kind = "Gradient matching" if h0 else "Fisher averaging"
    return f"{kind}, α = {'1 / T' if mean else '1'}"


def _vectors(choice: Choice) -> None:
    st.subheader("Task vectors", anchor=False)
    for found in jobs.follow("merge_vectors", [requests.TaskVectorsRequest(choice.family)]):
        if found.request.family != choice.family:
            continue
        result = found.result
        charts.show(
            visualization.plot_task_vectors(result, choice.models, **charts.look()),
            key="merge_vectors_grids",
            alt=visualization.describe_task_vectors(result, choice.models),
        )
        charts.show(
            visualization.plot_contributions(result, choice.models, **charts.look()),
            key="merge_vectors_tensors",
            alt=visualization.describe_contributions(result, choice.models),
        )
        charts.source(
            choice.title, f"{result.any_conflict:.0%} of changed entries change in both directions"
        )


def _weights(choice: Choice) -> None:
    st.subheader("Weights of single entries in gradient matching", anchor=False)
    matched = requests.fusion(choice.family, "gradient_matching", moments=choice.chosen_moments)
    wanted = requests.ImpliedWeightsRequest(matched)
    for found in jobs.follow("merge_implied", [wanted]):
        if found.request == wanted:
            charts.show(
                visualization.plot_implied_weights(found.result, choice.models, **charts.look()),
                key="merge_implied_lines",
                alt=visualization.describe_implied_weights(found.result, choice.models),
            )
            charts.source(choice.title, "α = 1, δ = 1e-12", "weight 1 is task arithmetic's")


def _errors(choice: Choice) -> None:
    st.subheader("What sets merges apart from the joint model", anchor=False)
    wanted = requests.ErrorsRequest(requests.fusion(choice.family, "gradient_matching"))
    for found in jobs.follow("merge_errors", [wanted]):
        if found.request == wanted:
            charts.show(
                visualization.plot_errors(found.result, **charts.look()),
                key="merge_errors_dots",
                alt=visualization.describe_errors(found.result),
                rows=[vars(row) for row in found.result],
            )
            charts.source(
                choice.title, f"α = 1, prior {requests.PRIOR_PRECISION:g}", "Eq. 10 by tensor"
            )
            st.caption(
                "Measured: the length of the difference. Predicted: of the term that gradient "
                "mismatch gives; the rest is there as the trained models are not exact minima. "
                "Bound: the triangle inequality over the tasks."
            )


def _removal(choice: Choice) -> None:
    st.subheader("Taking a task out again", anchor=False)
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        removed = st.selectbox(
            "Task",
            range(len(choice.tasks)),
            format_func=choice.tasks.__getitem__,
            key=f"merge_removed_{len(choice.tasks)}",
        )
    with right:
        delta = st.select_slider(
            "Prior δ",
            [requests.LEAST_PRIOR, 1e-3, 0.1, 1.0, 10.0],
            requests.PRIOR_PRECISION,
            format_func=lambda value: f"{value:g}",
            key="merge_removal_delta",
        )
    st.caption(
        "The model trained on all tasks is trained further on this one, and that change is "
        "subtracted: equally in all entries (task arithmetic), or by curvature (Eq. 13 and 14)."
    )
    wanted = requests.RemovalRequest(
        family=choice.family, removed=int(removed), delta=delta, seed=session.seed()
    )
    for found in jobs.follow("merge_removal", [wanted]):
        if found.request == wanted:
            name = choice.tasks[int(removed)]
            charts.table([_removal_row(row, name) for row in found.result], key="merge_removal")
            charts.source(choice.title, "test examples", f"{wanted.epochs} passes, Adam")


def _removal_row(row: Removal, task: str) -> Row:
    titles = {"joint": "Nothing removed", "negation": "Task arithmetic", "removal": "By curvature"}
    return {
        "Removed": titles[row.name] + (f", α = {row.scale:g}" if row.scale else ""),
        f"{task} (%)": round(100 * row.removed_accuracy, 2),
        "Other tasks (%)": round(100 * row.others_accuracy, 2),
        "Entries clamped (%)": rounded(100 * row.clamped, 2),
    }
