"""Numbers and names as words: what figures print and what their descriptions say."""

from __future__ import annotations

import math
from html import escape

from merging.schema.legible import legible
from merging.schema.records.curve import Barrier

LABEL = 80  # characters of a name in a figure
_ENDS = {0.0: "model A itself", 1.0: "model B itself"}


def uncertain(value: float, error: float) -> str:
    """A value and its standard error, with as many decimals as the error deserves (two to four).

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
    """A barrier with its error and its place, such as `barrier 0.31 ± 0.02 at λ = 0.48`.

    At an end point nothing rises in between: the model there is only worse than the other one.
    """
    if not math.isfinite(barrier.value):
        return "barrier unknown (a value is not a finite number)"
    height = uncertain(barrier.value, barrier.standard_error)
    place = _ENDS.get(barrier.lam, f"λ = {barrier.lam:.2f}")
    return f"barrier {height} at {place}"


def percent(fraction: float) -> str:
    """A fraction as a percentage, such as `97.5 %`."""
    return f"{100 * fraction:.1f} %" if math.isfinite(fraction) else "unknown"


def counted(count: int, noun: str) -> str:
    """A count with its noun, which takes an `s` where it must.

    Example:
        >>> counted(1, "point"), counted(2000, "example")
        ('1 point', '2,000 examples')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shortened(name: str, length: int) -> str:
    """A name of at most `length` characters: a long one loses its middle.

    Example:
        >>> shortened("layer3.2.conv2.weight", 12)
        'layer3…eight'
    """
    if len(name) <= length:
        return name
    front = length // 2
    return f"{name[:front]}…{name[len(name) - (length - 1 - front) :]}"


def label(name: str, length: int = LABEL) -> str:
    """Foreign text as a figure shows it: Plotly reads what it draws as HTML, with links.

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
    """Text with a capital first letter, the rest as it is."""
    return f"{text[:1].upper()}{text[1:]}"
