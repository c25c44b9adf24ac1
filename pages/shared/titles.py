"""What screens call methods, paths and models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from merging.results import requests
from merging.schema.cards import matching, paths
from pages.shared.jobs import Found


def _method_of(request: Any) -> str:
    alignment = getattr(request, "alignment", None)
    return "naive" if alignment is None else str(alignment.method)


def _title(method: str) -> str:
    return "Naive" if method == "naive" else matching.METHOD_CARDS[method].title


def method_title(method: str) -> str:
    """What screens call a matching method, or none."""
    return _title(method)


def path_title(path: requests.PathRequest) -> str:
    """What screens call a path."""
    kind = paths.PATH_CARDS[path.kind].title
    if path.alignment is None:
        return f"{kind} path, naive"
    return f"{kind} path, {_title(path.alignment.method).lower()}"


def _model_words(name: str) -> str:
    if name in ("A", "B") or name.startswith("bend"):
        return name
    return f"π(B), {_title(name).lower()}"


def alignment_words(request: requests.AlignmentRequest) -> str:
    """A method with its options and seed."""
    options = json.loads(request.options)
    if options.get("examples") == 0:
        options["examples"] = "all"
    named = [f"{name.replace('_', ' ')} {value}" for name, value in options.items()]
    return ", ".join([_title(request.method).lower(), *named, f"seed {request.seed}"])


def methods_words(found: Sequence[Found[Any]]) -> list[str]:
    """The methods behind some results, each once, with options and seed."""
    alignments = [f.request.alignment for f in found if f.request.alignment is not None]
    return list(dict.fromkeys(alignment_words(alignment) for alignment in alignments))
