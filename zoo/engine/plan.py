"""A recipe and a model become a plan: one entry per epoch, with the frozen prefix resolved to a number."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.engine.config import Config
from zoo.engine.recipe import Phase, unfold
from zoo.layers import LayerGroups


@dataclass(frozen=True)
class Epoch:
    """One epoch of the plan.

    Attributes:
        phase: The phase it belongs to.
        index: Position of the phase in the recipe.
        frozen: Length of the frozen prefix, in groups.
        done: Epochs of the same phase before this one.
        of: Epochs of the phase.
        augment: Whether images are augmented.
        cached: Whether something is frozen and every view of a sample is fixed, so that the frozen prefix is computed once.
        pooled: Whether that leaves pooled features: the whole backbone is frozen, and the head can start from them.
    """

    phase: Phase
    index: int
    frozen: int
    done: int
    of: int
    augment: bool
    cached: bool
    pooled: bool = False


def make_plan(config: Config, groups: LayerGroups, *, at_least: int = 0, separable: bool = True, augmentable: bool = True) -> list[Epoch]:
    """Lay out the epochs of a run.

    Args:
        config: The resolved configuration.
        groups: Layer groups of the model.
        at_least: Frozen prefix that every phase keeps.
        separable: Whether the head can start from pooled features.
        augmentable: Whether the inputs can be augmented at all.

    Raises:
        UnknownGroupError: If a phase or ``freeze`` names a group that does not exist.
    """
    words = {"none": 0, "all": len(groups)}
    least = max(
        at_least, groups.prefix_length(words.get(config.freeze, config.freeze) if isinstance(config.freeze, str) else config.freeze)
    )
    plan: list[Epoch] = []
    for index, (phase, count) in enumerate(unfold(config.recipe.phases, config.epochs, len(groups))):
        reach = words.get(phase.frozen, phase.frozen) if isinstance(phase.frozen, str) else phase.frozen
        if isinstance(reach, int) and reach < 0:  # so many groups from the head; a backbone with fewer trains as a whole
            reach = max(0, len(groups) + reach)
        frozen = max(least, groups.prefix_length(reach))
        augment = phase.augment and config.augment is not None and augmentable
        # Several views are augmented ones by themselves; without them, augmentation means a fresh image every epoch.
        fixed = not augment or config.views > 1
        cached = config.cache and frozen > 0 and fixed
        pooled = cached and separable and frozen == len(groups)
        plan += [Epoch(phase, index, frozen, done, count, augment, cached, pooled) for done in range(count)]
    return plan


def next_phase(plan: list[Epoch], position: int) -> int:
    """Return the position of the first epoch of the phase after the one at ``position``; the plan's end if there is none."""
    index = plan[position].index
    return next((at for at in range(position, len(plan)) if plan[at].index > index), len(plan))
