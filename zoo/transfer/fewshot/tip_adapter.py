"""Tip-Adapter: a zero-shot classifier with a cache of a few labelled samples beside it (Zhang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from zoo.errors import OptionError, fault_list
from zoo.models.backbone import Backbone
from zoo.models.pairs.zero_shot import ZeroShotHead
from zoo.models.task_model import TaskModel
from zoo.transfer.fewshot.heads import Logits
from zoo.util.numbers import is_finite

TIP_METHODS = ("tip-adapter", "tip-adapter-f")
EPOCHS, RATE, EPSILON, BATCH = 20, 1e-3, 1e-4, 256  # of the trained keys, as published


@dataclass(frozen=True)
class TipOptions:
    """Options of Tip-Adapter.

    Attributes:
        templates: Texts of the zero-shot classifier, as for ``Backbone.zero_shot``.
        alpha: Weight of the cache beside the zero-shot logits, 0 or more.
        beta: Sharpness of the cache: a support sample at cosine c weighs exp(-beta * (1 - c)); above 0.

    Raises:
        OptionError: If a value is out of range.
    """

    templates: str | Sequence[str] | None = None
    alpha: float = 1.0
    beta: float = 5.5

    def __post_init__(self) -> None:
        faults = []
        if not (is_finite(self.alpha) and self.alpha >= 0):
            faults.append(f"alpha is {self.alpha!r}; it must be 0 or more")
        if not (is_finite(self.beta) and self.beta > 0):
            faults.append(f"beta is {self.beta!r}; it must be above 0")
        if faults:
            raise OptionError(fault_list("Tip-Adapter cannot have these options:", faults))


def tip_logits(queries: Tensor, keys: Tensor, values: Tensor, zero_shot: Tensor, options: TipOptions) -> Tensor:
    """Return the zero-shot logits plus alpha times the cache's, ``(queries, classes)`` (Zhang et al. 2022, equations 3 and 6).

    Args:
        queries: Features of length one, ``(queries, dim)``.
        keys: Those of the support, ``(samples, dim)``.
        values: Classes of the support as rows of 0 and 1, ``(samples, classes)``.
        zero_shot: Zero-shot logits of the queries, ``(queries, classes)``.
        options: Alpha and beta.
    """
    affinity = (-options.beta * (1 - queries @ keys.T)).exp()
    return zero_shot + options.alpha * (affinity @ values)


def tip_adapter(features: Tensor, classes: Tensor, head: ZeroShotHead, options: TipOptions, *, trained: bool = False) -> Logits:
    """Return the classifier of a support; see ``tip_logits``.

    Args:
        features: Of the support, ``(samples, dim)``.
        classes: ``(samples,)``, in the order of the head's outputs.
        head: The zero-shot classifier.
        options: Alpha and beta.
        trained: Whether the keys are trained (Tip-Adapter-F), from the features on, with the published AdamW.
    """
    keys = functional.normalize(features, dim=1)
    values = functional.one_hot(classes, head.linear.out_features).to(keys.dtype)
    if trained:
        with torch.no_grad():
            zero_shot = head.logits(features)
        keys = _trained_keys(keys, values, classes, zero_shot, options)

    def logits(queries: Tensor) -> Tensor:
        return tip_logits(functional.normalize(queries, dim=1), keys, values, head.logits(queries), options)

    return logits


def _trained_keys(rows: Tensor, values: Tensor, classes: Tensor, zero_shot: Tensor, options: TipOptions) -> Tensor:
    keys = rows.clone().requires_grad_()
    steps = EPOCHS * -(-len(rows) // BATCH)
    optimizer = torch.optim.AdamW([keys], lr=RATE, eps=EPSILON)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            for part in torch.split(torch.randperm(len(rows), generator=generator), BATCH):
                logits = tip_logits(rows[part], keys, values, zero_shot[part], options)
                optimizer.zero_grad()
                functional.cross_entropy(logits, classes[part]).backward()  # type: ignore[no-untyped-call]  # torch has no types here
                optimizer.step()
                schedule.step()
    return keys.detach()


def zero_shot_model(model: Backbone | TaskModel, classes: Sequence[str], options: TipOptions) -> TaskModel:
    """Return a zero-shot classifier of these classes.

    Raises:
        OptionError: If it is no dual encoder, or a model with another head or classes.
    """
    if isinstance(model, Backbone):
        return model.zero_shot(list(classes), options.templates)
    if not isinstance(model.head, ZeroShotHead) or model.labels != tuple(classes):
        raise OptionError(
            f"Tip-Adapter needs a dual encoder, or a zero-shot model of the classes {', '.join(classes)} in this order; the model's "
            f"head is {model.head_name!r}, its classes are {', '.join(model.labels or ()) or 'without names'}"
        )
    if options.templates is not None:
        raise OptionError("templates: the model has its zero-shot head already; give the backbone, or leave them out")
    return model
