"""Results in words, numbers and rows, as pages show them beside the charts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import streamlit as st

from merging import cards, methods, paths, requests, visualization
from merging.records import Alignment, EndPoint, GroupUnits, LayerRow, SymmetrySummary
from pages.shared import charts, controls, state, words
from pages.shared.jobs import Found

Row = dict[str, Any]


def _method_of(request: Any) -> str:
    alignment = getattr(request, "alignment", None)
    return "naive" if alignment is None else str(alignment.method)


def _title(method: str) -> str:
    return "Naive" if method == "naive" else methods.METHOD_CARDS[method].title


def method_title(method: str) -> str:
    """What screens call a matching method, or none."""
    return _title(method)


def pair_card(name: str) -> None:
    """What a bundled pair is and how it was trained."""
    if name == state.BROUGHT:
        st.info("You are looking at your own checkpoints; choose a bundled pair in the sidebar.")
        return
    card = cards.read_card(name)
    st.markdown(f"**{words.plain(card['title'])}** — {words.plain(card['shows'])}")
    recipe = card["recipe"]
    made = "made by hand" if recipe is None else _recipe_words(recipe, card["seeds"])
    st.caption(
        f"{card['parameters']:,} parameters · {words.plain(card['data_title'])} · "
        f"{words.plain(made)} · fingerprints {words.code(card['fingerprint_a'][:12])} and "
        f"{words.code(card['fingerprint_b'][:12])}"
    )


def _recipe_words(recipe: Row, seeds: Sequence[int]) -> str:
    name = "Adam" if recipe["optimiser"] == "adam" else "SGD"
    schedule = ", one-cycle" if recipe["schedule"] == "one-cycle" else ""
    return (
        f"trained with {name}, step {recipe['lr']:g}{schedule}, {recipe['epochs']} epochs · "
        f"seeds {seeds[0]} and {seeds[1]}"
    )


def end_point_rows(ends: dict[str, list[EndPoint]]) -> list[Row]:
    """Loss and accuracy of both models, one row per model and split."""
    return [
        {
            "Model": model.upper(),
            "Split": point.split,
            "Examples": point.examples,
            f"Loss ({point.loss_unit})": round(point.loss, 4),
            "± SE": round(point.loss_standard_error, 4),
            "Accuracy (%)": round(100 * point.accuracy, 2),
        }
        for model, points in ends.items()
        for point in points
    ]


def symmetry(summary: SymmetrySummary) -> None:
    """The groups of a spec, what is fixed and why, and the certificate."""
    columns = st.columns(4)
    units = sum(group.units for group in summary.groups)
    columns[0].metric(
        "Equivalent orderings", words.plain(_orderings(summary.log10_orderings)), border=True
    )
    columns[1].metric("Groups · units", f"{len(summary.groups):d} · {units:,}", border=True)
    columns[2].metric("Parameters that move", f"{summary.share_moved:.2%}", border=True)
    change = _tiny(summary.max_relative_difference)
    columns[3].metric("Largest change of outputs", words.plain(change), border=True)
    if summary.certified:
        st.success(
            "Certified: all groups were permuted at random, and the outputs in float64 changed by "
            f"{words.plain(change)} (allowed: {summary.tolerance:.0e}).",
            icon=":material/verified:",
        )
    else:
        st.error("Not certified: permuting the units changes the outputs.", icon=":material/error:")
    if summary.unknown_operators:
        names = ", ".join(summary.unknown_operators)
        st.warning(f"No rule for these operators, whose axes are fixed: {words.plain(names)}.")
    rows = [
        {"Group": f"{k + 1} · {g.name}", "Units": g.units, "Occurs on": ", ".join(g.axes)}
        for k, g in enumerate(summary.groups)
    ]
    st.caption("Units of one group may change places among themselves, on all these axes at once.")
    charts.table(rows, key="models_groups")
    with st.expander("What is fixed, and why", icon=":material/lock:"):
        frozen = [
            {"Parameter": f.parameter, "Axis": f.axis, "Size": f.units, "Because": f.reason}
            for f in summary.frozen
        ]
        charts.table(frozen, key="models_frozen")


def _orderings(exponent: float) -> str:
    """A number of orderings from its logarithm: exact while it is small."""
    if exponent < 6:
        return f"{round(10**exponent):,}"
    digits = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + f"{exponent:.0f}".translate(digits)


def _tiny(share: float) -> str:
    """A share that is next to nothing, or nothing at all."""
    return f"{share:.0e}" if share else "0"


def fit(rows: list[requests.TensorRow], *, key: str) -> bool:
    """Say which tensors of two checkpoints fit, with a table; whether all of them do."""
    rows = sorted(rows, key=lambda row: (row.verdict != "does not fit", row.name))
    wrong = [row for row in rows if row.verdict == "does not fit"]
    equal = [row for row in rows if row.verdict == "equal values"]
    if wrong:
        st.error(
            words.plain(
                f"{len(wrong)} of {len(rows)} tensors do not fit, the first is {wrong[0].name!r}: "
                f"A has {wrong[0].shape_a}, B has {wrong[0].shape_b}. Both models must have one "
                "architecture, width and type."
            ),
            icon=":material/error:",
        )
    elif len(equal) == len(rows):
        st.warning("Both models are identical: there is nothing to align.", icon=":material/info:")
    else:
        st.caption(f"All {len(rows):,} tensors fit; {len(equal):,} have equal values.")
    with st.expander("Tensor by tensor", icon=":material/table:", expanded=bool(wrong)):
        table = [
            {"Tensor": r.name, "Model A": r.shape_a, "Model B": r.shape_b, "Verdict": r.verdict}
            for r in rows
        ]
        charts.table(table, key=key)
    return not wrong


def objective_rows(runs: Sequence[Alignment]) -> list[Row]:
    """The objective of every method at the start and after every sweep or step."""
    return [
        {"Method": _title(run.method), "Step": k, "Objective": value}
        for run in runs
        for k, value in enumerate(run.objective)
    ]


def curve_requests(
    alignments: Iterable[requests.AlignmentRequest],
) -> list[requests.CurveRequest]:
    """Curves on the test split, the naive one first, that the table of results is read from."""
    subject = state.subject()
    if not subject.data:
        return []  # without examples there are none
    return [requests.CurveRequest(subject, a) for a in (None, *alignments)]


def alignment_rows(finished: Sequence[Found[Alignment]], curves: Sequence[Found[Any]]) -> list[Row]:
    """What each method reached: barrier, midpoint, time, units moved, objective, certificate."""
    by_method = {_method_of(c.request): c.result for c in curves if c.complete}
    runs: list[tuple[str, Alignment | None]] = [("naive", None)]
    runs += [(f.request.method, f.result) for f in finished]
    rows = []
    unit = next((curve.loss_unit for curve in by_method.values()), "nats")
    for method, run in runs:
        curve = by_method.get(method)
        row: Row = {"Method": _title(method)}
        row[f"Barrier ({unit})"] = None if curve is None else round(curve.barrier(), 4)
        row["± SE"] = None if curve is None else round(curve.locate_barrier().standard_error, 4)
        row["Midpoint (%)"] = None if curve is None else round(100 * curve.at(0.5)[1], 2)
        if run is not None:
            row["Seconds"] = round(run.seconds, 2)
            row["Units moved"] = f"{run.units_moved:,} of {run.units:,}"
            row["Objective"] = float(f"{run.objective[-1]:.5g}")
            row["Restarts"] = _spread(run)
            row["Kept to"] = _tiny(run.max_relative_difference)
        rows.append(row)
    return rows


def _spread(run: Alignment) -> str:
    if len(run.restarts) < 2:
        return ""
    return f"{min(run.restarts):.5g} to {max(run.restarts):.5g}"


def named_curves(found: Sequence[Found[Any]]) -> list[visualization.NamedCurve]:
    """Curves with their methods, for drawing; those along paths with the paths' names."""
    return [_named_curve(f) for f in found]


