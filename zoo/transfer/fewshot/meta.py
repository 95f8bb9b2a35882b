"""Learning to be adapted: MAML over the last layer groups, ANIL over the head alone, full or first order.

MAML (Finn et al. 2017) trains values from which a few steps on a few samples lead to a good model. Every batch makes episodes: of each
class a few samples are the support, the others the queries. Copies of the adapted values take gradient steps on the support, and the
loss of the queries trains the values that the copies began from, through these steps (full order) or as if they were constants (first
order). ANIL (Raghu et al. 2020) adapts the head alone. The head begins at zero in every episode, so that no order of classes is learned
(Ye & Chao 2022), and reads features of one length, so that its rate suits every backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from zoo.data.dataset import Batch
from zoo.engine.cache.forward import Forward
from zoo.engine.options.config import Config
from zoo.engine.options.recipe import Recipe
from zoo.engine.runtime.launch_env import launched
from zoo.errors import DataError, OptionError, checked_fields, did_you_mean, examples, fault_list
from zoo.models.task_model import TaskModel
from zoo.transfer.method import Method
from zoo.transfer.recipes import OWN_RECIPES
from zoo.transfer.solved_after import FeatureObjective, check_classes
from zoo.tuning import hold_statistics
from zoo.util.numbers import is_finite, is_whole

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised

ORDERS = ("first", "full")
SHOTS = 5
LENGTH = 10.0  # of the features that the head reads
Values = dict[str, Tensor]


def query_loss(weight: Tensor, features: Tensor, classes: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean cross entropy of the chosen samples.

    Args:
        weight: Of the head, ``(classes, dim + 1)``; the last column is the bias.
        features: ``(samples, dim)``, scaled to ``LENGTH``.
        classes: ``(samples,)``.
        chosen: ``(samples,)``, 1 for those that count and 0 for others.
    """
    rows = LENGTH * functional.normalize(features, dim=1)
    losses = functional.cross_entropy(rows @ weight[:, :-1].T + weight[:, -1], classes, reduction="none")
    return (losses * chosen).sum() / chosen.sum().clamp(min=1)


def adapted_head(features: Tensor, classes: Tensor, support: Tensor, options: Maml, count: int) -> Tensor:
    """Return a head that took the inner steps on the support from zero, ``(count, dim + 1)``; arguments as for ``query_loss``."""
    known = features if options.order == "full" else features.detach()
    weight = known.new_zeros(count, known.shape[1] + 1)
    for _ in range(options.inner_steps):
        weight = weight - options.inner_lr * grad(query_loss)(weight, known, classes, support)
    return weight if options.order == "full" else weight.detach()


