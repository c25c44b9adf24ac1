"""Models that may be fused, by fingerprint: what they came from, and what judges them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from merging.results.requests.models import UploadedCheckpoint
from merging.results.requests.request import Subject, added, canonical
from merging.schema.cards.zoo import read_family_card
from merging.schema.errors import ArchitectureMismatchError

# Sizes that bundled architectures may differ in, to be fused all the same.
_WIDTHS = ("widths", "width", "hidden", "channels", "dim", "heads")


@dataclass(frozen=True)
class Examples:
    """Data of one task, as a subject names them."""

    data: str
    data_fingerprint: str


@dataclass(frozen=True)
class Family:
    """Models of one architecture that may be fused.

    Attributes:
        config: Canonical JSON of the architecture and its sizes: the first model's.
        models: Fingerprints.
        tasks: What fused models are judged by; none, where no examples were uploaded.
        trained_on: For every model, the number of its task, or -1.
        base: Fingerprint of what all were fine-tuned from; empty if there is no such model.
        base_on: What the base was trained on, for its curvature; None if that is not known.
        joint: Fingerprint of a model that was trained on all tasks' data; empty without one.
        configs: Of models that differ in widths, every one's architecture; empty for all others.
    """

    config: str
    models: tuple[str, ...]
    tasks: tuple[Examples, ...] = ()
    trained_on: tuple[int, ...] = ()
    base: str = ""
    base_on: Examples | None = None
    joint: str = ""
    configs: tuple[str, ...] = added(())

    def of(self, members: tuple[int, ...]) -> Family:
        """Return the family with some of its models only, in this order; all tasks stay."""
        configs = tuple(self.configs[k] for k in members if self.configs)
        return replace(
            self,
            config=configs[0] if configs else self.config,
            models=tuple(self.models[k] for k in members),
            trained_on=tuple(self.trained_on[k] for k in members),
            configs=configs if len(set(configs)) > 1 else (),
        )

    def without_base(self) -> Family:
        """Return the family as if its models had no base in common."""
        return replace(self, base="", base_on=None)


def bundled_family(name: str) -> Family:
    """Return a bundled family.

    Raises:
        UnknownNameError: If there is no such family.
    """
    card = read_family_card(name)
    known = {data["name"]: Examples(data["name"], data["fingerprint"]) for data in card["data"]}
    tasks, base, joint = card["tasks"], card["base"], card["joint"]
    return Family(
        config=canonical(card["config"]),
        models=tuple(model["fingerprint"] for model in card["models"]),
        tasks=tuple(known[task] for task in tasks),
        trained_on=tuple(tasks.index(model["data"][0]) for model in card["models"]),
        base=base["fingerprint"] if base else "",
        base_on=known[base["data"][0]] if base else None,
        joint=joint["fingerprint"] if joint else "",
    )


def uploaded_family(
    models: Sequence[UploadedCheckpoint],
    base: UploadedCheckpoint | None = None,
    examples: Examples | None = None,
) -> Family:
    """Make a family of uploaded models, which may differ in widths where they have no base.

    Args:
        models: The models.
        base: What they were fine-tuned from, if it was uploaded too.
        examples: What they are judged by, and trained on as far as is known.

    Returns:
        The family.

    Raises:
        ArchitectureMismatchError: If they are of several architectures, or of several widths and
            with a base; the files are named.
    """
    first = models[0]
    configs = tuple(model.config for model in models)
    if base is not None and (others := [m.name for m in models if m.config != base.config]):
        raise ArchitectureMismatchError(
            f"{', '.join(others)}: another architecture, or other widths, than the base "
            f"{base.name}; leave it out, or give the base that all came from"
        )
    if strangers := [m.name for m in models if not _is_alike(first.config, m.config)]:
        raise ArchitectureMismatchError(
            f"{', '.join(strangers)}: another architecture than {first.name}; only models of "
            "one architecture can be merged, so leave the others out"
        )
    return Family(
        config=first.config,
        models=tuple(model.fingerprint for model in models),
        tasks=() if examples is None else (examples,),
        trained_on=(-1 if examples is None else 0,) * len(models),
        base="" if base is None else base.fingerprint,
        base_on=examples if base is not None else None,
        configs=configs if len(set(configs)) > 1 else (),
    )


def _is_alike(first: str, other: str) -> bool:
    """Return whether two architectures differ at most in widths."""
    a, b = json.loads(first), json.loads(other)
    if a.keys() != b.keys() or any(a[key] != b[key] for key in a if key not in _WIDTHS):
        return False
    lists = [(a[key], b[key]) for key in a if isinstance(a[key], list)]
    if any(len(x) != len(y) for x, y in lists):
        return False
    ends = [config["widths"] for config in (a, b) if "widths" in config]
    return not ends or (ends[0][0], ends[0][-1]) == (ends[1][0], ends[1][-1])


def pair_family(subject: Subject) -> Family:
    """Make a family of models A and B, without a base and judged by their own data."""
    tasks = (Examples(subject.data, subject.data_fingerprint),) if subject.data else ()
    on = 0 if tasks else -1
    return Family(
        config=subject.config,
        models=(subject.model_a, subject.model_b),
        tasks=tasks,
        trained_on=(on, on),
    )
