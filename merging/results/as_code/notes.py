"""What a person has to put in place of stand-in names."""

from __future__ import annotations

from typing import Any

from merging.results.as_code import families, models
from merging.results.requests import Request


def note(request: Request[Any]) -> str:
    """Say what has to be put in place of the stand-ins; empty where everything is bundled."""
    wanted = families.fusion_of(request)
    if wanted is not None:
        return families.note(families.members_of(wanted.family, wanted.moments))
    return models.note(models.subject_of(request))
