"""What the trained paths and the posterior samples are called, and their options; no torch.

The interface process builds its forms from these cards. How a path is trained is in
`merging/landscape`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from merging.schema.cards.matching import MethodCard
from merging.schema.options import look_up


@dataclass(frozen=True)
class BendOptions:
    """Options of paths with one bend.

    Attributes:
        steps: Steps of SGD with momentum 0.9, each at one random position of the path.
        lr: Step size, constant for the first half and then falling to a hundredth.
        batch_size: Examples per step.
        weight_decay: Weight of half the squared norm of the network at that position.
    """

    steps: int = field(default=600, metadata={"label": "Steps", "min": 1, "max": 100_000})
    lr: float = field(default=0.05, metadata={"label": "Step size", "min": 1e-5, "max": 10.0})
    batch_size: int = field(
        default=128, metadata={"label": "Examples per step", "min": 2, "max": 10_000}
    )
    weight_decay: float = field(
        default=0.0, metadata={"label": "Weight decay", "min": 0.0, "max": 1.0}
    )


@dataclass(frozen=True)
class NebOptions:
    """Options of AutoNEB.

    Attributes:
        pivots: Networks between the models at the start.
        cycles: Rounds at most; after each, pivots are inserted where the path is high.
        steps: Steps of SGD with momentum 0.9 per round, of all pivots together.
        lr: Step size of the first round; every round halves it.
        batch_size: Examples per step.
        weight_decay: Weight of half the squared norm of every pivot.
    """

    pivots: int = field(default=3, metadata={"label": "Pivots at first", "min": 1, "max": 10})
    cycles: int = field(default=3, metadata={"label": "Rounds", "min": 1, "max": 20})
    steps: int = field(default=60, metadata={"label": "Steps per round", "min": 1, "max": 10_000})
    lr: float = field(default=0.05, metadata={"label": "Step size", "min": 1e-5, "max": 10.0})
    batch_size: int = field(
        default=128, metadata={"label": "Examples per step", "min": 2, "max": 10_000}
    )
    weight_decay: float = field(
        default=0.0, metadata={"label": "Weight decay", "min": 0.0, "max": 1.0}
    )


@dataclass(frozen=True)
class SwagOptions:
    """Options of SWAG.

    Attributes:
        snapshots: Networks that SGD visits and whose moments are taken.
        every: Steps from one snapshot to the next.
        lr: Constant step size of SGD with momentum 0.9.
        batch_size: Examples per step.
        rank: Latest deviations from the running mean that are kept.
        samples: Networks that are drawn.
    """

    snapshots: int = field(default=20, metadata={"label": "Snapshots", "min": 2, "max": 500})
    every: int = field(
        default=10, metadata={"label": "Steps between snapshots", "min": 1, "max": 10_000}
    )
    lr: float = field(default=0.05, metadata={"label": "Step size", "min": 1e-5, "max": 10.0})
    batch_size: int = field(
        default=128, metadata={"label": "Examples per step", "min": 2, "max": 10_000}
    )
    rank: int = field(default=10, metadata={"label": "Deviations kept", "min": 2, "max": 100})
    samples: int = field(default=20, metadata={"label": "Samples", "min": 1, "max": 200})


PATH_CARDS: Mapping[str, MethodCard] = MappingProxyType({
    card.name: card
    for card in (
        MethodCard(
            name="bezier",
            title="Bézier",
            about="A smooth curve with one trained bend.",
            reference="Garipov et al. 2018, §3.3 (arXiv:1802.10026)",
            options=BendOptions,
            needs_data=True,
        ),
        MethodCard(
            name="chain",
            title="Chain",
            about="Two straight lines that meet at one trained bend.",
            reference="Garipov et al. 2018, §3.3 (arXiv:1802.10026)",
            options=BendOptions,
            needs_data=True,
        ),
        MethodCard(
            name="neb",
            title="AutoNEB",
            about=(
                "A band of networks that slides off high ground; more are put in where it "
                "stays high."
            ),
            reference="Draxler et al. 2018 (arXiv:1803.00885)",
            options=NebOptions,
            needs_data=True,
        ),
    )
})
SWAG_CARD = MethodCard(
    name="swag",
    title="SWAG",
    about="A Gaussian from the networks that SGD visits around a model, and samples of it.",
    reference="Maddox et al. 2019, §3.2 (arXiv:1902.02476)",
    options=SwagOptions,
    needs_data=True,
)


def find_path_card(kind: str) -> MethodCard:
    """Find the card of a kind of path.

    Raises:
        UnknownNameError: If there is no such kind.
    """
    return look_up(PATH_CARDS, kind, "kind of path")
