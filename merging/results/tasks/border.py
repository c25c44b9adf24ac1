"""The border between what a stranger's model does in a piece, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from merging.files.sealed import check_seals
from merging.results.compute.run_piece import is_out_of_memory
from merging.schema.errors import MergingError


@contextmanager
def guarded(payload: str) -> Iterator[None]:
    """Compute a piece.

    Args:
        payload: JSON of the request; it says whether a model's own graph is run.

    Yields:
        Nothing.

    Raises:
        MergingError: If the graph of an uploaded model could not be computed, in words; or if
            something wrote into what is shared.
    """
    exported = "exported" in payload
    try:
        yield
    except MergingError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
        if exported and not is_out_of_memory(error):
            raise MergingError(
                f"the graph of a model that was uploaded cannot be computed here: {reason}. Export "
                "the model again, after model.eval() and with the batch size left open"
            ) from error
        raise
    finally:
        check_seals(contents=exported)
