"""Cards of the methods that work on whole networks, not tensor by tensor.

What they do is in `merging/fusion/networks`: `zipit`, `transport` and `distill`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from merging.schema.cards.fusion.card import RuleCard

# What tells units apart.
Features = Literal["weights", "activations"]


@dataclass(frozen=True)
class ZipOptions:
    """Options of zipping.

    Attributes:
        damping: Factor of the correlation of what has been merged already (the paper's α): below
            1, units are merged in twos rather than in larger sets.
        within: Share of all merges that may put two units of one model together (the paper's β);
            at 0 every merged unit has one unit of each model, as long as that goes on.
        depth: Groups of units that are zipped, from the input on, with every model's own layers
            above them; at 0 all are, the outputs are averaged, and one model is left.
    """

    damping: float = field(
        default=1.0, metadata={"label": "Damping of larger sets (α)", "min": 0.0, "max": 1.0}
    )
    within: float = field(
        default=1.0,
        metadata={"label": "Share of merges within a model (β)", "min": 0.0, "max": 1.0},
    )
    depth: int = field(
        default=0,
        metadata={"label": "Groups zipped, from the input on (0: all)", "min": 0, "max": 10_000},
    )


@dataclass(frozen=True)
class TransportOptions:
    """Options of fusion by transport.

    Attributes:
        features: What tells units apart: the weights that make them, or what they do on examples
            (after the nonlinearity).
        entropy: Weight of the plan's entropy, in mean costs; 0 gives the exact plan, more lets
            every unit go to many (Sinkhorn).
    """

    features: Features = field(
        default="weights",
        metadata={"label": "Units are told apart by", "choices": get_args(Features)},
    )
    entropy: float = field(
        default=0.0, metadata={"label": "Softness of the plan", "min": 0.0, "max": 10.0}
    )


@dataclass(frozen=True)
class DistillOptions:
    """Options of distillation.

    Attributes:
        temperature: What logits are divided by, of teachers and student.
        epochs: Passes over the examples.
        batch_size: Examples per step.
        lr: Step size of Adam.
        labels: Weight of the cross-entropy with the labels; 0 needs none.
    """

    temperature: float = field(
        default=2.0, metadata={"label": "Temperature", "min": 0.1, "max": 100.0}
    )
    epochs: int = field(
        default=10, metadata={"label": "Passes over the examples", "min": 1, "max": 1000}
    )
    batch_size: int = field(
        default=100, metadata={"label": "Examples per step", "min": 1, "max": 10_000}
    )
    lr: float = field(default=1e-3, metadata={"label": "Step size", "min": 1e-6, "max": 1.0})
    labels: float = field(
        default=0.0, metadata={"label": "Weight of the labels", "min": 0.0, "max": 100.0}
    )


NETWORKS: tuple[RuleCard, ...] = (
    RuleCard(
        name="zipit",
        title="ZipIt!",
        family="activations",
        formula="units of all models are merged by correlation, also two of one model; "
        "W = M W₁..T U",
        assumes="Tasks differ: a model has units that the others have no partner for.",
        fails="Units that no other is like are merged all the same; training examples are needed.",
        paper="Stoica et al. 2024, arXiv 2305.03053",
        options=ZipOptions,
        weights="none",
        needs_data=True,
        least_models=2,
        function="zip_models",
    ),
    RuleCard(
        name="transport",
        title="Optimal transport",
        family="mean",
        formula="W' = (n T)[out] W (m T)[in]ᵀ, T the plan that carries units at the least cost",
        assumes="Units of models have partners, as after training on one task with other seeds.",
        fails="Plans are made layer by layer from the input on, and never looked at again.",
        paper="Singh and Jaggi 2020, arXiv 1910.05653",
        options=TransportOptions,
        needs_data=True,
        least_models=2,
        other_widths=True,
        function="fuse_by_transport",
    ),
    RuleCard(
        name="distillation",
        title="Distilled from all",
        family="activations",
        formula="θ = argmin T² KL(Σ wₜ softmax(zₜ / T) ‖ softmax(z / T)), from the mean on",
        assumes="Training examples, and time to train: no mere merge, but one model as the result.",
        fails="Teachers that are right on other tasks are asked about all examples alike.",
        paper="Hinton et al. 2015, arXiv 1503.02531",
        options=DistillOptions,
        needs_data=True,
        function="distill",
    ),
)
