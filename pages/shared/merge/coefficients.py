"""The Merge page's scans over coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from merging import visualization
from merging.results import requests
from merging.visualization import NamedScan
from pages.shared import charts, jobs, option_widget
from pages.shared.merge import rules as merge_rules
from pages.shared.merge.choice import Choice
from pages.shared.merge.scores import rule_title
from pages.shared.rows import Row, rounded


def coefficients(choice: Choice, chosen: Sequence[str]) -> None:
    """Show accuracy against one coefficient: how much tuning a rule needs."""
    split: Any = option_widget.segments(
        "Examples",
        ["validation", "test"],
        default="validation",
        format_func=str.capitalize,
        key="merge_scan_split",
        help="Choose on validation examples. Look at the test examples here only to "
        "understand: a value that was chosen on them can no longer be judged by them.",
    )
    scans = []
    for rule in chosen:
        scan = requests.tuning(merge_rules.wanted(choice, rule))
        if scan is not None:
            scans.append(requests.on_split(scan, split))
    if not scans:
        st.info("None of the chosen rules has a coefficient to tune.")
        return
    found = jobs.follow("merge_scans", scans)
    groups: dict[str, list[NamedScan]] = {}
    for f in found:
        named = NamedScan(rule_title(f.request.fusion.rule), f.request.knob, f.result)
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
            "Accuracy (%)": rounded(100 * float(accuracy.mean()), 2),
            f"Loss ({named.scan.loss_unit})": round(float(loss.mean()), 4),
        }
        for named in scans
        for value, accuracy, loss in zip(
            named.scan.values, named.scan.accuracy, named.scan.loss, strict=True
        )
    ]
