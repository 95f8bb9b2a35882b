"""Dropout rate of a whole model during training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from zoo.errors import LayerGroupError, OptionError
from zoo.tuning.blocks import Tuned


@contextmanager
def set_dropout(model: Tuned, p: float) -> Iterator[list[str]]:
    """Give every dropout layer of backbone and head the probability ``p`` while the context is open (Srivastava et al. 2014).

    A head without a dropout layer gets one in front of its last linear layer. Layers in eval mode drop nothing, so a frozen
    prefix has no dropout. Rates outside dropout layers, such as that of ``nn.MultiheadAttention``, are not changed.

    Args:
        model: The model.
        p: Probability of zeroing a value, in [0, 1); 0 turns every dropout off.

    Yields:
        Dotted names of the layers that were set, in the model.

    Raises:
        OptionError: If ``p`` is out of range.
        LayerGroupError: If there is neither a dropout layer nor a linear layer in the head.
    """
    if not 0 <= p < 1:
        raise OptionError(f"dropout is {p}; it must be in [0, 1)")
    backbone, head = _dropouts(model.groups.model, "backbone"), _dropouts(model.head, "head")
    layers = model.head.named_modules() if not head else ()
    linear = [(f"head.{name}".rstrip("."), layer) for name, layer in layers if isinstance(layer, nn.Linear)]
    last = dict(linear[-1:])
    if not (backbone or head or last):
        raise LayerGroupError("the model has no dropout layer, and its head no linear layer to put one in front of; leave dropout unset")
    with ExitStack() as undo:
        for layer in (backbone | head).values():
            undo.callback(setattr, layer, "p", layer.p)
            layer.p = p
        for target in last.values():
            undo.callback(target.register_forward_pre_hook(_drop(p)).remove)
        yield [*backbone, *head, *last]


def _dropouts(module: nn.Module, prefix: str) -> dict[str, _DropoutNd]:
    """Return the dropout layers of a module, without those of LoRA, which has its own rate."""
    layers = {f"{prefix}.{name}": layer for name, layer in module.named_modules() if isinstance(layer, _DropoutNd)}
    return {name: layer for name, layer in layers.items() if ".lora_" not in name}


def _drop(p: float) -> Any:
    return lambda module, args: (functional.dropout(args[0], p, module.training), *args[1:])
