"""The card of a fused model: what it was made of and how, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from merging.schema.cards.fusion.table import find_card

_BUFFERS = {
    "mean": "Running statistics are the models' mean; re-estimate them on data.",
    "rule": "Running statistics were fused like weights; re-estimate them on data.",
    "first": "Running statistics are those of the first model; re-estimate them on data.",
}
_TAKEN_ANEW = "Running statistics were re-estimated on training examples."
_LONGEST = 300


def write_card(recipe: Mapping[str, Any], notes: Mapping[str, Any]) -> str:
    """Write the model card.

    Args:
        recipe: How the model was made: `rule`, `models`, `base`, `weights`, `options`, `buffers`,
            `statistics`, `seed`, `dtype`; `curvature` and `moment_scale` where it is from the
            optimizers.
        notes: What the rule found out on the way.

    Returns:
        The text of a `README.md`.

    Example:
        >>> recipe = {"rule": "average", "models": ["a", "b"], "weights": [1, 3]}
        >>> print(write_card(recipe, {}).splitlines()[4])
        # Weighted mean of 2 models
    """
    card = find_card(recipe["rule"])
    models = list(recipe["models"])
    numbers = recipe.get("weights") or [None] * len(models)
    lines = ["---", "tags: [merge]", "---", ""]
    lines += [f"# {card.title} of {len(models)} models", "", "Made with One Basin.", ""]
    for name, number in zip(models, numbers, strict=True):
        lines.append(f"- `{name}`" + (f", weight {number:g}" if number is not None else ""))
    if recipe.get("base"):
        lines.append(f"- base: `{recipe['base']}`")
    if recipe.get("curvature"):
        lines.append(f"- curvature: Adam's second moments, times {recipe['moment_scale']:,.10g}")
    lines += ["", f"**Rule.** {card.formula}", "", f"**Assumes.** {card.assumes}", ""]
    lines += [f"**Fails.** {card.fails}", "", f"**Paper.** {card.paper}", ""]
    taken_anew = recipe.get("statistics") == "reset"
    lines += [_TAKEN_ANEW if taken_anew else _BUFFERS[recipe.get("buffers", "mean")], ""]
    lines += _table("Option", recipe.get("options") or {}) + _table("Found", notes)
    lines += ["```json", json.dumps(recipe, indent=1), "```", ""]
    return "\n".join(lines)


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    rows = [f"| {name} | {_short(value)} |" for name, value in values.items()]
    return [f"| {title} | Value |", "|---|---|", *rows, ""]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
