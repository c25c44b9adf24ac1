"""What the Landscape page asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from merging.results import requests
from merging.schema.cards.titles import NAIVE
from pages.shared import session
from pages.shared.landscape.choices import PATH_MARGIN, SurfaceChoices


def surface_requests(choice: SurfaceChoices) -> list[requests.SurfaceRequest]:
    """Ask for the surfaces of a choice.

    One per method for the plane of A, B and pi(B); for that of A, B and a bend, one before
    alignment and one per method.
    """
    if choice.kind == "simplex":
        return []
    models: dict[str, Any] = {"a": "a", "b": "b"}
    models.update((a.method, a) for a in session.alignments())
    aligned = [model for name, model in models.items() if name not in ("a", "b")]
    planes: list[tuple[Any, ...]] = []
    if choice.kind == "aligned":
        planes = [("a", "b", model) for model in aligned]
    elif choice.kind == "path":
        wanted = [session.path(choice.path, a) for a in (None, *session.alignments())]
        planes = [("a", path.end, path) for path in wanted]
    elif choice.points:
        planes = [tuple(models[name] for name in choice.points)]
    shown: tuple[Any, ...] = ()
    if choice.kind == "three" and planes:
        shown = tuple(model for model in models.values() if model not in planes[0])
    return [
        requests.SurfaceRequest(
            subject=session.subject(),
            points=plane,
            shown=shown,
            level=choice.level,
            split=choice.split,
            statistics=choice.statistics,
            margin=PATH_MARGIN if choice.kind == "path" else 0.25,
            seed=session.seed() if choice.kind == "random" else 0,
        )
        for plane in planes
    ]


def swag_requests(
    choice: SurfaceChoices, surfaces: Sequence[requests.SurfaceRequest]
) -> list[requests.SwagRequest]:
    """Ask for samples around both ends of every plane, if they were chosen."""
    if not choice.samples:
        return []
    found = []
    for surface in surfaces:
        models = [p for p in surface.points if not isinstance(p, requests.PathRequest)]
        found.append(session.swag(surface.points, (models[0], models[-1]), choice.split))
    return found


def simplex_requests(choice: SurfaceChoices) -> list[requests.SimplexRequest]:
    """Ask for the mixtures of a choice."""
    if choice.kind != "simplex" or not choice.points:
        return []
    points = tuple(_corner(name) for name in choice.points)
    level = min(choice.level, len(requests.SIMPLEX_LEVELS) - 1 - (len(points) > 3))
    return [
        requests.SimplexRequest(
            subject=session.subject(),
            points=points,
            level=level,
            split=choice.split,
            statistics=choice.statistics,
        )
    ]


def _corner(name: str) -> requests.Corner:
    if name in ("a", "b"):
        return cast("Literal['a', 'b']", name)
    kind, _, method = name.partition(" ")
    if not method:
        return session.alignment(kind)
    return session.path(kind, None if method == NAIVE else session.alignment(method))
