"""Running statistics of norms, which batches change without gradients."""

from __future__ import annotations

from torch import Tensor, nn


def keeps_statistics(module: nn.Module) -> bool:
    """Return whether a module itself has running statistics.

    These are BatchNorm and InstanceNorm of every dimension, and other norms with the same buffer names, such as EvoNorm-B0
    (Liu et al. 2020).
    """
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))


def moving_norms(model: nn.Module) -> list[nn.Module]:
    """Return the norms in training mode, whose running statistics change in a forward."""
    return [module for module in model.modules() if module.training and keeps_statistics(module)]


def is_single_value(error: BaseException) -> bool:
    """Return whether an error is that of a BatchNorm in training mode given one value per channel, which has no variance."""
    return isinstance(error, ValueError) and str(error).startswith("Expected more than 1 value per channel when training")


def statistics_of(norms: list[nn.Module]) -> list[Tensor]:
    """Return the statistics of norms, counters included."""
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


def hold_statistics(module: nn.Module) -> None:
    """Make every norm in ``module`` use its running statistics, in place; to be called after every ``train()``.

    The statistics then stay fixed, while scale and shift still train. On a few hundred samples pretrained statistics are better
    than those of small, augmented batches (the usual advice for fine-tuning, e.g. Keras' guide, 2020).
    """
    for norm in module.modules():
        if keeps_statistics(norm):
            norm.training = False  # the layer alone, without an activation or dropout inside it
