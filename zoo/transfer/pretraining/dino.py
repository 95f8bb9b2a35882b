"""DINO: from crops of an image a student predicts the outputs of its moving average for large crops (Caron et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from zoo.data.dataset import Batch
from zoo.data.images.augment import Augment
from zoo.declare import Image
from zoo.engine.cache.forward import Forward
from zoo.engine.loading.stream import View
from zoo.engine.options.recipe import Recipe
from zoo.errors import OptionError, checked_fields, fault_list
from zoo.transfer.method import Method
from zoo.transfer.pretraining.objective import SelfSupervised
from zoo.transfer.pretraining.patches import patch_side
from zoo.transfer.pretraining.teacher import Prototypes, Teacher, dino_loss, momentum_at
from zoo.transfer.recipes import OWN_RECIPES
from zoo.util.numbers import is_finite, is_whole

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised
    from zoo.models.task_model import TaskModel

GLOBAL, LOCAL = (0.4, 1.0), (0.05, 0.4)  # share of an image that a crop keeps
LOCAL_SIDE = 96 / 224  # of a local crop in that of a global one
SMALLEST = 32  # pixels of a local crop


class Crops(SelfSupervised):
    """Global and local crops of each image, from each of which the student predicts the teacher's outputs for the global ones.

    Args:
        base: The objective of the labels, whose training data are used.
        method: The options.
    """

    name, separable, pooled = "dino", False, False
    cache_obstacle = "every crop of an image passes through the whole network"

    def __init__(self, base: Supervised, method: Dino) -> None:
        super().__init__(base, views=crops(base, method.local_views))
        self._method = method
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(base.config.seed)
            widths = {"hidden": method.hidden, "width": method.bottleneck}
            self.projection = Prototypes(base.model.spec.features.dim, method.prototypes, **widths)
        self.teacher = Teacher(base.model, self.projection)
        self.module = nn.ModuleDict({"model": base.model, "projection": self.projection, "teacher": self.teacher})
        # Of each batch of the step that is not taken yet: the sum of the teacher's outputs, and their number.
        self._taught: dict[tuple[int, ...], tuple[Tensor, int]] = {}

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean loss of all pairs of crops, times the number of images."""
        one, method = batch["train"], self._method
        with torch.no_grad(), forward.autocast():
            taught = [forward.gather(self.teacher(x)).float() for x in (one.x, one.views[0])]
        found = [self._projected(forward, x) for x in (one.x, *one.views)]
        rows = torch.cat(taught)
        self._taught[tuple(one.indices)] = (rows.sum(0), len(rows))
        temperatures = {"teacher_temperature": method.teacher_temperature, "student_temperature": method.student_temperature}
        return len(taught[0]) * dino_loss(taught, found, self.teacher.center, **temperatures)

    def _projected(self, forward: Forward, x: Tensor) -> Tensor:
        features = forward.features(x)
        with forward.autocast():
            return forward.gather(self.projection(features)).float()

    def after_step(self) -> None:
        """Move the teacher and its centre."""
        self.teacher.follow((self.model, self.projection), momentum_at(self._steps, self.total_steps, self._method.teacher_momentum))
        if self._taught:
            sums, counts = zip(*self._taught.values(), strict=True)
            self.teacher.center.lerp_(torch.stack(sums).sum(0) / sum(counts), 1 - self._method.center_momentum)
            self._taught = {}
        super().after_step()


def crops(base: Supervised, local: int) -> list[View]:
    """Return two global views and some local ones, smaller where the backbone runs at other sizes; flipped as the run flips its images."""
    inputs = base.model.inputs
    usual = Augment(**(base.config.augment or {"flip": 0.0, "jitter": 0.0}))
    shared = {"flip": usual.flip, "jitter": usual.jitter}
    size = None
    if isinstance(inputs, Image) and not inputs.fixed_size and (step := _step_of_sizes(base.model)):
        size = tuple(local_side(side, step) for side in (inputs.height, inputs.width))
    large, small = View(Augment(scale=GLOBAL, **shared)), View(Augment(scale=LOCAL, **shared), size)  # type: ignore[arg-type]  # of two
    return [large, large, *[small] * local]


