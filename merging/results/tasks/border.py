"""The border between what a stranger's model does in a piece, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from merging.files.sealed import check_seals
from merging.schema.errors import MergingError

# What PyTorch says when the system gives it no memory.
_NO_MEMORY = ("alloc_cpu", "not enough memory", "can't allocate", "bad_alloc", "out of memory")


@contextmanager
def guarded(payload: str) -> Iterator[None]:
    """Compute a piece.

    Args:
        payload: JSON of the request; it says whether a model's own graph is run.

    Yields:
        Nothing.

    Raises:
        MergingError: If there was not enough memory, or the graph of an uploaded model
            could not be computed, in words; or if something wrote into what is shared.
    """
    exported = "exported" in payload
    try:
        yield
    except MergingError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
        if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
            raise MergingError(
                "there was not enough memory for this; ask for less at once, or use smaller models"
            ) from error
        if exported:
            raise MergingError(
                f"the graph of a model that was uploaded cannot be computed here: {reason}. Export "
                "the model again, after model.eval() and with the batch size left open"
            ) from error
        raise
    finally:
        check_seals(contents=exported)
