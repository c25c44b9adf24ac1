"""The figures of merged models in words, with their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from merging.visualization.rule_scores import NamedScore, is_by_loss, sorted_scores
from merging.visualization.scans import NamedScan
from merging.visualization.wording import counted, percent


def describe_rule_scores(scores: Sequence[NamedScore], tasks: Sequence[str]) -> str:
    """Say every model's mean over the tasks, and the worst task of the best merge.

    Args:
        scores: What is drawn.
        tasks: What screens call the tasks.

    Returns:
        A few sentences.
    """
    if not scores:
        return "No models yet, 0 rows."
    by_loss = is_by_loss(scores)
    what = "Mean loss" if by_loss else "Mean accuracy"
    said = [f"{what} over {counted(len(tasks), 'task')}."]
    for reference, words in ((True, "For comparison"), (False, "Merged")):
        rows = [row for row in sorted_scores(scores) if row.reference is reference]
        values = [
            f"{row.title} {row.score.loss:.3f}"
            if by_loss
            else f"{row.title} {percent(row.score.accuracy)}"
            for row in rows
        ]
        if values:
            said.append(f"{words}: {', '.join(values)}.")
    return " ".join(said)


def describe_scans(scans: Sequence[NamedScan]) -> str:
    """Say where each rule is best, and how far it falls at the ends.

    Args:
        scans: What is drawn.

    Returns:
        One sentence per rule.
    """
    if not scans:
        return "No rules yet, 0 lines."
    said = []
    for named in scans:
        scan, mean = named.scan, named.scan.accuracy.mean(1)
        said.append(
            f"{named.title}: best {percent(float(mean.max()))} at {scan.best:g}, "
            f"{percent(float(mean[0]))} at {scan.values[0]:g} and "
            f"{percent(float(mean[-1]))} at {scan.values[-1]:g}."
        )
    return f"Mean accuracy on {scans[0].scan.split} examples. {' '.join(said)}"


def describe_reliability(scores: Sequence[NamedScore]) -> str:
    """Say each model's calibration error.

    Args:
        scores: What is drawn.

    Returns:
        A sentence.
    """
    errors = [f"{row.title} {percent(row.score.calibration_error)}" for row in scores]
    return f"Accuracy against confidence in 15 bins. Calibration error: {', '.join(errors)}."
