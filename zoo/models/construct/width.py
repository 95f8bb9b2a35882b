"""The width of the features of a network as it was built."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from zoo.declare import BackboneSpec, Features, Image, Volume

log = logging.getLogger("zoo")


def built_width(module: nn.Module, spec: BackboneSpec) -> int:
    """Return the width of the features of a network as it was built, which options of its architecture may change.

    One picture of zeros goes through a network of images or volumes, in eval mode. Where that fails, and of texts, the declaration stays
    as it is, and ``check_features`` judges the first batch.

    Args:
        module: The built network; its mode stays.
        spec: Its declaration, with the options it was built with.
    """
    declared = spec.features
    if not isinstance(spec.inputs, Image | Volume):
        return declared.dim
    training = module.training
    try:
        with torch.no_grad():
            found = module.eval()(torch.zeros(1, *spec.inputs.shape))
    except Exception as error:  # of any network; the first batch of the user's own size may pass
        log.debug("%s: no width could be measured: %s", spec.name, error)
        return declared.dim
    finally:
        module.train(training)
    if not isinstance(found, Tensor) or found.ndim != len(declared.layout):
        return declared.dim
    return found.shape[width_axis(declared)]


def width_axis(features: Features) -> int:
    """Return the axis of the width in features of a batch."""
    return 1 if features.layout in ("BCHW", "BCDHW") else -1
