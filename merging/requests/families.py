"""Models that may be fused, by fingerprint: what they came from, and what judges them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from merging.cards import read_family_card
from merging.requests.base import Subject, canonical


@dataclass(frozen=True)
class Examples:
    """Data of one task, as a subject names them."""

    data: str
    data_fingerprint: str


@dataclass(frozen=True)
class Family:
    """Models of one architecture that may be fused.

    Attributes:
        config: Canonical JSON of the architecture and its sizes.
        models: Fingerprints.
        tasks: What fused models are judged by; none, where no examples were brought.
        trained_on: For every model, the number of its task, or -1.
        base: Fingerprint of what all were fine-tuned from; empty if there is no such model.
        base_on: What the base was trained on, for its curvature; None if that is not known.
        joint: Fingerprint of a model that was trained on all tasks' data; empty without one.
    """

    config: str
    models: tuple[str, ...]
    tasks: tuple[Examples, ...] = ()
    trained_on: tuple[int, ...] = ()
    base: str = ""
    base_on: Examples | None = None
    joint: str = ""

    def of(self, members: tuple[int, ...]) -> Family:
        """The same family with some of its models only; all tasks stay."""
        return replace(
            self,
            models=tuple(self.models[k] for k in members),
            trained_on=tuple(self.trained_on[k] for k in members),
        )

    def without_base(self) -> Family:
        """The same models as if they had no base in common."""
        return replace(self, base="", base_on=None)


def bundled_family(name: str) -> Family:
    """A bundled family.

    Raises:
        UnknownNameError: If there is no such family.
    """
    card = read_family_card(name)
    known = {data["name"]: Examples(data["name"], data["fingerprint"]) for data in card["data"]}
    tasks, base, joint = card["tasks"], card["base"], card["joint"]
    return Family(
        canonical(card["config"]),
        tuple(model["fingerprint"] for model in card["models"]),
        tuple(known[task] for task in tasks),
        tuple(tasks.index(model["data"][0]) for model in card["models"]),
        base["fingerprint"] if base else "",
        known[base["data"][0]] if base else None,
        joint["fingerprint"] if joint else "",
    )


def pair_family(subject: Subject) -> Family:
    """Models A and B as a family without a base, judged by their own data."""
    tasks = (Examples(subject.data, subject.data_fingerprint),) if subject.data else ()
    on = 0 if tasks else -1
    return Family(subject.config, (subject.model_a, subject.model_b), tasks, (on, on))
