"""Cards of the rules that add task vectors to a base model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from merging.schema.cards.fusion.card import RuleCard

# What becomes of entries whose signs agree, of task vectors, and of those that were dropped from.
Total = Literal["averaged", "added"]
Mode = Literal["add", "negate", "analogy"]
Then = Literal["task arithmetic", "TIES"]

_SCALE: dict[str, Any] = {"label": "Factor of the merged step", "min": -10.0, "max": 10.0}


_DENSITY: dict[str, Any] = {"label": "Share of entries kept", "min": 1e-6, "max": 1.0}


_TOTAL: dict[str, Any] = {"label": "What agrees is", "choices": get_args(Total)}


@dataclass(frozen=True)
class TaskArithmeticOptions:
    """Options of task arithmetic.

    Attributes:
        mode: `"add"` adds all task vectors; `"negate"` takes them away; `"analogy"` takes three
            models and adds the third's task vector and what leads from the first to the second.
        scale: Factor of what is added or taken away.
    """

    mode: Mode = field(
        default="add",
        metadata={"label": "Task vectors are", "choices": get_args(Mode)},
    )
    scale: float = field(default=1.0, metadata=_SCALE)


@dataclass(frozen=True)
class TiesOptions:
    """Options of TIES.

    Attributes:
        density: Share of each task vector's entries that is kept, the largest of each tensor.
        scale: Factor of the merged task vector.
        total: Whether entries that agree are averaged, as in the paper, or added.
    """

    density: float = field(default=0.2, metadata=_DENSITY)
    scale: float = field(default=1.0, metadata=_SCALE)
    total: Total = field(default="averaged", metadata=_TOTAL)


@dataclass(frozen=True)
class DareOptions:
    """Options of DARE.

    Attributes:
        drop: Share of each task vector's entries that is dropped.
        then: What merges the rest: their sum, or TIES' election of signs. Its trimming is left
            out: dropping has already left fewer entries than trimming would.
        total: With TIES, whether entries that agree are averaged or added.
    """

    drop: float = field(
        default=0.9, metadata={"label": "Share of entries dropped", "min": 0.0, "max": 0.999}
    )
    then: Then = field(
        default="task arithmetic",
        metadata={"label": "What merges the rest", "choices": get_args(Then)},
    )
    total: Total = field(default="averaged", metadata=_TOTAL)


TASK_VECTORS: tuple[RuleCard, ...] = (
    RuleCard(
        name="task_arithmetic",
        title="Task arithmetic",
        family="task vectors",
        formula=(
            "θ = θ₀ + λ Σ αₜ τₜ with τₜ = θₜ − θ₀; negation θ₀ − λ Σ αₜ τₜ; "
            "analogy θ₀ + λ (τ₃ + τ₂ − τ₁)"
        ),
        assumes="Small steps from one base; α tuned on validation data (often about 0.3).",
        fails="Many tasks with α = 1: the sum overshoots.",
        paper="Ilharco et al. 2023, arXiv 2212.04089",
        options=TaskArithmeticOptions,
        weights="scales",
        needs_base=True,
    ),
    RuleCard(
        name="ties",
        title="TIES",
        family="task vectors",
        formula="θ = θ₀ + λ · mean over {t : sign agrees} of trim(θₜ − θ₀)",
        assumes="Most of what fine-tuning changed is redundant; signs that conflict are noise.",
        fails="Few tasks, or large changes everywhere.",
        paper="Yadav et al. 2023, arXiv 2306.01708",
        options=TiesOptions,
        needs_base=True,
    ),
    RuleCard(
        name="dare",
        title="DARE",
        family="task vectors",
        formula=(
            "θ = θ₀ + Σ αₜ mₜ ⊙ (θₜ − θ₀) / (1 − p), mₜ ~ Bernoulli(1 − p); "
            "or TIES of the dropped and rescaled task vectors"
        ),
        assumes="Task vectors are small and redundant; expectation is task arithmetic's.",
        fails="Large task vectors: dropping adds noise.",
        paper="Yu et al. 2024, arXiv 2311.03099",
        options=DareOptions,
        weights="scales",
        needs_base=True,
    ),
    RuleCard(
        name="model_stock",
        title="Model Stock",
        family="task vectors",
        formula="θ = t · mean + (1 − t) · θ₀, t = K cos φ / ((K − 1) cos φ + 1) per tensor",
        assumes="Models fine-tuned on one task with different seeds: a shell around a centre.",
        fails="Different tasks, whose angles say nothing of noise.",
        paper="Jang et al. 2024, arXiv 2403.19522",
        weights="none",
        needs_base=True,
        least_models=2,
    ),
)
