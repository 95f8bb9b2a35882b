"""Recipes and their phases, as frozen values. No torch here."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace

from zoo.errors import OptionError, checked_fields, did_you_mean, examples, fault_list

SCHEDULES = ("cosine", "one-cycle", "linear", "constant", "step", "plateau")
# Optimizers whose weight decay is added to the gradient; the recipes' values are meant for AdamW's decoupled decay.
COUPLED = frozenset({"sgd", "adam", "nadam", "radam", "rmsprop", "adagrad", "adadelta", "adamax", "asgd"})
RESERVED = ("average", "wise-ft", "refit-bias")  # stages after the last phase
LEAST_BATCH, MOST_BATCH, STEPS_OF_EPOCH = 8, 32, 50  # see docs/defaults.md
MOST_EPOCHS = 30  # to which ``least_steps`` lengthens a phase
RANKED = ("lora", "dora", "loha", "lokr", "adalora")  # kinds of updates that have a rank
WIDE, LONG = ("adapter", "adaptformer"), ("prompt", "prefix")  # kinds that have a width, and a number of tokens
UPDATES = (*RANKED, "ia3", "ssf", *WIDE, *LONG)  # see ``zoo.tuning.efficient.kinds``
TRAINS = ("all", "bias", *UPDATES)


@checked_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of a recipe.

    Attributes:
        name: Name in logs and curves.
        frozen: Extent of the frozen prefix: ``none``, ``all``, a number of groups, a group's name (inclusive), a negative
            number for all but so many groups from the head, or ``each`` for one phase per group, from the head down.
        share: Its share of the epochs, relative to the other phases.
        epochs: Fixed number of epochs; ``share`` is then ignored.
        steps: Fixed number of optimizer steps, instead of epochs.
        lr: Factor on every learning rate during this phase.
        schedule: Its learning-rate schedule; the recipe's if None.
        augment: Whether training images are augmented in this phase.
        solve: Whether a linear head on fixed features is solved for its optimum, in one epoch without steps, where it can be.
        least_steps: Optimizer steps that the phase has at least, unless ``fit`` is given a number of epochs: it gets more epochs
            for them, at most ``MOST_EPOCHS``.
    """

    name: str
    frozen: int | str = "none"
    share: float = 1.0
    epochs: int | None = None
    steps: int | None = None
    lr: float = 1.0
    schedule: str | None = None
    augment: bool = True
    solve: bool = False
    least_steps: int = 0

    def __post_init__(self) -> None:
        numbers = {"share": self.share, "lr": self.lr}
        faults = [f"{name} is {value!r}; it must be a number above 0" for name, value in numbers.items() if not _is_above(value, 0)]
        lengths = {"epochs": self.epochs, "steps": self.steps}
        faults += [
            f"{name} is {value!r}; it must be a whole number, 1 or more"
            for name, value in lengths.items()
            if value is not None and not (isinstance(value, int) and _is_above(value, 0))
        ]
        if not isinstance(self.least_steps, int) or not _is_above(self.least_steps, -1):
            faults.append(f"least_steps is {self.least_steps!r}; it must be a whole number, 0 or more")
        elif self.least_steps and (self.epochs or self.steps):
            faults.append("least_steps has no effect beside a fixed number of epochs or steps; give one of them")
        if self.epochs is not None and self.steps is not None:
            faults.append("epochs and steps are both given; a phase has one of them")
        if isinstance(self.frozen, bool) or not isinstance(self.frozen, int | str):
            faults.append(f"frozen is {self.frozen!r}; it must be a whole number, a group's name, none, all or each")
        if self.schedule is not None and self.schedule not in SCHEDULES:
            near = did_you_mean(str(self.schedule), SCHEDULES)
            faults.append(f"schedule is {self.schedule!r}{near}; it is one of {', '.join(SCHEDULES)}")
        if not isinstance(self.name, str) or self.name in ("", *RESERVED):
            faults.append(f"name is {self.name!r}; it must be a text, and not one of {', '.join(RESERVED)}, which the history uses itself")
        if faults:
            raise OptionError(fault_list(f"phase {self.name!r} has faults:", faults, culprit=f"phase {self.name!r}"))


