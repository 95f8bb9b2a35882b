"""Bottleneck adapters: two narrow matrices behind a block (Houlsby et al. 2019) or beside its MLP (AdaptFormer, Chen et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.declare import Inputs
from zoo.errors import LayerGroupError
from zoo.models.layers import LayerGroups
from zoo.tuning.blocks import CONTAINERS, residual_blocks
from zoo.tuning.efficient.additions import Addition, Extended, Shapes, block_shapes, extend, with_first

NAME = "zoo_adapter"
SCALE = 0.1  # of AdaptFormer's branch, as in the paper


class Bottleneck(nn.Module):
    """Two linear layers with a ReLU between them, over one axis; the second starts at zero.

    Args:
        channels: Length of the axis.
        width: Channels between the layers.
        axis: The axis of the channels: 1 for maps ``(batch, channels, …)``, else -1.
        scale: Factor on the outputs.
    """

    def __init__(self, channels: int, width: int, axis: int, scale: float = 1.0) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, width), nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self._axis, self._scale = axis, scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the update for ``x``, of its shape."""
        update: Tensor = self.up(self.down(x.movedim(self._axis, -1)).relu()) * self._scale
        return update.movedim(-1, self._axis)


class _After(Extended):
    """A block whose output goes through a bottleneck with a skip connection."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        adapter = self._modules[NAME]
        assert adapter is not None, "it is attached"
        return with_first(super().forward(*args, **kwargs), lambda y: y + adapter(y))


class _Beside(Extended):
    """An MLP with a bottleneck beside it."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapter = self._modules[NAME]
        assert adapter is not None, "it is attached"
        output: Tensor = super().forward(x, *args, **kwargs) + adapter(x)
        return output


class _BesideSequence(Extended):
    """The same of an MLP that is a plain sequence of layers, which would call the bottleneck as one of them."""

    def forward(self, x: Tensor) -> Tensor:
        adapter = self._modules[NAME]
        assert adapter is not None, "it is attached"
        output = x
        for name, layer in self.named_children():
            output = output if name == NAME else layer(output)
        found: Tensor = output + adapter(x)
        return found


def _blocks(groups: LayerGroups, inputs: Inputs) -> list[str]:
    """Return the blocks with an output of known channels; sequences, whose children are called in turn, are none."""
    found = {name: block for name, block in residual_blocks(groups).items() if not isinstance(block, CONTAINERS)}
    shapes = block_shapes(groups.model, found, inputs)
    fitting = [name for name, block in found.items() if name in shapes and _axis(block, shapes[name])]
    if not fitting:
        raise LayerGroupError(
            f"no block of the groups {', '.join(groups.names) or '(none)'} can take bottleneck adapters, as none is a module of its own "
            "with an output of its channels; recipe='lora' or 'ssf' changes single layers"
        )
    return fitting


def _mlps(groups: LayerGroups, _inputs: Inputs) -> list[str]:
    """Return the modules of two linear layers from and to the same channels, as the MLP of a vision transformer."""
    members = [(name, module) for group in groups for name, module in group.modules()]
    walked = [(f"{name}.{inner}".rstrip("."), each) for name, module in members for inner, each in module.named_modules()]
    # A sequence of layers is an MLP inside a block alone; elsewhere it may be a projection.
    blocks = tuple(f"{name}." for name in residual_blocks(groups))
    fitting = [
        name for name, module in dict(walked).items() if _is_mlp(module) and (not isinstance(module, CONTAINERS) or name.startswith(blocks))
    ]
    if not fitting:
        raise LayerGroupError(
            f"no module of the groups {', '.join(groups.names) or '(none)'} is an MLP of two linear layers, which AdaptFormer stands "
            "beside in vision transformers; recipe='adapter' puts a bottleneck behind each block"
        )
    return fitting


def _is_mlp(module: nn.Module) -> bool:
    linear = [layer for layer in module.children() if isinstance(layer, nn.Linear)]
    if len(linear) != 2:
        return False
    first, second = linear
    # A sequence with fewer channels between is a gate, as of squeeze-and-excitation (Hu et al. 2018).
    sequence = type(module).forward is nn.Sequential.forward and first.out_features >= first.in_features
    if isinstance(module, CONTAINERS) and not sequence:
        return False
    # Of anything else it has norms, dropout and activations only.
    others = [part for layer in module.children() if layer not in linear for part in layer.parameters()]
    fits = first.in_features == second.out_features and first.out_features == second.in_features
    return fits and all(part.ndim < 2 for part in others)


def _axis(block: nn.Module, shapes: Shapes) -> int:
    """Return the axis of the channels of a block's output, or 0 if it is not known."""
    if shapes.left is None or len(shapes.left) < 2:
        return 0
    widths = {len(parameter) for parameter in block.parameters() if parameter.ndim == 1}  # of biases and norms
    maps = len(shapes.left) > 3 and shapes.left[1] in widths
    return 1 if maps else -1 if shapes.left[-1] in widths else 0


def _attach_after(backbone: nn.Module, names: tuple[str, ...], inputs: Inputs, width: int) -> None:
    found = {name: backbone.get_submodule(name) for name in names}
    for name, shapes in block_shapes(backbone, found, inputs).items():
        axis = _axis(found[name], shapes)
        assert shapes.left is not None, "the block was chosen for its output"
        _put(found[name], Bottleneck(shapes.left[axis], width, axis), _After)


def _attach_beside(backbone: nn.Module, names: tuple[str, ...], _inputs: Inputs, width: int) -> None:
    for name in names:
        mlp = backbone.get_submodule(name)
        channels = next(layer.in_features for layer in mlp.children() if isinstance(layer, nn.Linear))
        _put(mlp, Bottleneck(channels, width, -1, SCALE), _BesideSequence if isinstance(mlp, nn.Sequential) else _Beside)


def _put(block: nn.Module, adapter: Bottleneck, kind: type[Extended]) -> None:
    like = next(block.parameters())
    block.add_module(NAME, adapter.to(like.device, like.dtype if like.is_floating_point() else torch.float32).train(block.training))
    extend(block, kind)


AFTER = Addition(_blocks, _attach_after, "width")
BESIDE = Addition(_mlps, _attach_beside, "width")
