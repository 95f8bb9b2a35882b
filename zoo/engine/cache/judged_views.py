"""Views of the samples that augmentation is judged by, as features of the frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.engine.cache.frozen_prefix import FrozenPrefix

MAX_SAMPLES = 2000  # beyond it augmentation is not judged: more samples need it less, and the views would cost as much as an epoch
MAX_VIEWS, MAX_READS = 4, 1000


def views_to_judge(samples: int) -> int:
    """Return how many augmented views of each sample are compared; 0 if there are too many samples."""
    return 0 if samples > MAX_SAMPLES else max(1, min(MAX_VIEWS, MAX_READS // max(samples, 1)))


def judged_views(prefix: FrozenPrefix, table: str, features: Tensor, seed: int) -> dict[str, Sequence[Tensor]]:
    """Return the features of randomly flipped and of augmented views of the images of a table, by kind.

    Flips stand for themselves too, because what they do to the class (of digits, of hearts) does not depend on the crop.

    Args:
        prefix: Computes features.
        table: Name of the table.
        features: Of its images as they are, ``(images, dim)``.
        seed: Seed of the flips.
    """
    count = views_to_judge(len(features))
    flips = random_flips(features, prefix.mirrored_features(table), count, seed)
    return {"flips": flips, "augmented views": prefix.augmented_features(table, count)}


def random_flips(features: Tensor, mirrored: Tensor, views: int, seed: int) -> list[Tensor]:
    """Return the features of randomly flipped views of images: those of the mirrored image in half of the cases."""
    source = torch.Generator().manual_seed(seed)
    return [torch.where(torch.rand(len(features), 1, generator=source) < 0.5, mirrored, features) for _ in range(views)]
