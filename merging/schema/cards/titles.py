"""What screens call the ways to line B up with A, models that are not lined up, and the aligned B.

One phrase each: figures, tables, menus and sentences take it from here.
"""

from __future__ import annotations

from merging.schema.cards.matching import find_card

NAIVE = "naive"
"""What requests, figures and the command line call models that are not aligned."""

NAIVE_TITLE = "Not aligned"


def method_title(method: str) -> str:
    """Return what screens call a matching method, or none.

    Args:
        method: `NAIVE` or the name of a matching method.

    Returns:
        The title, with a capital letter.

    Raises:
        UnknownNameError: If there is no such method.

    Example:
        >>> method_title("weight"), method_title(NAIVE)
        ('Weight matching', 'Not aligned')
    """
    return NAIVE_TITLE if method == NAIVE else find_card(method).title


def method_words(method: str) -> str:
    """Return what a method, or none, is called inside a sentence.

    Raises:
        UnknownNameError: If there is no such method.

    Example:
        >>> method_words(NAIVE)
        'not aligned'
    """
    return method_title(method).lower()


def aligned_title(method: str = "") -> str:
    """Return what screens call the aligned model B.

    Args:
        method: The method that aligned it; left out where there is only one.

    Returns:
        The title.

    Raises:
        UnknownNameError: If there is no such method.

    Example:
        >>> aligned_title("weight"), aligned_title()
        ('π(B), weight matching', 'π(B)')
    """
    return f"π(B), {method_words(method)}" if method else "π(B)"