def local_side(side: int, step: int) -> int:
    """Return the side of a local crop in pixels, a multiple of ``step`` if the global one, ``side`` pixels, is."""
    least = step * math.ceil(min(side, SMALLEST) / step)
    return min(side, max(least, step * round(side * LOCAL_SIDE / step)))


def _step_of_sizes(model: TaskModel) -> int | None:
    """Return what sides of local crops are multiples of: the side of a patch, or about eight pixels; None for full sizes alone."""
    side = patch_side(model)
    if side is None:
        return None if model.spec.features.layout == "BND" else 8
    return side * math.ceil(8 / side)


@checked_fields
@dataclass(frozen=True)
class Dino(Method):
    """DINO (Caron et al. 2021): from any crop of an image a network predicts the outputs of its own moving average for large crops.

    There are no negatives, so small batches do; the outputs of the average, the teacher, are centred and sharpened, which keeps features
    apart. Crops are flipped, and change brightness, contrast and saturation, as the run's ``augment`` says; blur and solarisation of the
    paper are not there.

    Attributes:
        local_views: Small crops of each image beside the two large ones, 0 or more.
        prototypes: Width of the outputs; 65536 in the paper, for a million images.
        hidden: Width of the hidden layers of the projection, which is dropped afterwards.
        bottleneck: Width of its last layer but one.
        teacher_temperature: What the teacher's outputs are divided by, above 0.
        student_temperature: What the student's outputs are divided by, above 0.
        teacher_momentum: Share of its values that the teacher keeps in the first step, in [0, 1); it rises to 1.
        center_momentum: Share of the centre that stays in a step, in [0, 1).

    Raises:
        OptionError: If a value is out of range.
    """

    local_views: int = 4
    prototypes: int = 4096
    hidden: int = 1024
    bottleneck: int = 256
    teacher_temperature: float = 0.04
    student_temperature: float = 0.1
    teacher_momentum: float = 0.99
    center_momentum: float = 0.9

    name: ClassVar[str] = "dino"
    recipe: ClassVar[Recipe] = OWN_RECIPES["dino"]
    reads: ClassVar[tuple[str, ...]] = ("image",)

    def __post_init__(self) -> None:
        faults = []
        for name, least in (("local_views", 0), ("prototypes", 2), ("hidden", 1), ("bottleneck", 1)):
            value = getattr(self, name)
            if not is_whole(value) or not least <= value <= 2**18:
                faults.append(f"{name} is {value!r}; it must be a whole number from {least} to {2**18}")
        for name in ("teacher_temperature", "student_temperature"):
            value = getattr(self, name)
            if not is_finite(value) or value <= 0:
                faults.append(f"{name} is {value!r}; it must be a number above 0")
        for name in ("teacher_momentum", "center_momentum"):
            value = getattr(self, name)
            if not is_finite(value) or not 0 <= value < 1:
                faults.append(f"{name} is {value!r}; it must be a number from 0 to below 1")
        if faults:
            raise OptionError(fault_list("Dino cannot train like this:", faults))

    def __call__(self, base: Supervised) -> Crops:
        """Return the objective of a run.

        Raises:
            OptionError: If the images cannot be cropped; all faults at once.
        """
        faults = []
        if base.sources["train"].table.ready_made:
            faults.append("the data are float tensors outside [0, 1], which are not cropped; give images, or values in [0, 1]")
        if base.own_augment:
            faults.append("augment is a function, and DINO makes its crops itself; give fields such as {'flip': 0.0}")
        if faults:
            raise OptionError(fault_list("DINO cannot train like this:", faults))
        return Crops(base, self)
