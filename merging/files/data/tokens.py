"""Token numbers for language models: what is to be predicted is the token that follows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from merging.files.data.arrays import ExampleArrays, few
from merging.schema.errors import DataError

WINDOW = 128

_LARGEST = 10_000_000


def next_tokens(tokens: NDArray, name: str, window: int = WINDOW) -> ExampleArrays:
    """Make inputs and targets of token numbers.

    Args:
        tokens: Whole numbers `[n, length]`, one text per row; or one long text `[length]`, which is
            cut so that every token but the first is predicted exactly once, save for a rest that
            does not fill a window.
        name: What to call the file in messages.
        window: Tokens that a piece of one long text holds as input.

    Returns:
        `x`, int64 `[n, length - 1]`, and `y`, the token after each.

    Raises:
        DataError: If these are not whole numbers from 0, or too few to predict any.

    Example:
        >>> found = next_tokens(np.arange(6), "mine.npz", window=2)
        >>> found.x.tolist(), found.y.tolist(), found.classes
        ([[0, 1], [2, 3]], [[1, 2], [3, 4]], 6)
    """
    if tokens.ndim not in {1, 2} or tokens.shape[-1] < 2 or tokens.size == 0:
        raise DataError(
            f"{name}: 'tokens' has shape {list(tokens.shape)}; expected [n, length] or one long "
            "text [length], of at least two tokens"
        )
    if tokens.dtype.kind not in "iu":
        raise DataError(f"{name}: 'tokens' holds {tokens.dtype}; tokens must be whole numbers")
    wrong = tokens[(tokens < 0) | (tokens > _LARGEST)]
    if wrong.size:
        raise DataError(
            f"{name}: 'tokens' holds {wrong.size} values that are not token numbers: {few(wrong)}; "
            "expected whole numbers from 0, without padding by negative ones"
        )
    notes = []
    plain = tokens.astype(np.int64)
    if plain.ndim == 1:
        width = min(max(1, window), len(plain) - 1)
        n = (len(plain) - 1) // width
        x = plain[: n * width].reshape(n, width)
        y = plain[1 : n * width + 1].reshape(n, width)
        notes.append(
            f"One text of {len(plain):,} tokens was cut into {n:,} pieces of {width} tokens."
        )
    else:
        x, y = plain[:, :-1], plain[:, 1:]
    classes = int(plain.max()) + 1
    notes.append(f"The largest token number is {classes - 1}.")
    return ExampleArrays(
        x=np.ascontiguousarray(x),
        y=np.ascontiguousarray(y),
        kind="tokens",
        classes=classes,
        class_names=(),
        notes=tuple(notes),
    )