def _named_curve(found: Found[Any]) -> visualization.NamedCurve:
    method = _method_of(found.request)
    if isinstance(found.request, requests.PathCurveRequest):
        label = path_title(found.request.path)
        return visualization.NamedCurve(method, found.result.curve, label, on_path=True)
    return visualization.NamedCurve(method, found.result)


def path_title(path: requests.PathRequest) -> str:
    """What screens call a path."""
    kind = paths.PATH_CARDS[path.kind].title
    if path.alignment is None:
        return f"{kind} path, naive"
    return f"{kind} path, {_title(path.alignment.method).lower()}"


def _named(curve: visualization.NamedCurve) -> str:
    return curve.title if curve.on_path else _title(curve.method)


def curve_rows(curves: Sequence[visualization.NamedCurve]) -> list[Row]:
    """Every value of every curve, in tidy form."""
    return [
        {
            "Method": _named(named),
            "Split": named.curve.split,
            "λ": round(float(lam), 4),
            f"Loss ({named.curve.loss_unit})": float(loss),
            "Loss SE": float(error),
            "Accuracy (%)": 100 * float(accuracy),
        }
        for named in curves
        for lam, loss, error, accuracy in zip(
            named.curve.lams,
            named.curve.loss,
            named.curve.standard_error(),
            named.curve.accuracy,
            strict=True,
        )
    ]


