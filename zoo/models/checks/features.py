"""Checks of the features that a backbone gives, before a head fails on them with torch's message."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from zoo.declare import BackboneSpec
from zoo.errors import DeclarationError, count
from zoo.models.construct.width import width_axis

log = logging.getLogger("zoo")


def check_features(features: Any, spec: BackboneSpec, x: Any) -> None:
    """Check that features are one tensor of the declared layout and width, with a row per input.

    Args:
        features: What the backbone returned.
        spec: The declaration.
        x: Its inputs; the rows of a mapping of texts are not compared.

    Raises:
        DeclarationError: Naming what was found and what is declared.
    """
    if not isinstance(features, Tensor):
        remedy = "wrap what gives one, in training as in evaluation (networks with auxiliary outputs return several in training)"
        raise DeclarationError(f"backbone {spec.name!r} gives a {type(features).__name__}, not one tensor of features; {remedy}")
    declared = spec.features
    axis = width_axis(declared)
    found = f"backbone {spec.name!r} gives features of shape {tuple(features.shape)}"
    if features.ndim != len(declared.layout) or features.shape[axis] != declared.dim:
        expected = f"declared are layout {declared.layout} and dim {declared.dim}"
        raise DeclarationError(f"{found}; {expected}: correct Features(…) in its declaration")
    if isinstance(x, Tensor) and len(features) != len(x):
        raise DeclarationError(f"{found} for {count(len(x), 'input')}; its forward must keep the first axis")


def no_gradient(features: Tensor, backbone: nn.Module, name: str) -> bool:
    """Return whether gradients are wanted and none would reach the backbone, which is logged."""
    if features.requires_grad or not torch.is_grad_enabled():
        return False
    trained = sum(parameter.requires_grad for parameter in backbone.parameters())
    if trained:
        log.warning(
            "%s: no gradient reaches its %s that should train, so only the head learns; does its forward call detach() or torch.no_grad()?",
            *(name, count(trained, "parameter")),
        )
    return trained > 0
