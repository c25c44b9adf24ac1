"""Ask for samples of SWAG around a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from merging.results.compute.entry import Entry
from merging.results.requests.path import Corner, needs_of
from merging.results.requests.request import Request, Split, Subject, canonical
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
        """Alignments and paths of the models."""
        return needs_of((*self.plane, *self.around))

    def parts(self) -> list[dict[str, Any]]:
        """One model after the other."""
        return [{"model": k} for k in range(len(self.around))]

    def decode(self, entries: list[Entry]) -> list[SwagSamples]:
        """The samples that are there, one record per model."""
        return [_samples(entry) for entry in entries]


def _samples(entry: Entry) -> SwagSamples:
    meta = dict(entry.meta)
    points = tuple(PlanePoint(**point) for point in meta.pop("points"))
    mean = PlanePoint(**meta.pop("mean"))
    loss, accuracy = entry.arrays["loss"], entry.arrays["accuracy"]
    return SwagSamples(points=points, mean=mean, loss=loss, accuracy=accuracy, **meta)


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
    return SwagRequest(subject, plane, around, canonical(asdict(chosen)), seed, split)
