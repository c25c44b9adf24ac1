"""The model card of a fused model: what it was made of, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merging.rules import RuleCard


def model_card(
    rule: RuleCard,
    *,
    parents: Sequence[str],
    base: str = "",
    weights: Sequence[float] = (),
    options: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> str:
    """Say in Markdown what a fused model is.

    Args:
        rule: The rule.
        parents: Names or fingerprints of the models, in order.
        base: The base's; empty without one.
        weights: One number per model; none for 1 each.
        options: The rule's options.
        notes: What the rule said of its work.

    Returns:
        The text of a README.md.
    """
    numbers = list(weights) or [1.0] * len(parents)
    pairs = enumerate(zip(parents, numbers, strict=True), start=1)
    lines = [
        f"# Merged by {rule.title}",
        "",
        f"One network made of {len(parents)} by working on their weights, with One Basin.",
        "",
        f"- Rule: {rule.title}, {rule.formula} ({rule.paper})",
        *([f"- Base: `{base}`"] if base and rule.needs_base else []),
        *[f"- {_words(name)}: {value}" for name, value in (options or {}).items()],
        "",
        "| model | fingerprint | weight |",
        "|---|---|---|",
        *[f"| {k} | `{parent}` | {weight:g} |" for k, (parent, weight) in pairs],
        "",
        f"Assumes: {rule.assumes}",
        "",
        f"Fails: {rule.fails}",
    ]
    if notes:
        lines += ["", "What the rule found out:", ""]
        lines += [f"- {_words(name)}: {value}" for name, value in notes.items()]
    return "\n".join([*lines, ""])


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
