"""The numeric proof of what a timm backbone returns: its features, pooled and classified by hand, give timm's own logits."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.testing import randomise

CLASSES = 7
TOLERANCE = 1e-4


def candidates(features: Tensor, dim: int, prefix_tokens: int) -> list[tuple[str, str, Tensor]]:
    """Return the layouts and poolings that fit the features' shape, with the pooled features ``(batch, dim)``."""
    found = []
    if features.ndim == 4 and features.shape[1] == dim:
        found.append(("BCHW", "avg", features.mean((2, 3))))
    if features.ndim == 4 and features.shape[-1] == dim:
        found.append(("BHWC", "avg", features.mean((1, 2))))
    if features.ndim == 4 and features.shape[1] == dim:
        found.append(("BCHW", "max", features.amax((2, 3))))
    if features.ndim == 3 and features.shape[-1] == dim:
        if prefix_tokens:
            found.append(("BND", "token", features[:, 0]))
        found.append(("BND", "avg", features[:, prefix_tokens:].mean(1)))
    return found


def same(a: Tensor, b: Tensor) -> bool:
    """Tell whether two logits agree, up to rounding, relative to their size."""
    return a.shape == b.shape and bool((a - b).abs().max() <= TOLERANCE * b.abs().max())


@torch.no_grad()
def prove(name: str, *, size: list[int], classifiers: list[str], pooled: list[int], bare: bool, large: bool) -> dict[str, Any]:
    """Find by trial what stands between the backbone of an architecture and its logits.

    Args:
        name: timm's name.
        size: Channels, height and width of its input.
        classifiers: Names of its classifiers; none for an encoder, whose output is taken as it is.
        pooled: Shape of what it returns without classifier.
        bare: Whether it can be built without pooling.
        large: Whether to try it with two blocks only; the seam at its end is the same.

    Returns:
        ``layout``, ``pool``, ``prefix_tokens``; ``unpooled``: whether that takes a build without pooling; ``linear``:
        whether one linear layer on the pooled features gives timm's logits.
    """
    if not classifiers:
        layout = {2: "BD", 3: "BND", 4: "BCHW"}[len(pooled)]
        return {"layout": layout, "pool": "none" if layout == "BD" else "avg", "prefix_tokens": 0, "unpooled": False, "linear": False}
    torch.manual_seed(0)
    shallow = _shallow(name) if large else {}
    full = randomise(timm.create_model(name, num_classes=CLASSES, **shallow))
    state = full.state_dict()
    x = torch.randn(1 if large else 2, *size)
    logits = full(x)

    def classified(pooled: Tensor) -> bool:
        found = [_apply(state, classifier, pooled) for classifier in classifiers]
        values = [value for value in found if value is not None]
        return bool(values) and len(values) == len(found) and same(torch.stack(values).mean(0), logits)

    if bare:
        features = _headless(name, state, global_pool="", **shallow)(x)
        tokens = int(getattr(full, "num_prefix_tokens", 0) or 0)
        for layout, pool, vector in candidates(features, pooled[-1], tokens):
            if classified(vector):
                return {
                    "layout": layout,
                    "pool": pool,
                    "prefix_tokens": tokens if layout == "BND" else 0,
                    "unpooled": True,
                    "linear": len(classifiers) == 1,
                }
    vector = _headless(name, state, **shallow)(x)
    assert vector.ndim == 2, f"{name} without classifier gives features of shape {tuple(vector.shape)}"
    return {"layout": "BD", "pool": "none", "prefix_tokens": 0, "unpooled": False, "linear": len(classifiers) == 1 and classified(vector)}


def _shallow(name: str) -> dict[str, Any]:
    for options in ({"depth": 2}, {"depths": (1, 1, 1, 1)}):
        try:
            with torch.device("meta"):
                timm.create_model(name, num_classes=CLASSES, **options)
        except (TypeError, ValueError, AssertionError):
            continue
        return options
    return {}


def _headless(name: str, state: dict[str, Tensor], **options: Any) -> nn.Module:
    model: nn.Module = timm.create_model(name, num_classes=0, **options)
    own = model.state_dict()
    model.load_state_dict({key: value for key, value in state.items() if key in own})
    return model.eval()


def _apply(state: dict[str, Tensor], classifier: str, pooled: Tensor) -> Tensor | None:
    weight, bias = state.get(f"{classifier}.weight"), state.get(f"{classifier}.bias")
    if weight is None or weight.flatten(1).shape[1] != pooled.shape[1]:
        return None
    return F.linear(pooled, weight.flatten(1), bias)
