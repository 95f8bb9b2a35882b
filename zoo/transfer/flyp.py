"""Fine-tuning a dual encoder by the contrastive loss of its pretraining, between images and texts about their classes."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.data.dataset import Batch
from zoo.declare import Text
from zoo.engine.cache.forward import Forward
from zoo.engine.objective.objective import Objective
from zoo.engine.options.config import Config
from zoo.engine.options.epochs import shortest_frozen_prefix
from zoo.engine.options.recipe import Recipe
from zoo.errors import OptionError, ZooError, checked_fields, fault_list
from zoo.models.backbone import Backbone
from zoo.models.find import find_backbone
from zoo.models.pairs.towers import pair_of
from zoo.models.pairs.zero_shot import ZeroShotHead, class_embeddings, scale_and_bias, set_classes, text_tower, tokens_of
from zoo.models.task_model import TaskModel
from zoo.transfer.method import Method
from zoo.transfer.recipes import OWN_RECIPES
from zoo.transfer.solved_after import check_classes

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised

LARGEST_SCALE = 100.0  # as in the pretraining of CLIP


def softmax_pairs(logits: Tensor) -> Tensor:
    """Return the mean over samples of the cross-entropies of rows and of columns, halved (CLIP, Radford et al. 2021, figure 3).

    Args:
        logits: Of each image with each text, ``(samples, samples)``; those of sample i belong together.
    """
    targets = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def sigmoid_pairs(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the mean over images of the summed losses of their pairs with all texts (SigLIP, Zhai et al. 2023).

    Args:
        logits: Of each image with each text, ``(samples, samples)``.
        classes: ``(samples,)``; a text of the same class belongs to an image too.
    """
    sign = 2.0 * (classes[:, None] == classes[None]) - 1.0
    return -functional.logsigmoid(sign * logits).sum() / len(logits)


def products(images: Tensor, texts: Tensor) -> Tensor:
    """Return the products of each image with each text, ``(samples, samples)``, in float32 also under autocast."""
    with torch.autocast(images.device.type, enabled=False):  # bf16 has too few digits for cosines near one
        return images.float() @ texts.float().T


class TextSide(nn.Module):
    """The text tower with the scale and the bias of the logits.

    Args:
        tower: The tower.
        scale: Factor on cosines.
        bias: What is added to them; it trains only where the loss is ``sigmoid``, as it has no effect on the other one.
        trains_bias: Whether it trains.
    """

    def __init__(self, tower: nn.Module, scale: float, bias: float, *, trains_bias: bool) -> None:
        super().__init__()
        self.tower = tower
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=trains_bias)
        self._largest = math.log(max(LARGEST_SCALE, scale))

    @property
    def scale(self) -> Tensor:
        """The factor on cosines."""
        return self.log_scale.exp()

    @torch.no_grad()
    def limit(self) -> None:
        """Hold the factor at ``LARGEST_SCALE``, or at its start where that is larger: the value and not its gradient, as in CLIP."""
        self.log_scale.clamp_(max=self._largest)


class FlypObjective(Objective):
    """The contrastive loss between the images of a batch and a text about the class of each; see ``Flyp``.

    Args:
        base: The objective of the labels, which validates.
        side: The text tower.
        inputs: Its declared input.
        loss: ``softmax`` or ``sigmoid``.
        train_text: Whether the tower trains.
    """

    name = "flyp"
    separable = by_length = False

    def __init__(self, base: Supervised, side: TextSide, inputs: Text, *, loss: str, train_text: bool) -> None:
        super().__init__(base.model, base.sources, base.valid, monitor=base.monitor)
        self.validate = base.validate  # type: ignore[method-assign]  # the same signature
        assert isinstance(base.model.head, ZeroShotHead), "the method has checked it"
        self._head, self._loss, self._seed, self._steps = base.model.head, loss, base.config.seed, 0
        self._prompts, self._inputs = self._head.prompts(base.sources["train"].table.classes), inputs
        self._tokens = tokens_of(inputs, [text for texts in self._prompts for text in texts])
        self._train_text, self.side = train_text, side
        side.tower.requires_grad_(train_text)
        self.module = nn.ModuleDict({"model": base.model, "side": side})

    def faults(self, config: Config) -> list[str]:
        """Return why nothing would train, and which averages the head would not be part of."""
        reason = (
            "averages without the head that the text tower gives; leave it out, and mix with the start by zoo.select.wise_ft afterwards"
        )
        faults = [f"{name}={value} {reason}" for name, value in (("ema", config.ema), ("average", config.average)) if value]
        frozen = shortest_frozen_prefix(config, self.model.groups, self.model.frozen)
        if frozen == len(self.model.groups) and not self._train_text:
            faults.append("both towers are frozen, so nothing trains; take a recipe that trains the image tower, or train_text=True")
        return faults

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the mean contrastive loss of the whole batch, times its samples."""
        one, side = batch["train"], self.side
        images = functional.normalize(forward.features(one.x).float(), dim=-1)
        # One text of each class in a step: the text tower runs once per class that is in the batch.
        present, place = torch.unique(one.y, return_inverse=True)
        rows = [self._text_of(int(each)) for each in present.tolist()]
        with forward.autocast():
            texts = side.tower({name: values[rows].to(one.y.device) for name, values in self._tokens.items()})
        texts = functional.normalize(texts.float(), dim=-1)[place]
        # Scale and bias go in before rows of other ranks join, whose gradient flows to their own rank.
        ones = images.new_ones(len(images), 1)
        images = forward.gather(torch.cat([side.scale * images, ones], 1))
        texts = forward.gather(torch.cat([texts, side.bias * ones], 1))
        classes, logits = forward.gather(one.y), products(images, texts)
        return len(classes) * (softmax_pairs(logits) if self._loss == "softmax" else sigmoid_pairs(logits, classes))

    def _text_of(self, number: int) -> int:
        """Return the row of the text of a class in this step: a function of the seed, the step and the class."""
        count = len(self._prompts[number])
        return number * count + random.Random(f"{self._seed}/{self._steps}/{number}").randrange(count)

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Make the head anew after the steps of an epoch, from the text tower as it is then."""
        yield
        self._fill_head()

    @torch.no_grad()
    def _fill_head(self) -> None:
        training = self.side.training
        try:
            embeddings = class_embeddings(self.side.eval().tower, self._inputs, self._prompts)
        finally:
            self.side.train(training)
        set_classes(self._head, embeddings, float(self.side.scale), float(self.side.bias))

    def after_step(self) -> None:
        """Limit the scale, and count the step, on which the choice of texts depends."""
        self.side.limit()
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps."""
        return {"steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over the number of steps."""
        self._steps = int(state["steps"])


