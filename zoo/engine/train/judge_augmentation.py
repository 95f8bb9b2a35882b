"""Whether a run augments its images, where neither an option nor the recipe says so."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor

from zoo.data.table import Table
from zoo.engine.cache.phase_data import PhaseData
from zoo.engine.optim.augmentation_choice import held_out_losses, views_to_judge
from zoo.engine.options.epochs import Epoch
from zoo.engine.rundir.run_context import RunContext
from zoo.engine.train.objective import Objective
from zoo.engine.train.supervised import Supervised

log = logging.getLogger("zoo")


def suits_augmentation(
    objective: Objective, data: PhaseData, context: RunContext, epochs: Sequence[Epoch], features: Tensor, table: Table
) -> bool:
    """Return False if augmented views harm the head on held-out samples; else True, also where that was not asked or cannot be known.

    Args:
        objective: The objective, whose head is solved.
        data: The data of the run.
        context: The conditions of the run.
        epochs: All epochs of the run.
        features: Features of the training samples as they are, ``(samples, dim)``.
        table: These samples.
    """
    config, views = context.config, views_to_judge(len(features))
    asked = config.judge_augment and context.own.augment is None and any(epoch.augment for epoch in epochs)
    if not (asked and views and table.reads == "image" and isinstance(objective, Supervised)):
        return True
    found = held_out_losses(
        features,
        data.prefix.augmented_features(next(iter(objective.sources)), views),
        table,
        objective.model.num_classes,
        objective.label_loss,
        device=context.device,
        seed=config.seed,
        poll=context.poll,
    )
    if found is None or found.helps:
        return True
    log.info(
        "training images are not augmented: the held-out loss of the head is %.4g with augmented views and %.4g without; augment='light' "
        "augments them",
        found.with_views,
        found.without,
    )
    return False
