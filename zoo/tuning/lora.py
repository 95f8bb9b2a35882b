"""LoRA targets: the exact names of the layers of some groups that low-rank adapters can sit on."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from zoo.errors import LayerGroupError, examples
from zoo.layers import LayerGroups

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def lora_targets(groups: LayerGroups) -> list[str]:
    """Return the dotted names of the linear layers and convolutions in a slice of groups, in forward order.

    Exact names, because a pattern that matches nothing trains nothing and says nothing. Left out are grouped and depthwise
    convolutions, whose kernels low-rank factors do not fit, and the layers inside ``nn.MultiheadAttention``, which reads
    their weights without calling them.

    Args:
        groups: The groups to adapt, such as ``model.groups[4:]``.

    Raises:
        LayerGroupError: If there is no such layer; the grouped convolutions that were refused are named.
    """
    named = list(_layers(groups))
    targets = [name for name, layer in named if not _is_grouped(layer)]
    if not targets:
        refused = [name for name, layer in named if _is_grouped(layer)]
        why = f": grouped convolutions take none ({examples(refused)})" if refused else ""
        raise LayerGroupError(f"no layer of the groups {', '.join(groups.names) or '(none)'} can take LoRA{why}")
    return targets


def _layers(groups: LayerGroups) -> Iterator[tuple[str, nn.Module]]:
    seen: set[int] = set()
    for group in groups:
        for name, outer in group.modules():
            for inner, module in _walk(outer, name):
                if id(module) not in seen:
                    seen.add(id(module))
                    yield inner, module


def _walk(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or _is_transposed_linear(module):
        yield name, module
    elif not isinstance(module, nn.MultiheadAttention):
        for key, child in module.named_children():
            yield from _walk(child, f"{name}.{key}")


def _is_grouped(layer: nn.Module) -> bool:
    return isinstance(layer, CONVOLUTIONS) and layer.groups > 1


def _is_transposed_linear(module: nn.Module) -> bool:
    """Tell whether it is the linear layer of GPT-2 and its kin, which transformers calls Conv1D."""
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")