@checked_fields
@dataclass(frozen=True)
class Flyp(Method):
    """Fine-tunes as the dual encoder was pretrained (FLYP, Goyal et al. 2023): each image is to match a text about its class.

    The loss is that of the pretraining, over the batch, between images and texts about their classes; as in the paper two samples of one
    class count as different pairs under the loss of CLIP. The model needs a zero-shot head, which is made anew after each epoch from the
    text tower: the result is a classifier of images like any other.

    Attributes:
        text: Name, folder or ``Backbone`` of the dual encoder whose text tower is taken, for a model that was opened from a folder, which
            holds no such tower; None for the model's own, or that of the published weights that a saved model says it began with.
        train_text: Whether the text tower trains too.

    Raises:
        OptionError: If a value is of another type.
    """

    text: Any = None
    train_text: bool = True

    name: ClassVar[str] = "flyp"
    recipe: ClassVar[Recipe] = OWN_RECIPES["flyp"]

    def __post_init__(self) -> None:
        faults = []
        if self.text is not None and not isinstance(self.text, str | os.PathLike | Backbone):
            faults.append(f"text is {type(self.text).__name__}; give the name, the folder or the Backbone of a dual encoder, or None")
        if not isinstance(self.train_text, bool):
            faults.append(f"train_text is {self.train_text!r}; it must be True or False")
        if faults:
            raise OptionError(fault_list("Flyp cannot have these options:", faults))

    def __call__(self, base: Supervised) -> FlypObjective:
        """Return the objective of a run.

        Raises:
            OptionError: If the task is not to choose one of several classes, the head is no zero-shot head, or there is no text tower.
            DataError: If the data have one class only.
        """
        check_classes(base, self.name)
        model = base.model
        if not isinstance(model.head, ZeroShotHead):
            remedy = "begin with zoo.get(NAME).zero_shot(classes) (--head zero-shot)"
            raise OptionError(f"the objective 'flyp' needs a zero-shot head, and this model's is {model.head_name!r}; {remedy}")
        encoder = self._encoder(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(base.config.seed)
            texts = text_tower(encoder, "the objective 'flyp'")
            tower = texts.fresh().model
        if texts.spec.features.dim != model.spec.features.dim:
            raise OptionError(
                f"text: the embeddings of {texts.spec.name!r} have {texts.spec.features.dim} values, and those of the model "
                f"{model.spec.features.dim}; give the dual encoder that the model is from"
            )
        pair, inputs = pair_of(encoder.spec, "the objective 'flyp'"), texts.spec.inputs
        assert isinstance(inputs, Text), "a pair has checked it"
        side = TextSide(tower, *scale_and_bias(encoder), trains_bias=pair.loss == "sigmoid")
        return FlypObjective(base, side, inputs, loss=pair.loss, train_text=self.train_text)

    def _encoder(self, model: TaskModel) -> Backbone:
        if isinstance(self.text, Backbone):
            return self.text
        if self.text is not None:
            return find_backbone(self.text)
        if model.spec.pair is None and (found := _published(model)) is not None:
            return found
        if model.spec.pair is None:
            remedy = "name its dual encoder: Flyp(text='hf/OWNER/MODEL') (--set text=NAME)"
            raise OptionError(f"the objective 'flyp' trains a text tower too, which a model opened from a folder does not hold; {remedy}")
        return Backbone(model.spec, weights=None if model.pretrained else False)


def _published(model: TaskModel) -> Backbone | None:
    """Return the dual encoder whose published weights a saved model began with; None where its name means other weights here."""
    began = next((origin for origin in model.origins if origin.step == "weights"), None)
    try:
        found = find_backbone(began.name) if began else None
    except ZooError:  # of a plugin that is not installed, or of a repository that is not at hand
        return None
    return found if found is not None and found.spec.pair is not None and began in found.origins else None
