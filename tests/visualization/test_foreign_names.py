"""Names of strangers in figures: Plotly reads text as HTML, so names have to be written for it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from merging import visualization
from merging.schema.records.alignment import LayerRow
from merging.schema.records.explanations import TaskVectorSummary
from merging.schema.records.symmetry import FrozenAxis, GroupCertificate, SymmetrySummary
from merging.visualization.wording import label

NAME = '<a href="http://evil.example">x</a>%{x}&lt;'


def test_a_label_is_shown_as_it_is():
    assert label(NAME) == '&lt;a href="http://evil.example"&gt;x&lt;/a&gt;&#37;{x}&amp;lt;'
    assert len(label("n" * 1_000_000)) <= 80
    assert label("a\nb\u202e") == r"a\nb\u202e"


def _groups() -> object:
    spec = json.dumps({f"{NAME}.weight": [NAME, None]})
    group = GroupCertificate(NAME, 4, (f"{NAME}.weight axis 0",))
    fixed = FrozenAxis(f"{NAME}.weight", 1, 3, f"it is {NAME}")
    summary = SymmetrySummary((group,), (fixed,), (), 1.4, 0.0, 1e-9, True, 0.5, 1.0, spec)
    return visualization.plot_groups(summary)


def _layers() -> object:
    return visualization.plot_layers([LayerRow(NAME, 2.0, 1.0, 0.1, 0.5)])


def _vectors() -> TaskVectorSummary:
    square = np.zeros((2, 2))
    return TaskVectorSummary(np.ones(2), square, square, 0.5, (NAME,), np.full((2, 1), 0.5))


@pytest.mark.parametrize(
    "draw",
    [
        _groups,
        _layers,
        lambda: visualization.plot_task_vectors(_vectors(), [NAME, NAME]),
        lambda: visualization.plot_contributions(_vectors(), [NAME, NAME]),
    ],
)
def test_no_figure_makes_a_link_or_a_template_of_a_name(draw):
    written = str(json.loads(draw().to_json()))
    assert "&lt;a" in written
    assert "<a" not in written
    assert ">x</a>%{x}" not in written


def test_corners_of_mixtures_make_no_link(make_simplex):
    figure = visualization.plot_simplex(make_simplex(), titles=[NAME] * 3)
    written = str(json.loads(figure.to_json()))
    assert "&lt;a" in written
    assert "<a" not in written
