"""Finding and certifying the symmetries of bundled and of common architectures.

The second part writes docs/architectures.md as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import merging
from benchmarks.timing import seconds
from merging.models.architectures.registry import build_model, example_inputs
from merging.models.zoo.pairs import RECIPES
from merging.symmetry import Certificate
from tests.symmetry.networks import CATALOG

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
HEAD = """# Architectures

What `find_symmetry` finds in common architectures, built from their public definitions with
random weights: `tests/symmetry/networks` holds the definitions, `make bench` writes this table.
*Orderings* is log₁₀ of the number of orderings of all units that leave the function alone;
*moved* is the share of parameters (buffers included) on an axis with a group; *kept to* is the
largest relative difference of outputs in float64 after random permutations of all groups, which
must not exceed 1e-9; *seconds* are those of finding and certifying, the export of the graph
included, with two threads. *Fixed* names the axes that keep their order, and why, with how many
there are.

"""
TAIL = """
**Nested groups.** With g groups of m channels, grouped convolution and GroupNorm keep their
function under every order of the groups together with any order inside each of them, and attention
under every order of its heads together with any order inside each: g! · (m!)^g orderings, a wreath
product. All of it is found. *Groups* counts what is nested (units of a head) as one group; *units*
and *orderings* count it in every position of what it is nested in.
"""


@dataclass(frozen=True)
class Row:
    """What was found for one architecture."""

    name: str
    millions: float
    orderings: float
    seconds: float
    certificate: Certificate
    fixed: str

    def cells(self) -> list[str]:
        """Return the cells of its line in the table."""
        certificate = self.certificate
        return [
            self.name,
            f"{self.millions:.1f} M",
            f"{certificate.groups}",
            f"{certificate.units:,}",
            f"{self.orderings:,.0f}",
            f"{certificate.share_moved:.2%}",
            f"{certificate.max_relative_difference:.0e}",
            f"{self.seconds:.1f}",
            self.fixed,
        ]


TITLES = [
    "Architecture", "Parameters", "Groups", "Units", "Orderings", "Moved", "Kept to", "Seconds",
    "Fixed",
]  # fmt: skip


def measure() -> Iterator[str]:
    """Yield one line per bundled pair, and one per common architecture."""
    for name, recipe in RECIPES.items():
        model, inputs = build_model(recipe.config), example_inputs(recipe.config)
        row = _row(name, model, inputs)
        yield (
            f"{name}: {row.certificate.groups} groups, {row.certificate.units} units, "
            f"{row.certificate.share_moved:.2%} of parameters, {row.seconds:.2f} s, "
            f"function kept to {row.certificate.max_relative_difference:.0e}"
        )
    lines = [_line(TITLES), _line(["---"] * len(TITLES))]
    for name, build in CATALOG.items():
        lines.append(_line(_row(name, *build()).cells()))
        yield lines[-1]
    PAGE.write_text(HEAD + "\n".join(lines) + "\n" + TAIL, "utf-8")


def _row(name: str, model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Row:
    found: list[merging.PermutationSpec] = []
    took = seconds(lambda: found.append(merging.find_symmetry(model, inputs)))
    (spec,) = found
    certificate = merging.certify(model, spec, inputs, seed=1)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return Row(name, millions, spec.log10_orderings, took, certificate, _fixed(spec))


def _fixed(spec: merging.PermutationSpec) -> str:
    reasons = Counter(re.sub(r" at .*", "", axis.reason) for axis in spec.report.frozen)
    reasons.update(f"no rule for {name}" for name in spec.report.unknown_operators)
    return ", ".join(f"{reason} ({n})" for reason, n in reasons.most_common())


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