def episode_masks(indices: Tensor, classes: Tensor, options: Maml, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Divide a batch into support and queries, once per episode; a function of its samples, so that every process does so alike.

    Args:
        indices: Rows of the samples in the training data, ``(samples,)``.
        classes: Their classes.
        options: The number of episodes and of shots. At most half of the samples of a class are support.
        seed: Seed of the run.

    Returns:
        Support and queries, each ``(episodes, samples)`` of 0 and 1. Samples without another of their class are neither.
    """
    random = np.random.default_rng([seed, *map(int, indices.tolist())])
    labels = classes.cpu().numpy()
    masks = np.zeros((2, options.tasks, len(labels)), dtype=np.float32)
    for episode in range(options.tasks):
        for name in np.unique(labels):
            rows = random.permutation(np.flatnonzero(labels == name))
            shots = min(options.shots or SHOTS, len(rows) // 2)
            masks[0, episode, rows[:shots]] = 1.0
            masks[1, episode, rows[shots:] if shots else rows[:0]] = 1.0
    support, queries = torch.from_numpy(masks).to(classes.device)
    return support, queries


class MamlObjective(FeatureObjective):
    """The loss of the queries after the inner steps, over the episodes of a batch.

    Args:
        base: The objective of the labels, which solves the head and validates.
        options: The method.
    """

    name = "maml"

    def __init__(self, base: Supervised, options: Maml) -> None:
        super().__init__(base)
        self._options = options
        self.cache_obstacle = "the inner steps of the groups need the inputs" if options.adapt_groups else ""

    def faults(self, config: Config) -> list[str]:
        """Return what keeps the head from being solved at the end, and several processes where each would need all inputs."""
        several = self._options.adapt_groups and launched() > 1
        alone = ["adapt_groups: the inner steps need all inputs in one process; leave --num-processes out, or take adapt_groups=0"]
        return super().faults(config) + (alone if several else [])

    def phase(self) -> AbstractContextManager[Any]:
        """Hold the statistics of BatchNorm: those of copies would overwrite each other."""
        if self._options.adapt_groups:
            hold_statistics(self.model.backbone)
        return nullcontext()

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean loss of the queries of all episodes, times the samples of the batch."""
        one, options = batch["train"], self._options
        indices = forward.gather(torch.as_tensor(one.indices, device=one.y.device))
        classes, count = forward.gather(one.y), self.model.num_classes
        support, queries = episode_masks(indices, classes, options, self._base.config.seed)
        if not options.adapt_groups:
            features = forward.gather(forward.features(one.x)).float()

            def of_head(known: Tensor, judged: Tensor) -> Tensor:
                return query_loss(adapted_head(features, classes, known, options, count), features, classes, judged)

            return len(classes) * vmap(of_head)(support, queries).mean()
        losses = [self._of_groups(one.x, classes, known, judged) for known, judged in zip(support, queries, strict=True)]
        return len(classes) * torch.stack(losses).mean()

    def _of_groups(self, x: Any, classes: Tensor, support: Tensor, queries: Tensor) -> Tensor:
        """Return the loss of the queries after the inner steps of the last groups and the head, of one episode."""
        model, options, count = self.model, self._options, self.model.num_classes
        start = adapted_names(model, options.adapt_groups)
        rest = {name: value for name, value in model.backbone.named_parameters() if name not in start}

        def features_of(values: Values) -> Tensor:
            return model.pool(functional_call(model.backbone, rest | values, (x,)), x).float()

        def support_loss(values: Values, weight: Tensor) -> Tensor:
            return query_loss(weight, features_of(values), classes, support)

        values, weight = dict(start), classes.new_zeros(count, model.spec.features.dim + 1, dtype=torch.float32)
        for _ in range(options.inner_steps):
            slopes, slope = grad(support_loss, argnums=(0, 1))(values, weight)
            if options.order == "first":  # the slopes count as constants
                slopes, slope = {name: each.detach() for name, each in slopes.items()}, slope.detach()
            values = {name: value - options.group_lr * slopes[name] for name, value in values.items()}
            weight = weight - options.inner_lr * slope
        return query_loss(weight, features_of(values), classes, queries)


def adapted_names(model: TaskModel, groups: int) -> Values:
    """Return the parameters of the last groups of the backbone that train, by their names in it."""
    wanted = {id(parameter) for group in model.groups[-groups:] for parameter in group.parameters() if parameter.requires_grad}
    return {name: parameter for name, parameter in model.backbone.named_parameters() if id(parameter) in wanted}


@checked_fields
@dataclass(frozen=True)
class Maml(Method):
    """Trains features from which a few samples of new classes are enough: ANIL, or MAML with ``adapt_groups`` (see the module).

    A batch needs several samples of each of its classes: ``batch_size`` should be a few times their number.

    Attributes:
        adapt_groups: Last layer groups that take inner steps beside the head; 0 is ANIL.
        order: ``first``, or ``full`` with the gradient through the inner steps.
        shots: Most samples of a class in the support, of which at most half of those in the batch are; None for ``SHOTS``.
        inner_steps: Gradient steps on the support.
        inner_lr: Their rate for the head.
        group_lr: Their rate for the groups.
        tasks: Episodes of a batch, which divide the same samples anew.

    Raises:
        OptionError: If a value is out of range.
    """

    adapt_groups: int = 0
    order: str = "full"
    shots: int | None = None
    inner_steps: int = 5
    inner_lr: float = 0.1
    group_lr: float = 0.01
    tasks: int = 4

    name: ClassVar[str] = "maml"
    recipe: ClassVar[Recipe] = OWN_RECIPES["maml"]

    def __post_init__(self) -> None:
        least = {"adapt_groups": 0, "shots": 1, "inner_steps": 1, "tasks": 1}
        given = {name: getattr(self, name) for name in least if (name, getattr(self, name)) != ("shots", None)}
        faults = [
            f"{name} is {value!r}; it must be a whole number, {least[name]} or more"
            for name, value in given.items()
            if not is_whole(value) or value < least[name]
        ]
        rates = {"inner_lr": self.inner_lr, "group_lr": self.group_lr}
        faults += [f"{name} is {rate!r}; it must be a number above 0" for name, rate in rates.items() if not is_finite(rate) or rate <= 0]
        if self.order not in ORDERS:
            faults.append(f"order is {self.order!r}{did_you_mean(str(self.order), ORDERS)}; it is one of {', '.join(ORDERS)}")
        if faults:
            raise OptionError(fault_list("Maml cannot train like this:", faults))

    def describe(self) -> dict[str, Any]:
        """Return the name and the options as plain data, ``shots`` as the number in use, which earlier versions recorded."""
        return super().describe() | {"shots": self.shots or SHOTS}

    def __call__(self, base: Supervised) -> MamlObjective:
        """Return the objective of a run.

        Raises:
            OptionError: If the task is not to choose one of several classes, or the backbone has fewer groups.
            DataError: If the data have no pair of equal or none of different classes, or fewer samples of a class than shots.
        """
        check_classes(base, self.name)
        counts = base.sources["train"].table.counts()
        if few := [f"{name} ({number})" for name, number in counts.items() if 0 < number < (self.shots or 0)]:
            raise DataError(f"shots is {self.shots}, and fewer training samples are there of {examples(few)}; lower shots, or add samples")
        if self.adapt_groups > (held := len(base.model.groups)):
            raise OptionError(f"adapt_groups is {self.adapt_groups}, and {base.model.spec.name!r} has {held} layer groups")
        return MamlObjective(base, self)
