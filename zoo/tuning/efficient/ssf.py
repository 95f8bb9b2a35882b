"""Scales and shifts of a layer's outputs (SSF, Lian et al. 2022), which merge into its weight and bias."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.tuning.blocks import NORMS


class ScaledLayer(nn.Module):
    """A layer whose outputs are ``scale * y + shift`` per channel: the layer with ``(scale * weight, scale * bias + shift)``.

    A norm computes with these merged values, so that merging is exact also where it applies its activation itself; of other layers
    the outputs are changed, which needs no gradient of the weight. Layers without a bias have the scale alone, as the merged layer
    keeps the parameters that it has.

    Args:
        base_layer: The layer, with ``weight`` of shape ``(channels, …)`` and maybe ``bias``.
        axis: Axis of the weight that counts the outputs.
    """

    adapter_layer_names = ("ssf_scale", "ssf_shift")

    def __init__(self, base_layer: nn.Module, axis: int = 0) -> None:
        super().__init__()
        self.base_layer, self._axis = base_layer, axis
        weight, bias = _own(base_layer, "weight"), getattr(base_layer, "bias", None)
        width = weight.shape[axis]
        # A norm over several axes, such as channels and pixels, has a factor for each value.
        shape = weight.shape if isinstance(base_layer, (nn.LayerNorm, nn.RMSNorm)) else (width,)
        self.ssf_scale = nn.Parameter(torch.ones(shape, dtype=weight.dtype, device=weight.device))
        self.ssf_shift = nn.Parameter(torch.zeros(shape, dtype=weight.dtype, device=weight.device)) if isinstance(bias, Tensor) else None
        self.train(base_layer.training)

    def get_base_layer(self) -> nn.Module:
        """Return the plain layer."""
        return self.base_layer

    @property
    def weight(self) -> Tensor:
        """The merged weight."""
        return self._merged()["weight"]

    @property
    def bias(self) -> Tensor | None:
        """The merged bias, or None."""
        return self._merged().get("bias")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of the merged layer."""
        if not isinstance(self.base_layer, NORMS):
            places = [1] * (0 if self._axis or isinstance(self.base_layer, nn.Linear) else _own(self.base_layer, "weight").ndim - 2)
            outputs = self.base_layer(*args, **kwargs) * self.ssf_scale.view(-1, *places)
            return outputs if self.ssf_shift is None else outputs + self.ssf_shift.view(-1, *places)
        return torch.func.functional_call(self.base_layer, self._merged(), args, kwargs)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False) -> None:
        """Write the merged weight and bias into the plain layer, in place.

        Args:
            safe_merge: Ignored; it is in the signature of PEFT's layers.
        """
        for name, value in self._merged().items():
            getattr(self.base_layer, name).copy_(value)

    def _merged(self) -> dict[str, Tensor]:
        weight, scale = _own(self.base_layer, "weight"), self.ssf_scale
        if scale.shape == weight.shape:
            wide: Tensor = scale
        else:
            shape = [1] * weight.ndim
            shape[self._axis] = -1
            wide = scale.view(shape)
        merged = {"weight": weight * wide}
        if self.ssf_shift is not None:
            merged["bias"] = _own(self.base_layer, "bias") * scale + self.ssf_shift
        return merged


def attach_ssf(backbone: nn.Module, targets: tuple[str, ...]) -> None:
    """Put a scale and a shift at layers of a backbone, in place; outputs do not change yet.

    Args:
        backbone: The backbone.
        targets: Dotted names of its layers.
    """
    for name in targets:
        parent, _, last = name.rpartition(".")
        layer = backbone.get_submodule(name)
        transposed = type(layer).__name__ == "Conv1D"  # of transformers, whose weight is (inputs, outputs)
        setattr(backbone.get_submodule(parent), last, ScaledLayer(layer, axis=1 if transposed else 0))


def _own(layer: nn.Module, name: str) -> Tensor:
    value = getattr(layer, name)
    assert isinstance(value, Tensor), f"{type(layer).__name__} has no {name}"
    return value
