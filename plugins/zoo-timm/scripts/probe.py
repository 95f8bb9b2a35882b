"""Facts about a timm architecture without its values: shapes, keys, parameters, MACs, the operations of its head."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

SHOWS_ARGUMENTS = ("mean", "amax", "select", "slice", "adaptive")


class Operations(TorchDispatchMode):
    """Records the names of operations, with the axes of those that pool, and counts their FLOPs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and note it."""
        name = str(func).removeprefix("aten.")
        axes = [a for a in args[1:] if isinstance(a, int | list | bool)] if any(word in name for word in SHOWS_ARGUMENTS) else ""
        self.names.append(f"{name}{axes}")
        value = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=value)
        return value


def build(name: str, **options: Any) -> nn.Module:
    """Build on the meta device, in eval mode."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, pretrained=False, **options)
    return model.eval().requires_grad_(False)  # the FLOP counter follows gradients where there are any


def classifier_keys(model: nn.Module) -> list[str]:
    """Return the names of the classifiers that timm declares for this model."""
    declared = getattr(model, "pretrained_cfg", {}).get("classifier")
    return [declared] if isinstance(declared, str) else list(declared or ())


def shape_of(value: Any) -> list[int]:
    """Return the shape of a tensor, or an empty list for anything else."""
    return list(value.shape) if isinstance(value, Tensor) else []


def shapes(model: nn.Module) -> dict[str, list[int]]:
    """Return the names and shapes of a model's saved tensors."""
    return {key: list(tensor.shape) for key, tensor in model.state_dict().items()}


def unpooled(name: str, own: dict[str, list[int]]) -> nn.Module | None:
    """Build without pooling, where timm can do so without changing the backbone's tensors."""
    try:
        model = build(name, num_classes=0, global_pool="")
    except (TypeError, AssertionError, ValueError, RuntimeError, AttributeError, NotImplementedError):
        return None
    return model if shapes(model) == own else None


def seam(model: nn.Module) -> bool:
    """Tell whether the model's forward is its ``forward_features`` followed by its ``forward_head``."""
    return hasattr(model, "forward_features") and hasattr(model, "forward_head") and not type(model).__name__.endswith("Encoder")


@torch.no_grad()
def probe(name: str, *, size: list[int]) -> dict[str, Any]:
    """Describe an architecture, or a tag of it, at its input size ``[channels, height, width]``."""
    x = torch.zeros(1, *size, device="meta")
    full, pooled = build(name), build(name, num_classes=0)
    classifies = seam(full)  # encoders have no classifier: they return features, and that is all
    bare = unpooled(name, shapes(pooled)) if classifies else None
    with Operations() as body:
        # Everything up to the head is the same in all three, so the costly part runs once.
        features = full.forward_features(x) if classifies else pooled(x)
    with Operations() as head:
        shape = shape_of(pooled.forward_head(features) if classifies else features)
    with Operations() as logits:
        if classifies:
            full.forward_head(features)
    return {
        "family": type(full).__name__,
        "module": type(full).__module__.rpartition(".")[2],
        "head": " ".join(logits.names),
        "classifiers": classifier_keys(full) if classifies else [],
        "pooled": shape,
        "bare": _bare_shape(bare, features),
        "prefix_tokens": getattr(pooled, "num_prefix_tokens", 0) or 0,
        "parameters": sum(p.numel() for p in pooled.parameters()),
        "gmacs": (body.flops + head.flops) / 2e9,
    }


def _bare_shape(model: nn.Module | None, features: Any) -> list[int]:
    """Return the shape of the unpooled features, or an empty list where there are none to declare."""
    if model is None:
        return []
    try:
        shape = shape_of(model.forward_head(features))  # type: ignore[operator]  # a method of timm's models
    except (TypeError, AssertionError, ValueError, RuntimeError):
        return []
    return shape if len(shape) in (3, 4) else []


@torch.no_grad()
def measure(name: str, *, size: list[int]) -> dict[str, Any]:
    """Count the parameters and 10^9 MACs of an architecture or tag at one input size."""
    model = build(name, num_classes=0)
    with Operations() as operations:
        model(torch.zeros(1, *size, device="meta"))
    return {"parameters": sum(p.numel() for p in model.parameters()), "gmacs": operations.flops / 2e9}
