"""What each command is asked for, as frozen records; no argument parser is known here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from merging.results import requests
from merging.results.requests import AlignmentRequest, Split, Statistics, Subject
from merging.schema.cards.matching import METHOD_CARDS
from merging.schema.cards.titles import NAIVE
from merging.schema.errors import MergingError


def read_option(text: str) -> tuple[str, Any]:
    """Return name and value of an option that is written as `name=value`.

    Args:
        text: The option; its value is JSON or a word.

    Returns:
        Name and value.

    Raises:
        MergingError: If there is no equals sign.

    Example:
        >>> read_option("restarts=3"), read_option("similarity=correlation")
        (('restarts', 3), ('similarity', 'correlation'))
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise MergingError(f"--option takes name=value, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@dataclass(frozen=True)
class Named:
    """Models and data, as a person names them.

    Attributes:
        models: Checkpoints, or the name of one bundled pair or family.
        architecture: A name, or canonical JSON of a config; empty where the files say it.
        data: A bundled data set's name, a file of examples, or a function; empty without any.
        base: The file of the base model; empty without one.
        spec: A permutation spec as JSON; empty for the derived one.
        freeze: Permutation groups that are left as they are.
    """

    models: tuple[str, ...]
    architecture: str = ""
    data: str = ""
    base: str = ""
    spec: str = ""
    freeze: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matching:
    """How model B is aligned.

    Attributes:
        method: A matching method's name, or `NAIVE` to leave B as it is.
        options: Options as they were written: `name=value`, or `method.name=value` for one method.
        seed: The seed.
    """

    method: str = "weight"
    options: tuple[str, ...] = ()
    seed: int = 0

    def alignment(self, subject: Subject) -> AlignmentRequest | None:
        """Return the alignment of these models; None if B is left as it is."""
        return None if self.method == NAIVE else self.by(self.method, subject)

    def by(self, method: str, subject: Subject) -> AlignmentRequest:
        """Return the alignment by a method, with the options that are for it.

        Args:
            method: The matching method's name.
            subject: The models and their data.

        Returns:
            The request.

        Raises:
            MergingError: If an option names a method that there is not.
        """
        options = {}
        for text in self.options:
            name, value = read_option(text)
            owner, dot, short = name.rpartition(".")
            if not dot or owner == method:
                options[short] = value
            elif owner not in METHOD_CARDS:
                raise MergingError(
                    f"--option {text}: {owner!r} is not a matching method; choose from "
                    f"{', '.join(METHOD_CARDS)}"
                )
        return requests.alignment(subject, method, options, seed=self.seed)


@dataclass(frozen=True)
class Inspect:
    """The models, and the file that the permutation spec is written to, if it is."""

    named: Named
    spec_out: str | None = None


@dataclass(frozen=True)
class Doctor:
    """The models to examine."""

    named: Named


@dataclass(frozen=True)
class Match:
    """The models, how B is aligned, and the file that is written, if one is."""

    named: Named
    matching: Matching
    out: str | None = None

    def file(
        self, subject: Subject, alignment: AlignmentRequest, prefix: str
    ) -> requests.ExportRequest:
        """Return the file of the permutation (`.npz`), or else of the aligned model B.

        Args:
            subject: The models and their data.
            alignment: The permutation.
            prefix: What was cut off the names of model B's tensors.

        Returns:
            The request.
        """
        if (self.out or "").endswith(".npz"):
            return requests.ExportRequest(subject, alignment, "permutation")
        return requests.ExportRequest(
            subject=subject,
            alignment=alignment,
            what="aligned",
            prefix=prefix,
            container=_container(self.out),
        )


@dataclass(frozen=True)
class Interpolate:
    """The models, how B is aligned, and what is evaluated between A and B."""

    named: Named
    matching: Matching
    split: Split = "test"
    statistics: Statistics = "interpolated"
    lams: int = 25
    overshoot: float = 0.0

    def request(self, subject: Subject) -> requests.CurveRequest:
        """Return the curve along the line between these models."""
        return requests.CurveRequest(
            subject=subject,
            alignment=self.matching.alignment(subject),
            split=self.split,
            statistics=self.statistics,
            lams=self.lams,
            overshoot=self.overshoot,
        )


@dataclass(frozen=True)
class Surface:
    """The models, how B is aligned, and the plane that is evaluated.

    Attributes:
        named: The models and their data.
        matching: How B is aligned.
        points: What spans the plane: `a`, `b`, or a method for B as it aligns it.
        shown: Further models to draw, by the same names.
        level: Index of the finest grid.
        split: Examples to evaluate on.
        statistics: Running statistics on the plane.
        margin: Around the models, as a share of the window.
    """

    named: Named
    matching: Matching
    points: tuple[str, ...]
    shown: tuple[str, ...] = ()
    level: int = 1
    split: Split = "test"
    statistics: Literal["interpolated", "reset"] = "interpolated"
    margin: float = 0.25

    def request(self, subject: Subject) -> requests.SurfaceRequest:
        """Return the surface over the plane through these models."""
        return requests.SurfaceRequest(
            subject=subject,
            points=self._corners(self.points, subject),
            shown=self._corners(self.shown, subject),
            level=self.level,
            split=self.split,
            statistics=self.statistics,
            margin=self.margin,
            seed=self.matching.seed if len(self.points) == 1 else 0,
        )

    def _corners(self, names: tuple[str, ...], subject: Subject) -> tuple[Any, ...]:
        return tuple(
            name if name in ("a", "b") else self.matching.by(name, subject) for name in names
        )


@dataclass(frozen=True)
class Connect:
    """The models, how B is aligned, and the path that is trained between A and B."""

    named: Named
    matching: Matching
    kind: str = "bezier"
    options: Mapping[str, Any] = field(default_factory=dict)
    split: Split = "test"

    def line(self, subject: Subject) -> requests.CurveRequest:
        """Return the straight line, which the path is compared with."""
        return requests.CurveRequest(subject, self.matching.alignment(subject), self.split)

    def path(self, subject: Subject, *, keeps_statistics: bool) -> requests.PathCurveRequest:
        """Return loss and accuracy along the path.

        Args:
            subject: The models and their data.
            keeps_statistics: Whether the models have running statistics, which are then reset.

        Returns:
            The request.
        """
        alignment, seed = self.matching.alignment(subject), self.matching.seed
        path = requests.path(subject, alignment, self.kind, self.options, seed=seed)
        statistics: Literal["interpolated", "reset"] = (
            "reset" if keeps_statistics else "interpolated"
        )
        return requests.PathCurveRequest(
            subject=subject, path=path, split=self.split, statistics=statistics
        )


@dataclass(frozen=True)
class Merge:
    """The models, how B is aligned, and the file of the model between A and B."""

    named: Named
    matching: Matching
    lam: float = 0.5
    statistics: Statistics = "interpolated"
    out: str | None = None

    def request(self, subject: Subject, prefix: str) -> requests.ExportRequest:
        """Return the file of the merged model.

        Args:
            subject: The models and their data.
            prefix: What was cut off the names of model A's tensors.

        Returns:
            The request.
        """
        return requests.ExportRequest(
            subject=subject,
            alignment=self.matching.alignment(subject),
            what="merged",
            lam=self.lam,
            statistics=self.statistics,
            prefix=prefix,
            container=_container(self.out),
        )


@dataclass(frozen=True)
class Replay:
    """The file of a recipe, and what is said of the architecture."""

    recipe: str
    architecture: str = ""


def _container(out: str | None) -> Literal["safetensors", "pt"]:
    """Return how a model is written, by the file's ending."""
    return "pt" if (out or "").endswith((".pt", ".pth")) else "safetensors"