def barrier_rows(curves: Sequence[visualization.NamedCurve]) -> list[Row]:
    """Both definitions of the barrier, for loss and accuracy."""
    rows = []
    for named in curves:
        mean = named.curve.locate_barrier()
        rows.append({
            "Method": _named(named),
            "Split": named.curve.split,
            f"Loss barrier ({named.curve.loss_unit})": round(mean.value, 4),
            "± SE": round(mean.standard_error, 4),
            "at λ": round(mean.lam, 3),
            "Above the line": round(named.curve.barrier("linear"), 4),
            "Accuracy (points)": round(100 * named.curve.barrier("endpoints-mean", "accuracy"), 2),
            "Midpoint (%)": round(100 * named.curve.at(0.5)[1], 2),
        })
    return rows


def examples_words(found: Sequence[Found[Any]]) -> str:
    """On how many examples curves were evaluated."""
    curves = [named.curve for named in named_curves(found)]
    counts = {curve.split: curve.examples for curve in curves}
    return ", ".join(f"{n:,} {split} examples" for split, n in counts.items())


def named_surfaces(
    found: Sequence[Found[Any]], samples: Sequence[Found[Any]] = ()
) -> list[visualization.NamedSurface]:
    """Surfaces with at least one finished level, for drawing, with the samples on their planes."""
    named = []
    for f in found:
        if not f.result.evaluated.any():
            continue
        last = f.request.points[-1]
        if isinstance(last, requests.PathRequest):
            method = "naive" if last.alignment is None else last.alignment.method
            title = path_title(last)
        else:
            method = last.method if isinstance(last, requests.AlignmentRequest) else "naive"
            title = _title(method) if method != "naive" else "Models as they are"
        plane = next((s.result for s in samples if s.request.plane == f.request.points), ())
        named.append(visualization.NamedSurface(title, method, f.result, tuple(plane)))
    return named


def surface_rows(surfaces: Sequence[visualization.NamedSurface]) -> list[Row]:
    """The models on every plane: where they lie, and the loss of the nearest grid point."""
    rows = []
    for named in surfaces:
        surface = named.surface
        for point in surface.points:
            loss = surface.loss[
                np.abs(surface.y - point.y).argmin(), np.abs(surface.x - point.x).argmin()
            ]
            rows.append({
                "Plane": named.title,
                "Model": _model_words(point.name),
                "x": round(point.x / surface.scale, 4),
                "y": round(point.y / surface.scale, 4),
                "Distance off the plane": round(point.residual / surface.scale, 6),
                f"Loss near by ({surface.loss_unit})": _rounded(float(loss)),
            })
    return rows


def _model_words(name: str) -> str:
    if name in ("A", "B") or name.startswith("bend"):
        return name
    return f"π(B), {_title(name).lower()}"


