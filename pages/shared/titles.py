"""What screens call methods, paths and models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from merging.results import requests
from merging.schema.cards import paths
from merging.schema.cards.titles import NAIVE, aligned_title, method_words
from pages.shared.jobs import Found


def method_of(request: Any) -> str:
    """Return the method that a request's model B was aligned by, or that none was."""
    alignment = getattr(request, "alignment", None)
    return NAIVE if alignment is None else str(alignment.method)


def path_title(path: requests.PathRequest) -> str:
    """Return what screens call a path."""
    return f"{paths.PATH_CARDS[path.kind].title} path, {method_words(method_of(path))}"


def bend_title(path: requests.PathRequest) -> str:
    """Return what screens call the bend of a path."""
    return f"bend of {path_title(path)}"


def model_title(name: str) -> str:
    """Return what screens call a model of a plane: A, B, a bend, or the aligned B of a method."""
    is_own = name in ("A", "B") or name.split(" ")[0] == "bend"
    return name if is_own else aligned_title(name)


def alignment_words(request: requests.AlignmentRequest) -> str:
    """Name a method with its options and seed."""
    options = json.loads(request.options)
    if options.get("examples") == 0:
        options["examples"] = "all"
    named = [f"{name.replace('_', ' ')} {value}" for name, value in options.items()]
    return ", ".join([method_words(request.method), *named, f"seed {request.seed}"])


def methods_words(found: Sequence[Found[Any]]) -> list[str]:
    """Name the methods behind some results, each once, with options and seed."""
    alignments = [f.request.alignment for f in found if f.request.alignment is not None]
    return list(dict.fromkeys(alignment_words(alignment) for alignment in alignments))