def _is_above(value: object, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least < value < math.inf


@checked_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a model is fine-tuned: the phases and the defaults of every option that a recipe decides.

    Attributes:
        name: Name for ``fit(recipe=…)``.
        phases: The phases in order.
        lr: Learning rate of the head, per optimizer step.
        layer_decay: Factor per layer group toward the input, in (0, 1].
        weight_decay: Decoupled decay, as AdamW defines it. Left at its default, it is 1e-4 at most with an optimizer that adds it to
            the gradient.
        epochs: Epochs of all phases together, of which a phase that is solved gives back all but one.
        batch_size: Samples of a batch; None takes ``batch_size_for`` the number of samples.
        warmup: Share of each phase's steps over which the rate rises. Left at its default, it is 0.3 with ``one-cycle``.
        label_smoothing: In [0, 1).
        augment: ``none``, ``auto``, ``light`` or ``strong``.
        freeze_bn: Whether BatchNorm statistics of a pretrained backbone stay fixed in the groups that train.
        optimizer: One of torch's or timm's optimizers, by name.
        schedule: One of ``SCHEDULES``.
        trains: Which parameters train in the groups that are not frozen: ``all``, ``bias``, or the updates of a kind
            such as ``lora``.
        l2_sp: Weight of the squared distance to the pretrained values (L2-SP).
        delta: Weight of the squared distance to the pretrained features (DELTA).
        bss: Weight of the squares of the smallest singular values of the features (BSS).
        drop_path: Stochastic depth, in [0, 1).
        dropout: Dropout in the groups that train and before the head's last layer, in [0, 1); None leaves the backbone's own.
        ema: Decay per step of a moving average of the values, in [0, 1); 0 is off.
        average: Share of the last epochs whose values are averaged, in [0, 1]; 0 is off.
        wise_ft: Share of the fine-tuned values in the result, in (0, 1]; the rest comes from before the last phase.
        description: One sentence.
    """

    name: str
    phases: tuple[Phase, ...]
    lr: float = 1e-3
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    epochs: int = 20
    batch_size: int | None = None
    warmup: float = 0.1
    label_smoothing: float = 0.0
    augment: str = "auto"
    freeze_bn: bool = False
    optimizer: str = "adamw"
    schedule: str = "cosine"
    trains: str = "all"
    l2_sp: float = 0.0
    delta: float = 0.0
    bss: float = 0.0
    drop_path: float = 0.0
    dropout: float | None = None
    ema: float = 0.0
    average: float = 0.0
    wise_ft: float = 1.0
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.phases, tuple | list):
            raise OptionError(f"recipe {self.name!r} has phases={self.phases!r}; give a tuple of them: phases=(Phase(…),)")
        strange = [phase for phase in self.phases if not isinstance(phase, Phase)]
        if strange or not self.phases:
            raise OptionError(f"recipe {self.name!r} has {examples(strange) if strange else 'no phases'}; give it one Phase or more")
        names = [phase.name for phase in self.phases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise OptionError(f"recipe {self.name!r} has several phases called {', '.join(twice)}; give each a name of its own")


# Fields of a recipe that an option of the run replaces.
DECIDED = tuple(field.name for field in fields(Recipe) if field.name not in ("name", "phases", "augment", "description"))


def batch_size_for(samples: int) -> int:
    """Return the batch size for a number of training samples: the largest power of two from 8 to 32 that gives an epoch 50 steps."""
    size = LEAST_BATCH
    while 2 * size <= min(MOST_BATCH, samples // STEPS_OF_EPOCH):
        size *= 2
    return size


def phase_epochs(recipe: Recipe, epochs: int | None = None, solved: Collection[Phase] = ()) -> list[int]:
    """Divide epochs among the phases of a recipe by their shares, at least one each; the last phase gets the remainder.

    Phases with a fixed number of epochs or steps do not take part; one given in steps counts as one epoch. With fewer epochs
    than phases the first phases get one each and the others none. A phase that is solved takes one epoch.

    Args:
        recipe: The recipe.
        epochs: Epochs of all phases together; None takes the recipe's, of which the other phases then get what they would
            have if none was solved.
        solved: The phases that are solved.
    """
    shared = [phase for phase in recipe.phases if phase.epochs is None and phase.steps is None]
    shares = [phase.share if epochs is None or phase not in solved else 0.0 for phase in shared]
    counts = iter(_shared_epochs(shares, recipe.epochs if epochs is None else epochs))
    found = [next(counts) if phase in shared else phase.epochs or 1 for phase in recipe.phases]
    return [min(count, 1) if phase in solved else count for phase, count in zip(recipe.phases, found, strict=True)]


def _shared_epochs(shares: Sequence[float], epochs: int) -> list[int]:
    if epochs < len(shares):
        return [1] * epochs + [0] * (len(shares) - epochs)
    total = sum(shares) or 1.0
    left, result = epochs, []
    for position, share in enumerate(shares[:-1]):
        after = len(shares) - position - 1
        result.append(min(max(1, round(epochs * share / total)), left - after))
        left -= result[-1]
    return [*result, left][: len(shares)]


def unfold(recipe: Recipe, epochs: int | None, groups: int, steps: int, solved: Collection[Phase] = ()) -> list[tuple[Phase, int]]:
    """Return the phases with their epochs; a phase with ``each`` becomes one phase per group, from the head down.

    With fewer epochs than groups each of these unfreezes several groups, evenly. A phase given in steps has as many epochs of
    ``steps`` each as it begins.

    Args:
        recipe: The recipe.
        epochs: As for ``phase_epochs``.
        groups: Number of layer groups.
        steps: Optimizer steps of one pass over the samples.
        solved: The phases that are solved.
    """
    result: list[tuple[Phase, int]] = []
    for phase, shared in zip(recipe.phases, phase_epochs(recipe, epochs, solved), strict=True):
        count = shared if phase.steps is None else -(-phase.steps // steps)
        if phase.least_steps and epochs is None and phase not in solved:
            count = max(count, min(MOST_EPOCHS, -(-phase.least_steps // steps)))
        if phase.frozen != "each":
            result.append((phase, count))
            continue
        parts = min(groups, count)
        depths = [groups - math.ceil(groups * (part + 1) / parts) for part in range(parts)]
        stages = [replace(phase, name=f"{phase.name} {part + 1}/{parts}", frozen=depth) for part, depth in enumerate(depths)]
        result += zip(stages, _shared_epochs([1.0] * parts, count), strict=True)
    return result
