"""Numbers and names as words: what figures print and what their descriptions say."""

from __future__ import annotations

import math
from html import escape

from merging.schema.legible import legible
from merging.schema.records.curve import Barrier
from merging.schema.records.loss_unit import LossUnit

LABEL = 80  # characters of a name in a figure
_ENDS = {0.0: "model A itself", 1.0: "model B itself"}


def uncertain(value: float, error: float) -> str:
    """Write a value and its standard error with two to four decimals, as the error deserves.

    Example:
        >>> uncertain(0.3123, 0.0213), uncertain(0.0123, 0.0041), uncertain(float("nan"), 0.1)
        ('0.31 ± 0.02', '0.012 ± 0.004', 'unknown')
    """
    if not math.isfinite(value):
        return "unknown"
    if not math.isfinite(error):
        return f"{value + 0.0:.2f}"
    decimals = 2 if error <= 0 else min(max(math.ceil(-math.log10(error)), 2), 4)
    return f"{round(value, decimals) + 0.0:.{decimals}f} ± {error:.{decimals}f}"


def barrier_words(barrier: Barrier) -> str:
    """Write a barrier with its error and its place, such as `barrier 0.31 ± 0.02 at λ = 0.48`.

    At an end point nothing rises in between: the model there is only worse than the other one.
    """
    if not math.isfinite(barrier.value):
        return "barrier unknown (a value is not a finite number)"
    height = uncertain(barrier.value, barrier.standard_error)
    place = _ENDS.get(barrier.lam, f"λ = {barrier.lam:.2f}")
    return f"barrier {height} at {place}"


def loss_title(unit: LossUnit) -> str:
    """Return the title of an axis or a colour bar that shows a loss.

    Example:
        >>> loss_title("nats"), loss_title("squared error")
        ('Loss (nats per example)', 'Loss (mean squared error)')
    """
    return "Loss (nats per example)" if unit == "nats" else "Loss (mean squared error)"


def value_hover(unit: LossUnit, first: int = 0) -> str:
    """Return what a figure says under the pointer of a loss and an accuracy in per cent.

    Where numbers are predicted there is no accuracy, and nothing is said of it.

    Args:
        unit: The loss's unit.
        first: Index of the loss in the trace's custom data; the accuracy follows it.

    Returns:
        A part of a hover template.
    """
    loss = f"loss %{{customdata[{first}]:.3f}} {unit}"
    if unit == "squared error":
        return loss
    return f"{loss}<br>accuracy %{{customdata[{first + 1}]:.1f}} %"


def percent(fraction: float) -> str:
    """Write a fraction as a percentage, such as `97.5 %`."""
    return f"{100 * fraction:.1f} %" if math.isfinite(fraction) else "unknown"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, which takes an `s` where it must.

    Example:
        >>> counted(1, "point"), counted(2000, "example")
        ('1 point', '2,000 examples')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shortened(name: str, length: int) -> str:
    """Shorten a name to at most `length` characters: a long one loses its middle.

    Example:
        >>> shortened("layer3.2.conv2.weight", 12)
        'layer3…eight'
    """
    if len(name) <= length:
        return name
    front = length // 2
    return f"{name[:front]}…{name[len(name) - (length - 1 - front) :]}"


def label(name: str, length: int = LABEL) -> str:
    """Return foreign text as a figure shows it: Plotly reads what it draws as HTML, with links.

    Args:
        name: A name of a model, a task, a layer or a group.
        length: Characters that are kept.

    Returns:
        The text for titles, ticks, legends, and what hovering shows.

    Example:
        >>> label('<a href="http://a.b">layer</a>')
        '&lt;a href="http://a.b"&gt;layer&lt;/a&gt;'
    """
    shown = shortened(legible(name, lines=False), length)
    return escape(shown, quote=False).replace("%{", "&#37;{")


def sentence_case(text: str) -> str:
    """Give text a capital first letter and leave the rest."""
    return f"{text[:1].upper()}{text[1:]}"
