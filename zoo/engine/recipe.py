"""Recipes: how a model is fine-tuned, as frozen values. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from zoo.errors import OptionError, did_you_mean

# Named augmentations, as fields of zoo.data.transforms.Augment; None means the evaluation transform.
AUGMENTS: Mapping[str, Mapping[str, Any] | None] = MappingProxyType(
    {
        "none": None,
        "light": MappingProxyType({}),
        "strong": MappingProxyType({"rand_augment": 9, "erase": 0.25, "mixup": 0.2, "cutmix": 1.0}),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of a recipe.

    Attributes:
        name: What logs and curves call it.
        frozen: How far the frozen prefix reaches: ``none``, ``all``, a number of groups, or a group's name (inclusive).
        share: Its share of the epochs, relative to the other phases.
        lr: Factor on every learning rate during this phase.
        augment: Whether training images are augmented in this phase.
    """

    name: str
    frozen: int | str = "none"
    share: float = 1.0
    lr: float = 1.0
    augment: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a model is fine-tuned: the phases and the defaults of every option that a recipe decides.

    Attributes:
        name: What ``fit(recipe=…)`` is given.
        phases: Stretches in order.
        lr: Learning rate of the head, per optimizer step.
        layer_decay: Factor per layer group toward the input, in (0, 1].
        weight_decay: Decoupled decay, as AdamW defines it.
        epochs: Epochs of all phases together.
        batch_size: Samples per forward.
        warmup: Share of each phase's steps over which the rate rises.
        label_smoothing: In [0, 1).
        augment: ``none``, ``light`` or ``strong``.
        freeze_bn: Whether BatchNorm statistics of a pretrained backbone stand still in the groups that train.
        description: One sentence.
    """

    name: str
    phases: tuple[Phase, ...]
    lr: float = 1e-3
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    epochs: int = 20
    batch_size: int = 32
    warmup: float = 0.1
    label_smoothing: float = 0.0
    augment: str = "light"
    freeze_bn: bool = False
    description: str = ""


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="linear-probe",
                phases=(Phase(name="probe", frozen="all"),),
                lr=3e-3,
                augment="none",
                description="The backbone stays as it is; the head trains on its features, which are computed once.",
            ),
            Recipe(
                name="full",
                phases=(Phase(name="full"),),
                lr=3e-4,
                description="Everything trains at one learning rate.",
            ),
            Recipe(
                name="layer-decay",
                phases=(Phase(name="probe", frozen="all", augment=False), Phase(name="tune", lr=0.03)),
                lr=3e-3,
                layer_decay=0.75,
                freeze_bn=True,
                description="The head first, on cached features; then everything, more slowly toward the input.",
            ),
            Recipe(
                name="lp-ft",
                phases=(Phase(name="probe", frozen="all", augment=False), Phase(name="full", lr=0.03)),
                lr=3e-3,
                freeze_bn=True,
                description="The head first, then everything at one small rate (Kumar et al. 2022).",
            ),
        )
    }
)


def resolve_recipe(recipe: str | Recipe) -> Recipe:
    """Return the recipe of this name, or the recipe itself.

    Raises:
        OptionError: With the nearest name, if there is none.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise OptionError(f"there is no recipe {recipe!r}{did_you_mean(str(recipe), RECIPES)}; the recipes are: {', '.join(RECIPES)}")
    return RECIPES[recipe]


def phase_epochs(phases: Sequence[Phase], epochs: int) -> list[int]:
    """Divide epochs among phases by their shares, at least one each; the last phase takes what rounding leaves.

    With fewer epochs than phases the first phases get one each and the others none.
    """
    if epochs < len(phases):
        return [1] * epochs + [0] * (len(phases) - epochs)
    total = sum(phase.share for phase in phases)
    left, result = epochs, []
    for position, phase in enumerate(phases[:-1]):
        after = len(phases) - position - 1
        result.append(min(max(1, round(epochs * phase.share / total)), left - after))
        left -= result[-1]
    return [*result, left]
