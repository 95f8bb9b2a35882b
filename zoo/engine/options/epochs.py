"""The epochs of a run, one entry each, with the frozen prefix resolved to a number of groups."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from zoo.engine.options.config import Config
from zoo.engine.options.recipe import Phase, unfold
from zoo.models.heads import LinearHead, TokenHead
from zoo.models.layers import LayerGroups
from zoo.models.task_model import TaskModel
from zoo.tasks.find import find_task
from zoo.tasks.losses import CONVEX


@dataclass(frozen=True)
class Epoch:
    """One epoch of a run.

    Attributes:
        phase: Its phase.
        index: Position of the phase in the recipe.
        frozen: Length of the frozen prefix, in groups.
        done: Epochs of the same phase before this one.
        of: Epochs of the phase.
        steps: Optimizer steps of this epoch.
        before: Optimizer steps of the same phase before this epoch.
        total: Optimizer steps of the phase.
        augment: Whether images are augmented.
        cached: Whether the outputs of the frozen prefix are computed once: a prefix is frozen and every view of a sample fixed.
        pooled: Whether these are pooled features: all groups are frozen, and the head can start from pooled features.
        solved: Whether the head is solved for its optimum, without steps.
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
    solved: bool = False


def list_epochs(
    config: Config,
    groups: LayerGroups,
    *,
    steps: int,
    at_least: int = 0,
    separable: bool = True,
    steps_pooled: bool = True,
    solvable: bool = False,
    per_token: bool = False,
    augmentable: bool = True,
    steady: bool = True,
) -> list[Epoch]:
    """Return the epochs of a run.

    Args:
        config: The resolved configuration.
        groups: Layer groups of the model.
        steps: Optimizer steps of one pass over the samples.
        at_least: Shortest frozen prefix of every phase, in groups.
        separable: Whether the head can start from pooled features.
        steps_pooled: Whether steps may do so too, and not only the solution of the head.
        solvable: Whether its optimum on these can be computed.
        per_token: Whether these are features of words, which only the solution of the head needs.
        augmentable: Whether the inputs can be augmented at all.
        steady: Whether a sample is the same each time that it is read.

    Raises:
        UnknownGroupError: If a phase or ``freeze`` names a group that does not exist.
    """

    def augments(phase: Phase) -> bool:
        return phase.augment and config.augment is not None and augmentable

    def is_cached(phase: Phase, frozen: int) -> bool:
        # Several views are augmented once and fixed; a single one is augmented anew every epoch.
        return steady and (not augments(phase) or config.views > 1) and config.cache and not config.shard and frozen > 0

    def is_pooled(phase: Phase, frozen: int) -> bool:
        return is_cached(phase, frozen) and separable and frozen == len(groups)

    def is_solved(phase: Phase) -> bool:
        if not solvable or not phase.solve or phase.frozen == "each":
            return False
        frozen = prefix_of(phase, config, groups, at_least)
        return is_pooled(phase, frozen) or (per_token and frozen == len(groups) and is_cached(phase, frozen))

    solved = [phase for phase in config.recipe.phases if is_solved(phase)]
    epochs: list[Epoch] = []
    for index, (phase, count) in enumerate(unfold(config.recipe, config.epochs, len(groups), steps, solved)):
        frozen = prefix_of(phase, config, groups, at_least)
        # The only epoch of a solved phase reads the features of words once; nothing would read stored ones again.
        cached = is_cached(phase, frozen) and not (per_token and phase in solved)
        pooled = is_pooled(phase, frozen) and (steps_pooled or phase in solved)
        kind = (augments(phase), cached, pooled, phase in solved)
        total = 0 if phase in solved else phase.steps or count * steps
        for done in range(count):
            before = done * steps
            here = min(steps, total - before)
            epochs.append(Epoch(phase, index, frozen, done, count, here, before, total, *kind))
    return epochs


def reads_pooled(head: nn.Module) -> bool:
    """Return whether a head can start from stored pooled features: its pooling has no parameters of its own."""
    pool = getattr(head, "pool", None)
    return hasattr(head, "logits") and isinstance(pool, nn.Module) and not any(True for _ in pool.parameters())


def has_solvable_head(model: TaskModel, config: Config) -> bool:
    """Return whether the head is linear and its loss convex, so that a phase with ``solve`` can compute its optimum.

    Several views, drawn samples, dropout and moving averages are about steps; they are trained.
    """
    head = model.head
    # A head for tokens has dropout by default; it applies to later phases only.
    linear = (type(head) is TokenHead or (type(head) is LinearHead and not head.dropout.p)) and not config.dropout
    task = find_task(model.task)
    convex = (config.loss or next(iter(task.losses), "")) in CONVEX or (task.convex and not config.loss)
    trained = config.views > 1 or config.balanced_sampling or config.ema or config.l2_sp or config.delta or config.bss
    return config.solve_head and linear and convex and not trained


def next_phase(epochs: list[Epoch], position: int) -> int:
    """Return the position of the first epoch of the phase after the one at ``position``; the number of epochs if there is none."""
    index = epochs[position].index
    return next((at for at in range(position, len(epochs)) if epochs[at].index > index), len(epochs))


def prefix_of(phase: Phase, config: Config, groups: LayerGroups, at_least: int) -> int:
    """Return the length of the frozen prefix of a phase, in groups."""
    return max(at_least, _length(config.freeze, groups), _length(phase.frozen, groups))


def shortest_frozen_prefix(config: Config, groups: LayerGroups, at_least: int) -> int:
    """Return the shortest frozen prefix of all phases, in groups; all groups after it train in some phase."""
    lengths = [_length(0 if phase.frozen == "each" else phase.frozen, groups) for phase in config.recipe.phases]
    return max(at_least, _length(config.freeze, groups), min(lengths))


def _length(reach: int | str, groups: LayerGroups) -> int:
    if isinstance(reach, str):
        reach = {"none": 0, "all": len(groups)}.get(reach, reach)
    if isinstance(reach, int) and reach < 0:  # all but so many groups; a backbone with fewer groups trains entirely
        reach = max(0, len(groups) + reach)
    return groups.prefix_length(reach)
