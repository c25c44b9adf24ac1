"""The bundled families: models that started from one base, or share a training run or a task.

A family is in `assets/families/<name>`: one file per model, with a card that says how all of them
came to be. `make families` trains them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.checkpoints.read import read_checkpoint
from merging.files.data.batches import Batches, Dataset, concatenate
from merging.files.data.bundled import load_dataset
from merging.models.architectures.registry import build_model
from merging.models.state_dict import in_order
from merging.models.zoo.training import Recipe, train
from merging.schema.cards.zoo import ASSETS, read_family_card
from merging.schema.progress import Progress

FamilyKind = Literal["tasks", "fine-tunes", "run", "seeds"]
OnMember = Callable[[str, float, float, str], None]

_SEEDS_PER_RUN = 100


@dataclass(frozen=True)
class Member:
    """How one model of a family is made.

    Attributes:
        name: What requests call it, and its file.
        title: What screens call it.
        data: Names of the data sets whose training splits, one after the other, it is trained on.
        recipe: How.
        seed: Seed of initialisation, order of examples and augmentation.
        epoch: For a checkpoint of a run, the epoch after which it was kept.
    """

    name: str
    title: str
    data: tuple[str, ...]
    recipe: Recipe
    seed: int
    epoch: int | None = None


@dataclass(frozen=True)
class FamilyRecipe:
    """How a bundled family is made.

    Attributes:
        name: What requests call it.
        title: What screens call it.
        shows: What one learns from it, in a sentence.
        kind: `"tasks"`, models of different tasks; `"fine-tunes"`, of one task, with different
            settings; `"run"`, checkpoints of one training; `"seeds"`, trainings without a base.
        config: The architecture and its sizes.
        models: The models, which start from the base if there is one.
        base: What they were fine-tuned from.
        joint: The target of merging: the base fine-tuned on the data of all, the base's included
            (θ_1:T of Daheim et al. 2024, Eq. 9, whose penalty stands for the base's loss).
    """

    name: str
    title: str
    shows: str
    kind: FamilyKind
    config: Mapping[str, Any]
    models: tuple[Member, ...]
    base: Member | None = None
    joint: Member | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the data sets that the models were trained on, each once, in their order."""
        return tuple(dict.fromkeys(name for member in self.models for name in member.data))

    @property
    def data(self) -> str:
        """Name of the data set that the base was trained on, or that all models were."""
        return self.models[0].data[0] if self.base is None else self.base.data[0]


@dataclass(frozen=True, eq=False)
class LoadedFamily:
    """Models of one architecture, what they came from, and their data.

    Attributes:
        name: What requests call it.
        model: The network, in evaluation mode; whose parameters it has does not matter.
        base: State dict of the base, or None.
        models: State dicts of the models.
        joint: State dict of the model trained on all data, or None.
        tasks: What the models were trained on: one per model in a family of tasks, else one.
        data: What the base was trained on; of a family without one, what all models were.
        card: All that is known of them (`cards.read_family_card`).
    """

    name: str
    model: nn.Module
    base: Params | None
    models: tuple[Params, ...]
    joint: Params | None
    tasks: tuple[Dataset, ...]
    data: Dataset
    card: Mapping[str, Any] = field(default_factory=dict)


def _mlp(width: int) -> dict[str, Any]:
    return {"architecture": "mlp", "widths": [784, width, width, 10]}


def _adam(lr: float, epochs: int, shift: int = 0) -> Recipe:
    return Recipe(optimiser="adam", lr=lr, epochs=epochs, batch_size=50, shift=shift)


def _tasks(
    name: str,
    title: str,
    shows: str,
    config: Mapping[str, Any],
    tasks: Mapping[str, str],
    recipes: tuple[Recipe, Recipe, Recipe],
) -> FamilyRecipe:
    """Make a family of tasks: data names by titles, and recipes of base, tasks and joint model.

    Models of tasks see the half of MNIST that the base did not.
    """
    base = Member(
        name="base",
        title="Base: upright digits",
        data=("mnist/part-1-of-2",),
        recipe=recipes[0],
        seed=1,
    )
    models = tuple(
        Member(name=data.split("/")[-1], title=called, data=(data,), recipe=recipes[1], seed=k + 2)
        for k, (called, data) in enumerate(tasks.items())
    )
    names = tuple(name for member in (base, *models) for name in member.data)
    joint = Member(name="joint", title="Joint: all data", data=names, recipe=recipes[2], seed=50)
    return FamilyRecipe(
        name=name,
        title=title,
        shows=shows,
        kind="tasks",
        config=config,
        models=models,
        base=base,
        joint=joint,
    )


_MILD = {
    "Rotated by 10°": "mnist/part-2-of-2/rotated-10",
    "Rotated by −10°": "mnist/part-2-of-2/rotated-350",
    "Thickened": "mnist/part-2-of-2/thickened",
    "Noisy": "mnist/part-2-of-2/noisy-20",
    "Moved": "mnist/part-2-of-2/moved-2",
}
_HARSH = {
    "Rotated by 40°": "mnist/part-2-of-2/rotated-40",
    "Inverted": "mnist/part-2-of-2/inverted",
    "Mirrored": "mnist/part-2-of-2/mirrored",
    "Noisy": "mnist/part-2-of-2/noisy-40",
    "Another scanner": "digits/enlarged",
}
_CLASSES = {
    f"Digits {a} and {b}": f"mnist/part-2-of-2/labels-{a}{b}"
    for a, b in ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
}
# The last is too large, for greedy soups to leave out.
_TUNED = ((1e-3, 10), (2e-3, 10), (3e-3, 10), (2e-3, 8), (1e-3, 8), (3e-3, 8), (1e-2, 6))

FAMILIES: Mapping[str, FamilyRecipe] = MappingProxyType({
    family.name: family
    for family in (
        _tasks(
            "mnist-mild",
            "Mild shifts, MLP 2 × 96",
            "Small changes of the digits: merging comes near the model trained on all data.",
            _mlp(96),
            _MILD,
            (_adam(1e-3, 40, shift=2), _adam(1e-4, 15, shift=2), _adam(1e-4, 15, shift=2)),
        ),
        _tasks(
            "mnist-harsh",
            "Harsh shifts, MLP 2 × 96",
            "Tasks that contradict each other: task arithmetic collapses, no rule comes near.",
            _mlp(96),
            _HARSH,
            (_adam(1e-3, 20), _adam(3e-4, 10), _adam(3e-4, 15)),
        ),
        _tasks(
            "mnist-classes",
            "Two classes each, MLP 2 × 96",
            "Each model saw two of ten digits and forgot others; the merged one knows them all.",
            _mlp(96),
            _CLASSES,
            (_adam(1e-3, 20), _adam(1e-4, 10), _adam(1e-4, 10)),
        ),
        _tasks(
            "mnist-mild-cnn",
            "Mild shifts, CNN with LayerNorm",
            "Convolutions on the mild tasks: little room between the mean and a collapse.",
            {"architecture": "vgg", "width": 8, "hidden": 32, "classes": 10},
            {**_MILD, "Noisy": "mnist/part-2-of-2/noisy-5"},
            (_adam(2e-3, 10), _adam(5e-4, 4), _adam(5e-4, 4)),
        ),
        FamilyRecipe(
            name="mnist-soup",
            title="One task, seven fine-tunings",
            shows="Learning rates and epochs differ, the data do not: soups, and Model Stock.",
            kind="fine-tunes",
            config=_mlp(40),
            models=tuple(
                Member(
                    name=f"tune-{k + 1}",
                    title=f"Learning rate {lr:g}, {epochs} epochs",
                    data=("mnist/upright",),
                    recipe=_adam(lr, epochs, shift=2),
                    seed=k + 2,
                )
                for k, (lr, epochs) in enumerate(_TUNED)
            ),
            base=Member(
                name="base",
                title="Base: half of the digits",
                data=("mnist/part-1-of-2",),
                recipe=_adam(1e-3, 30, shift=2),
                seed=1,
            ),
        ),
        FamilyRecipe(
            name="mnist-run",
            title="One run, eight checkpoints",
            shows="A step too large to settle: averaging the last checkpoints (SWA, LAWA) "
            "settles it.",
            kind="run",
            config=_mlp(40),
            models=tuple(
                Member(
                    name=f"epoch-{epoch:02d}",
                    title=f"After epoch {epoch}",
                    data=("mnist/upright",),
                    recipe=Recipe(optimiser="sgd", lr=0.05, epochs=16, batch_size=50),
                    seed=1,
                    epoch=epoch,
                )
                for epoch in range(2, 17, 2)
            ),
        ),
        FamilyRecipe(
            name="mnist-seeds",
            title="Five seeds, MLP 2 × 96",
            shows="Trained apart, without a base: units have to be matched before any mean.",
            kind="seeds",
            config=_mlp(96),
            models=tuple(
                Member(
                    name=f"seed-{k}",
                    title=f"Seed {k}",
                    data=("mnist/upright",),
                    recipe=_adam(1e-3, 20),
                    seed=k,
                )
                for k in range(1, 6)
            ),
        ),
    )
})


@lru_cache(maxsize=2)
def load_family(name: str) -> LoadedFamily:
    """Read a bundled family.

    Args:
        name: One of `list_families()`.

    Returns:
        The family. It is shared between callers: treat its tensors as read-only.

    Raises:
        UnknownNameError: If there is no such family.
    """
    card, recipe = read_family_card(name), FAMILIES[name]
    names = build_model(recipe.config).state_dict()
    folder = ASSETS / "families" / name
    found = {
        member.name: in_order(read_checkpoint(folder / f"{member.name}.safetensors")[0], names)
        for member in members(recipe)
    }
    return assemble(recipe, found, card)


def members(recipe: FamilyRecipe) -> tuple[Member, ...]:
    """Return the base, the models and the joint model, as far as the family has them."""
    return tuple(m for m in (recipe.base, *recipe.models, recipe.joint) if m is not None)


def assemble(
    recipe: FamilyRecipe, found: Mapping[str, Params], card: Mapping[str, Any] | None = None
) -> LoadedFamily:
    """Put a family together from the state dicts of its members, by their names."""
    return LoadedFamily(
        name=recipe.name,
        model=build_model(recipe.config),
        base=None if recipe.base is None else found[recipe.base.name],
        models=tuple(found[member.name] for member in recipe.models),
        joint=None if recipe.joint is None else found[recipe.joint.name],
        tasks=tuple(load_dataset(task) for task in recipe.tasks),
        data=load_dataset(recipe.data),
        card=card or {},
    )


def training_examples(member: Member) -> Batches:
    """Return what a member is trained on."""
    return concatenate([load_dataset(name).train for name in member.data], "train")


def train_family(
    recipe: FamilyRecipe, *, run: int = 0, on_member: OnMember | None = None
) -> LoadedFamily:
    """Train all models of a family.

    Args:
        recipe: What to train.
        run: Number of the repetition; 0 gives the bundled weights, others have other seeds.
        on_member: Called after every epoch with the member's name, epochs done, epochs in all,
            and the training loss in words; may raise `StoppedError`.

    Returns:
        The family, without a card.

    Raises:
        StoppedError: If `on_member` raises it.
    """
    shift = _SEEDS_PER_RUN * run
    found: dict[str, Params] = {}
    start = None
    for member in members(recipe):
        if member.name in found:
            continue  # a checkpoint that was kept on the way
        kept = {
            m.epoch: m.name for m in recipe.models if m.epoch is not None and _one_run(m, member)
        }
        params = train(
            recipe.config,
            member.recipe,
            training_examples(member),
            seed=member.seed + shift,
            start=start,
            on_epoch=_keep(found, kept),
            on_progress=_reported(member.name, on_member),
        )
        found.setdefault(member.name, params)
        if member is recipe.base:
            start = params
    return assemble(recipe, found)


def _one_run(one: Member, other: Member) -> bool:
    return (one.data, one.recipe, one.seed) == (other.data, other.recipe, other.seed)


def _keep(found: dict[str, Params], kept: Mapping[int, str]) -> Callable[[int, Params], None]:
    def keep(epoch: int, params: dict[str, Tensor]) -> None:
        if epoch in kept:
            found[kept[epoch]] = params

    return keep


def _reported(name: str, on_member: OnMember | None) -> Progress | None:
    if on_member is None:
        return None
    return lambda done, total, note: on_member(name, done, total, note)
