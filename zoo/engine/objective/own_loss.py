"""A call of the user's own loss, and what it may return."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.engine.options.own_parts import OwnParts, name_of
from zoo.engine.runtime.oom import is_out_of_memory
from zoo.errors import OptionError, OwnPartError, ZooError
from zoo.tasks.task import Task


def own_losses(own: OwnParts, logits: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return the values of the user's own loss, one per sample.

    Args:
        own: The user's own parts, of which one is a loss; it is given targets of 0 where labels are missing, if it takes the mask.
        logits: Those of a batch, ``(batch, outputs)``.
        targets: Its targets, NaN where a label is missing.
        task: The task of the model.

    Raises:
        OwnPartError: If the function raises.
        OptionError: If it returns anything but one value per sample, or values without a gradient.
    """
    assert own.loss is not None, "there is no own loss"
    try:
        if own.masks:
            known = ~targets.isnan() if targets.is_floating_point() else torch.ones_like(targets, dtype=torch.bool)
            values = own.loss(logits, targets.where(known, 0), mask=known)
        else:
            values = own.loss(logits, targets)
    except Exception as error:
        if isinstance(error, ZooError) or is_out_of_memory(error):
            raise
        mixed = task.exclusive and targets.ndim > 1 and not task.per_token
        note = "; with mixup or cutmix its targets are probabilities (batch, classes)" if mixed else ""
        raise OwnPartError.of(f"the loss {name_of(own.loss)}", error, note) from error
    if not isinstance(values, Tensor) or tuple(values.shape) != (len(targets),):
        found = f"a tensor of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        remedy = "give one value per sample, such as reduction='none' and a mean over everything but the first axis"
        raise OptionError(f"loss returned {found} for a batch of {len(targets)}; {remedy}")
    if torch.is_grad_enabled() and not values.requires_grad:
        raise OptionError("loss returned values that do not depend on the logits (detached, or integers); nothing could learn from them")
    return values
