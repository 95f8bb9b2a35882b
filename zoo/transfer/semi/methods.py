"""The options of FixMatch and FlexMatch, which make the objective of a run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import DataError, OptionError, checked_fields, count, fault_list
from zoo.transfer.method import Method
from zoo.util.numbers import is_finite, is_whole

if TYPE_CHECKING:
    from zoo.data.table import Table
    from zoo.engine.loading.stream import View
    from zoo.engine.objective.objective import Objective
    from zoo.engine.objective.supervised import Supervised

STRONGEST = 30  # magnitude of RandAugment, or per cent of the words of a text
SHIFTED = (0.8, 1.0)  # share of an image that a weak view keeps, about the shift by an eighth of the papers
RANGE = (0.35, 1.0)  # that of a strong view


def _texts_of(item: Any) -> tuple[str, ...]:
    """Return a text as a tuple of one, and a pair as it is."""
    return (item,) if isinstance(item, str) else tuple(item)


@checked_fields
@dataclass(frozen=True)
class FixMatch(Method):
    """FixMatch (Sohn et al. 2020): few labels, and unlabelled samples whose strong view is to be predicted as their weak view is.

    A prediction for a weak view (flipped and slightly cropped) that is sure enough is the label of the strong view (a smaller crop, other
    colours, two operations of RandAugment, a rectangle erased). Of a text the weak view is the text, as in UDA (Xie et al. 2020), and the
    strong one lacks words and has others in another order (EDA, Wei & Zou 2019). The papers validate an average of the values, the run's
    ``ema=0.999``.

    Attributes:
        unlabelled: Data without labels, as for ``zoo.open_data``; labels that they may have are not read.
        threshold: Least probability of a prediction that is taken as a label, in [0, 1].
        weight: Weight of the loss on unlabelled samples, 0 or more.
        ratio: Unlabelled samples of a batch for each labelled one; 7 in the papers, at three times the cost.
        strength: Magnitude of RandAugment in the strong view, 1 to 30; 0 leaves it out. It needs torchvision. Of texts the percentage of
            the words that are deleted, and of those that are swapped.
    """

    name: ClassVar[str] = "fixmatch"

    unlabelled: Any
    threshold: float = 0.95
    weight: float = 1.0
    ratio: int = 1
    strength: int = 10

    def __post_init__(self) -> None:
        faults = []
        if not (is_finite(self.threshold) and 0 <= self.threshold <= 1):
            faults.append(f"threshold is {self.threshold!r}; it must be a probability in [0, 1]")
        if not (is_finite(self.weight) and self.weight >= 0):
            faults.append(f"weight is {self.weight!r}; it must be a number of at least 0")
        if not (is_whole(self.ratio) and self.ratio >= 1):
            faults.append(f"ratio is {self.ratio!r}; it must be a whole number of samples, at least 1")
        if not (is_whole(self.strength) and 0 <= self.strength <= STRONGEST):
            faults.append(f"strength is {self.strength!r}; it must be a whole number from 0 to {STRONGEST}")
        if faults:
            raise OptionError(fault_list(f"{type(self).__name__} cannot have these options:", faults))

    def __call__(self, base: Supervised) -> Objective:
        """Return the objective of a run.

        Raises:
            OptionError: If there are no weak and strong views of the model's inputs, or the task does not fit; all faults at once.
            DataError: If the unlabelled data cannot be opened, are too few, or are texts where the labels are of pairs.
        """
        from zoo.data.open import open_data
        from zoo.engine.loading.sources import beside_training, channels_of, reads
        from zoo.engine.loading.stream import Source
        from zoo.transfer.semi.matching import Matching

        if faults := self._faults(base):
            raise OptionError(fault_list(f"{self.name} cannot train like this:", faults))
        opened = open_data(self.unlabelled, labelled=False, reads=reads(base.model), channels=channels_of(base.model))
        table = beside_training(base.model, opened, base.sources["train"].table, base.config)
        self._check_size(table, base)
        return Matching(self.name, base, Source(table, views=self._views(base), ratio=self.ratio), self._rule())

    def _rule(self) -> Any:
        from zoo.transfer.semi.matching import Rule

        return Rule(self.threshold, self.weight)

    def _faults(self, base: Supervised) -> list[str]:
        from zoo.data.images.bands import PICTURE_CHANNELS
        from zoo.declare import Image, Text

        inputs, faults = base.model.inputs, []
        if not base.task.exclusive or base.task.per_token:
            faults.append(f"the task is {base.task.words}, and it needs one class per sample: task='single-label'")
        if isinstance(inputs, Text) and not self.strength:
            faults.append(
                "strength is 0, which leaves the strong view of a text as it is; give the percentage of the words to change, such as 10"
            )
        if isinstance(inputs, Text) and inputs.overflow == "windows":
            faults.append("overflow='windows': a text in windows has no views; take overflow='truncate'")
        if base.sources["train"].table.ready_made:
            faults.append("the data are float tensors outside [0, 1], which are not augmented; give images, or values in [0, 1]")
        if base.penalties and base.penalties.needs_inputs:
            faults.append("delta compares the activations of a pass, and there are several; leave it out")
        if self.strength and isinstance(inputs, Image):
            if inputs.channels not in PICTURE_CHANNELS:
                faults.append(
                    f"strength: RandAugment is for pictures of 1 or 3 channels, and the model takes {inputs.channels}; strength=0"
                )
            elif find_spec("torchvision") is None:
                faults.append("strength: RandAugment needs torchvision: pip install torchvision, or strength=0")
        return faults

    def _check_size(self, table: Table, base: Supervised) -> None:
        """Check that a step does not read a sample twice.

        Raises:
            DataError: With the number of samples that are needed.
        """
        from zoo.data.sources.read import LONE_TEXT

        least = self.ratio * min(base.config.samples, len(base.sources["train"].table))
        if table.source == LONE_TEXT:
            raise DataError(f"unlabelled={self.unlabelled!r} names no file of texts, so it would be one text; give a table or a list")
        if len(table) < least:
            found = f"the unlabelled {table.source} has {count(len(table), 'sample')}"
            remedy = "give more, or fewer per step (batch_size, ratio); without any, fit() trains on the labels alone"
            raise DataError(f"{found}, and a step of {self.name} reads {least}; {remedy}")
        if table.reads == "text" and isinstance(table.inputs[0], str) != isinstance(base.sources["train"].table.inputs[0], str):
            kinds = ("texts", "pairs of texts") if isinstance(table.inputs[0], str) else ("pairs of texts", "texts")
            raise DataError(
                f"the unlabelled {table.source} has {kinds[0]}, and the training data {kinds[1]}; give the same columns of both"
            )
        if table.reads == "text" and not any(len(part.split()) > 1 for part in chain.from_iterable(map(_texts_of, table.inputs))):
            raise DataError(f"the unlabelled {table.source} has no text of two words between blanks, so strong views would equal weak ones")

    def _views(self, base: Supervised) -> tuple[View, View]:
        """Return a weak and a strong view, flipped as often as the training images."""
        from zoo.data.images.augment import Augment
        from zoo.data.texts.augment import TextAugment
        from zoo.declare import Text
        from zoo.engine.loading.stream import View

        if isinstance(base.model.inputs, Text):
            return View(TextAugment()), View(TextAugment(delete=self.strength / 100, swap=self.strength / 100))
        usual = base.config.augment
        flip = 0.0 if usual is None else Augment(**usual).flip
        weak = Augment(scale=SHIFTED, ratio=(1.0, 1.0), flip=flip, jitter=0.0)
        strong = Augment(scale=RANGE, flip=flip, jitter=0.4, rand_augment=self.strength, erase=1.0)
        return View(weak), View(strong)


@checked_fields
@dataclass(frozen=True)
class FlexMatch(FixMatch):
    """FlexMatch (Zhang et al. 2021): FixMatch with a threshold per class, lower for classes of which less is learned yet.

    Attributes:
        unlabelled: Data without labels, as for ``zoo.open_data``; labels that they may have are not read.
        threshold: The threshold of the class that is learned best, in [0, 1].
        weight: Weight of the loss on unlabelled samples, 0 or more.
        ratio: Unlabelled samples of a batch for each labelled one; 7 in the papers, at three times the cost.
        strength: As of ``FixMatch``.
        low_start: Whether thresholds start low while few unlabelled samples have been predicted surely.
        floor: The least threshold of a class, in [0, 1]. 0 in the paper, where every prediction is taken until the first sure one; in a
            short run from a random head this teaches the first guesses. At 0.5 the class is likelier than all others together.
    """

    name: ClassVar[str] = "flexmatch"

    low_start: bool = True
    floor: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_finite(self.floor) and 0 <= self.floor <= 1):
            raise OptionError(f"floor is {self.floor!r}; it must be a probability in [0, 1]")
        if not isinstance(self.low_start, bool):
            raise OptionError(f"low_start is {self.low_start!r}; it must be true or false")

    def _rule(self) -> Any:
        from zoo.transfer.semi.matching import Rule

        return Rule(self.threshold, self.weight, by_class=True, low_start=self.low_start, floor=self.floor)
