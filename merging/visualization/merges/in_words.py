"""The figures of merged models in words, with their numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.schema.records.explanations import ImpliedWeights, TaskVectorSummary, TensorErrors
from merging.schema.records.scores import Scan
from merging.visualization.merges.mismatch import rank_correlation
from merging.visualization.merges.rule_scores import NamedScore, is_by_loss, sorted_scores
from merging.visualization.merges.scans import NamedScan
from merging.visualization.merges.scans import is_by_loss as scans_by_loss
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
    what = "Mean loss (squared error)" if by_loss else "Mean accuracy"
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
        scan = named.scan
        at_best = int(np.argmin(np.abs(scan.values - scan.best)))
        best, first, last = (_mean_words(scan, k) for k in (at_best, 0, -1))
        said.append(
            f"{named.title}: best {best} at {scan.best:g}, {first} at {scan.values[0]:g} and "
            f"{last} at {scan.values[-1]:g}."
        )
    what = "Mean loss (squared error)" if scans_by_loss(scans) else "Mean accuracy"
    return f"{what} on {scans[0].scan.split} examples. {' '.join(said)}"


def _mean_words(scan: Scan, k: int) -> str:
    if scan.loss_unit == "squared error":
        return f"{scan.loss[k].mean():.3g}"
    return percent(float(scan.accuracy[k].mean()))


def describe_reliability(scores: Sequence[NamedScore]) -> str:
    """Say each model's calibration error.

    Args:
        scores: What is drawn.

    Returns:
        A sentence.
    """
    errors = [f"{row.title} {percent(row.score.calibration_error)}" for row in scores]
    return f"Accuracy against confidence in 15 bins. Calibration error: {', '.join(errors)}."


def describe_mismatch(scans: Sequence[NamedScan]) -> str:
    """Say how mismatch and error go together.

    Args:
        scans: What is drawn.

    Returns:
        A sentence.
    """
    error = "mean test loss (squared error)" if scans_by_loss(scans) else "mean test error"
    points = sum(int(np.isfinite(named.scan.mismatch).sum()) for named in scans)
    return (
        f"Gradient mismatch against {error} at {counted(points, 'point')} of "
        f"{', '.join(named.title for named in scans)}; rank correlation "
        f"{rank_correlation(scans):.2f}."
    )


def describe_task_vectors(found: TaskVectorSummary, models: Sequence[str]) -> str:
    """Say how task vectors point, and how often they disagree.

    Args:
        found: What is drawn.
        models: What screens call the models.

    Returns:
        A few sentences.
    """
    above = np.triu_indices(len(models), 1)
    cosines, conflicts = found.cosines[above], found.conflicts[above]
    lengths = ", ".join(f"{m} {n:.3g}" for m, n in zip(models, found.norms, strict=True))
    return (
        f"Task vectors of {len(models)} models, of lengths {lengths}. Cosines from "
        f"{np.nanmin(cosines, initial=1):.2f} to {np.nanmax(cosines, initial=-1):.2f}; opposite "
        f"signs in {percent(float(np.nanmin(conflicts, initial=1)))} to "
        f"{percent(float(np.nanmax(conflicts, initial=0)))} of the entries of a pair."
    )


def describe_contributions(found: TaskVectorSummary, models: Sequence[str]) -> str:
    """Say which tensor holds most of each task vector.

    Args:
        found: What is drawn.
        models: What screens call the models.

    Returns:
        A sentence.
    """
    largest = [
        f"{model} {percent(float(row.max()))} in {found.tensors[int(row.argmax())]}"
        for model, row in zip(models, found.contributions, strict=True)
    ]
    return f"Most of each task vector's squared length: {', '.join(largest)}."


def describe_errors(rows: Sequence[TensorErrors]) -> str:
    """Say how far both rules are from the joint model in all.

    Args:
        rows: What is drawn.

    Returns:
        A sentence.
    """
    said = []
    for rule in ("task_arithmetic", "gradient_matching"):
        own = [row for row in rows if row.rule == rule]
        length = float(np.sqrt(sum(row.measured**2 for row in own)))
        said.append(f"{rule.replace('_', ' ')} {length:.3g}")
    tensors = counted(len(rows) // 2, "tensor")
    return f"Distance from the joint model over {tensors}: {', '.join(said)}."


def describe_implied_weights(found: ImpliedWeights, models: Sequence[str]) -> str:
    """Say the mean weight of each model's entries.

    Args:
        found: What is drawn.
        models: What screens call the models.

    Returns:
        A sentence.
    """
    means = ", ".join(f"{m} {w:.2f}" for m, w in zip(models, found.means, strict=True))
    return f"Weights of single entries in gradient matching; means: {means}."
