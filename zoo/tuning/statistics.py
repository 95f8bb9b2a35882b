"""Running statistics: what norms take from the batches themselves, beside gradients."""

from __future__ import annotations

from torch import Tensor, nn


def keeps_statistics(module: nn.Module) -> bool:
    """Tell whether a module itself keeps running statistics.

    That is BatchNorm and InstanceNorm of every dimension, and whatever else names them in their way, such as EvoNorm-B0
    (Liu et al. 2020), which is no BatchNorm for torch.
    """
    return any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))


def moving_norms(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose running statistics a forward moves: those in training mode."""
    return [module for module in model.modules() if module.training and keeps_statistics(module)]


def statistics_of(norms: list[nn.Module]) -> list[Tensor]:
    """Return the statistics of norms, counters included."""
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


def hold_statistics(module: nn.Module) -> None:
    """Let every norm in ``module`` use its running statistics, in place; to be called after every ``train()``.

    The statistics then stand still while scale and shift still train. On a few hundred samples the pretrained statistics
    are better than any that small, augmented batches give (the usual advice for fine-tuning, e.g. Keras' guide, 2020).
    """
    for norm in module.modules():
        if keeps_statistics(norm):
            norm.training = False  # the layer alone: a norm with an activation or dropout inside keeps those as they are