def surface_facts(surfaces: Sequence[visualization.NamedSurface]) -> list[str]:
    """How many points and examples surfaces rest on, and what was not finite."""
    first = surfaces[0].surface
    done = sum(int(s.surface.evaluated.sum()) for s in surfaces)
    bad = sum(s.surface.non_finite for s in surfaces)
    facts = [f"{done:,} points", f"{first.examples:,} {first.split} examples"]
    facts.append(f"statistics {first.statistics}")
    return [*facts, f"{bad} points without a finite loss"] if bad else facts


def explain_blanks(surfaces: Sequence[visualization.NamedSurface]) -> None:
    """Say why networks of a slice have no loss, where running variances are the reason."""
    blank = any(named.surface.non_finite for named in surfaces)
    if blank and surfaces[0].surface.statistics == "interpolated" and controls.keeps_statistics():
        st.caption(
            "Crosses: networks without a finite loss. Between two models an interpolated running "
            "variance is positive; farther out it may fall below zero, and nothing is computed "
            "with it. RESET estimates the statistics anew at every point."
        )


def alignment_words(request: requests.AlignmentRequest) -> str:
    """A method with its options and seed."""
    options = json.loads(request.options)
    if options.get("examples") == 0:
        options["examples"] = "all"
    named = [f"{name.replace('_', ' ')} {value}" for name, value in options.items()]
    return ", ".join([_title(request.method).lower(), *named, f"seed {request.seed}"])


def methods_words(found: Sequence[Found[Any]]) -> list[str]:
    """The methods behind some results, each once, with options and seed."""
    alignments = [f.request.alignment for f in found if f.request.alignment is not None]
    return list(dict.fromkeys(alignment_words(alignment) for alignment in alignments))


def unit_metrics(units: GroupUnits) -> None:
    """Fixed points, cycles and similarity of one group, beside what chance would give."""
    columns = st.columns(4)
    chance = f"Fixed points (by chance: {units.fixed_parents})"
    columns[0].metric(words.plain(chance), f"{units.fixed_points:d}", border=True)
    expected = visualization.chance_cycles(units)
    columns[1].metric(f"Cycles (by chance: {expected:.1f})", f"{len(units.cycles):d}", border=True)
    columns[2].metric("Similarity of matched units", f"{units.matched.mean():.3f}", border=True)
    sure = float((units.margin > 0).mean())
    columns[3].metric("Matched to the most alike", f"{sure:.0%}", border=True)


def order_words(order: str) -> str:
    """How to read the dots of a permutation in some order."""
    return f"{_ORDER_WORDS[order]} A negative margin: another unit of B is more alike."


_ORDER_WORDS = {
    "index": "A dot at (i, j): B's unit j plays A's unit i. On the grey line units stay in place.",
    "match": "Every unit of A against its own partner, the most alike first: the grey line.",
    "cycle": "Every cycle is a run of dots beside the grey line, and one that leads back.",
}


def unit_rows(units: GroupUnits) -> list[Row]:
    """Who plays whom in one group."""
    return [
        {
            **_unit_of("A", k, units),
            **_unit_of("B", int(b), units),
            "Similarity": round(float(s), 4),
            "Margin": round(float(m), 4),
        }
        for k, (b, s, m) in enumerate(
            zip(units.permutation, units.matched, units.margin, strict=True)
        )
    ]


def _unit_of(model: str, unit: int, units: GroupUnits) -> Row:
    """A unit by its number; of a nested group, also by what it belongs to."""
    if units.run == units.permutation.size:
        return {f"Unit of {model}": unit}
    owner, inside = divmod(unit, units.run)
    return {f"Unit of {model}": unit, f"{model}: inside": f"{owner}, place {inside}"}


def layer_rows(rows: Sequence[LayerRow]) -> list[Row]:
    """Every figure of every layer, before and after alignment."""
    return [
        {
            name.replace("_", " ").capitalize(): _rounded(getattr(row, name))
            for name in row.__dataclass_fields__
        }
        for row in rows
    ]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 4)
    return value
