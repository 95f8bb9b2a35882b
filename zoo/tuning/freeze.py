"""Frozen prefixes: no gradient and eval mode as a whole, so that nothing in them moves."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from zoo.layers import LayerGroups


def freeze_prefix(groups: LayerGroups, length: int) -> None:
    """Freeze the first ``length`` groups and unfreeze the others, in place.

    Frozen parameters lose their gradient, so that an optimizer that holds them skips them. A parameter tied across
    groups belongs to the first of them.
    """
    frozen = {id(parameter) for parameter in groups[:length].parameters()}
    for parameter in groups.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
        if id(parameter) in frozen:
            parameter.grad = None


def apply_eval(groups: LayerGroups, length: int) -> None:
    """Put the first ``length`` groups into eval mode, in place; to be called after every ``train()``.

    BatchNorm statistics of every dimension, dropout and drop-path then stand still. With all groups frozen the whole
    backbone is in eval mode, functional dropout at its root included.
    """
    if length == len(groups):
        groups.model.eval()
    for group in groups[:length]:
        for _, module in group.modules():
            module.eval()


def hold_statistics(module: nn.Module) -> None:
    """Let every BatchNorm in ``module`` normalise with its running statistics, in place; to be called after every ``train()``.

    The statistics then stand still while scale and shift still train. On a few hundred samples the pretrained statistics
    are better than any that small, augmented batches give (the usual advice for fine-tuning, e.g. Keras' guide, 2020).
    """
    for norm in module.modules():
        if isinstance(norm, _NormBase):
            norm.training = False  # the layer alone: a norm with an activation or dropout inside keeps those as they are
