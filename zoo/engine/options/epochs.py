"""A recipe and a model become a plan: one entry per epoch, with the frozen prefix resolved to a number."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.engine.options.config import Config
from zoo.engine.options.recipe import Phase, unfold
from zoo.models.layers import LayerGroups


@dataclass(frozen=True)
class Epoch:
    """One epoch of the plan.

    Attributes:
        phase: The phase it belongs to.
        index: Position of the phase in the recipe.
        frozen: Length of the frozen prefix, in groups.
        done: Epochs of the same phase before this one.
        of: Epochs of the phase.
        steps: Optimizer steps of this epoch.
        before: Optimizer steps of the same phase before this epoch.
        total: Optimizer steps of the phase.
        augment: Whether images are augmented.
        cached: Whether something is frozen and every view of a sample is fixed, so that the frozen prefix is computed once.
        pooled: Whether that leaves pooled features: the whole backbone is frozen, and the head can start from them.
    """

    phase: Phase
    index: int
    frozen: int
    done: int
    of: int
    steps: int
    before: int
    total: int
    augment: bool
    cached: bool
    pooled: bool = False


def make_plan(
    config: Config, groups: LayerGroups, *, steps: int, at_least: int = 0, separable: bool = True, augmentable: bool = True
) -> list[Epoch]:
    """Lay out the epochs of a run.

    Args:
        config: The resolved configuration.
        groups: Layer groups of the model.
        steps: Optimizer steps in which every sample is taken once.
        at_least: Frozen prefix that every phase keeps.
        separable: Whether the head can start from pooled features.
        augmentable: Whether the inputs can be augmented at all.

    Raises:
        UnknownGroupError: If a phase or ``freeze`` names a group that does not exist.
    """
    plan: list[Epoch] = []
    for index, (phase, count) in enumerate(unfold(config.recipe.phases, config.epochs, len(groups), steps)):
        frozen = prefix_of(phase, config, groups, at_least)
        augment = phase.augment and config.augment is not None and augmentable
        # Several views are augmented ones by themselves; without them, augmentation means a fresh image every epoch.
        fixed = not augment or config.views > 1
        cached = config.cache and not config.shard and frozen > 0 and fixed
        pooled = cached and separable and frozen == len(groups)
        total = phase.steps or count * steps
        for done in range(count):
            before = done * steps
            here = min(steps, total - before)
            plan.append(Epoch(phase, index, frozen, done, count, here, before, total, augment, cached, pooled))
    return plan


def next_phase(plan: list[Epoch], position: int) -> int:
    """Return the position of the first epoch of the phase after the one at ``position``; the plan's end if there is none."""
    index = plan[position].index
    return next((at for at in range(position, len(plan)) if plan[at].index > index), len(plan))


def prefix_of(phase: Phase, config: Config, groups: LayerGroups, at_least: int) -> int:
    """Return the length of the frozen prefix of a phase, in groups."""
    return max(at_least, _length(config.freeze, groups), _length(phase.frozen, groups))


def shallowest(config: Config, groups: LayerGroups, at_least: int) -> int:
    """Return the shortest frozen prefix of all phases, in groups: what is behind it trains at some time."""
    lengths = [_length(0 if phase.frozen == "each" else phase.frozen, groups) for phase in config.recipe.phases]
    return max(at_least, _length(config.freeze, groups), min(lengths))


def _length(reach: int | str, groups: LayerGroups) -> int:
    if isinstance(reach, str):
        reach = {"none": 0, "all": len(groups)}.get(reach, reach)
    if isinstance(reach, int) and reach < 0:  # so many groups from the head; a backbone with fewer trains as a whole
        reach = max(0, len(groups) + reach)
    return groups.prefix_length(reach)
