"""Ask for samples of SWAG around a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from merging.results.compute.entry import Entry
from merging.results.requests.path import Corner, needs_of
from merging.results.requests.request import Request, Split, Subject, canonical
from merging.results.requests.wire import flat_entry
from merging.schema.cards.matching import read_options
from merging.schema.cards.paths import SWAG_CARD
from merging.schema.records.surface import PlanePoint
from merging.schema.records.swag import SwagSamples


@dataclass(frozen=True)
class SwagRequest(Request[list[SwagSamples]]):
    """Samples of SWAG around some models, projected on the plane through three.

    Attributes:
        plane: The three models that span the plane.
        around: The models that SGD starts from.
        options: Canonical JSON of the options of `merging.schema.cards.paths.SwagOptions`.
        seed: Seed of the order of examples, and of the draws.
    """

    task: ClassVar[str] = "swag"
    words: ClassVar[str] = "SWAG: training on from the models"
    subject: Subject
    plane: tuple[Corner, ...]
    around: tuple[Corner, ...] = ("a",)
    options: str = "{}"
    seed: int = 0
    split: Split = "test"

    def needs(self) -> tuple[Request[Any], ...]:
        """Return the alignments and paths of the models."""
        return needs_of((*self.plane, *self.around))

    def parts(self) -> list[dict[str, Any]]:
        """Return one piece for each model."""
        return [{"model": k} for k in range(len(self.around))]

    def encode(self, found: SwagSamples) -> Entry:
        """Return the samples around one model as they are stored."""
        entry = flat_entry(found)
        points = [asdict(point) for point in found.points]
        return Entry(entry.arrays, {**entry.meta, "points": points, "mean": asdict(found.mean)})

    def decode(self, entry: Entry) -> SwagSamples:
        """Return the samples around one model."""
        meta = dict(entry.meta)
        points = tuple(PlanePoint(**point) for point in meta.pop("points"))
        mean = PlanePoint(**meta.pop("mean"))
        values: dict[str, Any] = {**entry.arrays, **meta}
        return SwagSamples(points=points, mean=mean, **values)

    def join(self, found: list[SwagSamples]) -> list[SwagSamples]:
        """Return the samples that are there, one record per model."""
        return found


def swag(
    subject: Subject,
    plane: tuple[Corner, ...],
    around: tuple[Corner, ...] = ("a",),
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    split: Split = "test",
) -> SwagRequest:
    """Ask for samples of SWAG; options that are left out have their defaults.

    Args:
        subject: The models and their data.
        plane: The three models that span the plane.
        around: The models that SGD starts from.
        options: Options by name.
        seed: The seed.
        split: Which examples the samples are evaluated on.

    Returns:
        The request; equal options give equal requests.

    Raises:
        UnknownNameError: If there is no such option.
    """
    chosen = read_options(SWAG_CARD, options)
    return SwagRequest(
        subject=subject,
        plane=plane,
        around=around,
        options=canonical(asdict(chosen)),
        seed=seed,
        split=split,
    )
