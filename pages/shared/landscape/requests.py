"""What the Landscape page asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from merging.results import requests
from pages.shared import session
from pages.shared.landscape.choices import _PATH_MARGIN, SurfaceChoices


def surface_requests(choice: SurfaceChoices) -> list[requests.SurfaceRequest]:
    """The surfaces that a choice asks for.

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
            session.subject(),
            plane,
            shown,
            level=choice.level,
            split=choice.split,
            statistics=choice.statistics,
            margin=_PATH_MARGIN if choice.kind == "path" else 0.25,
            seed=session.seed() if choice.kind == "random" else 0,
        )
        for plane in planes
    ]


def swag_requests(
    choice: SurfaceChoices, surfaces: Sequence[requests.SurfaceRequest]
) -> list[requests.SwagRequest]:
    """Samples around both ends of every plane, if they were asked for."""
    if not choice.samples:
        return []
    found = []
    for surface in surfaces:
        models = [p for p in surface.points if not isinstance(p, requests.PathRequest)]
        found.append(session.swag(surface.points, (models[0], models[-1]), choice.split))
    return found


def simplex_requests(choice: SurfaceChoices) -> list[requests.SimplexRequest]:
    """The mixtures that a choice asks for."""
    if choice.kind != "simplex" or not choice.points:
        return []
    points = tuple(_corner(name) for name in choice.points)
    level = min(choice.level, len(requests.SIMPLEX_SIDES) - 1 - (len(points) > 3))
    return [
        requests.SimplexRequest(session.subject(), points, level, choice.split, choice.statistics)
    ]


def _corner(name: str) -> requests.Corner:
    if name in ("a", "b"):
        return cast("Literal['a', 'b']", name)
    kind, _, method = name.partition(" ")
    if not method:
        return session.alignment(kind)
    return session.path(kind, None if method == "naive" else session.alignment(method))
