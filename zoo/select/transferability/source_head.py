"""The linear classifier that pretrained weights come with, for scores of what its classes say about the labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.backbone import Backbone
from zoo.weights.load import read
from zoo.weights.locate import locate
from zoo.weights.safetensors_header import read_header

log = logging.getLogger("zoo")
HEADS = ("classifier", "fc", "head", "head.fc", "heads.head", "last_linear")
Array = npt.NDArray[np.float64]


def source_probabilities(backbone: Backbone, features: Tensor) -> Array | None:
    """Return the probabilities of the source classes, ``(samples, source classes)``; None where there is no linear source head.

    Read is a linear layer of the weights file that takes pooled features as they are. A head with further layers, such as the norm
    of ConvNeXt, is none.

    Args:
        backbone: The backbone, its weights on disk.
        features: Pooled features, ``(samples, dim)``.
    """
    if not backbone.pretrained or backbone.spec.weights is None:
        return None
    try:
        found = _linear(backbone, features.shape[1])
    except (ZooError, OSError, ValueError) as error:  # the backbone itself was read; a score less is no reason to stop
        log.info("%s: its source head cannot be read: %s", backbone.spec.name, error)
        return None
    if found is None:
        return None
    logits = features.double().numpy() @ found[0].double().numpy().T + found[1].double().numpy()
    likely = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(likely / likely.sum(1, keepdims=True))


def _linear(backbone: Backbone, dim: int) -> tuple[Tensor, Tensor] | None:
    assert backbone.spec.weights is not None, "checked before"
    path = locate(backbone.spec.weights, backbone.spec.name)
    if path.suffix != ".safetensors":
        return None
    shapes = {name: tensor.shape for name, tensor in read_header(path, backbone.spec.name).items()}
    head = next((one for one in HEADS if _is_alone(one, shapes, dim)), None)
    if head is None:
        return None
    state = read(path, backbone.spec.name)
    return state[f"{head}.weight"], state[f"{head}.bias"]


def _is_alone(head: str, shapes: Mapping[str, Sequence[int]], dim: int) -> bool:
    """Return whether a linear layer on ``dim`` features is all that a file has of a head."""
    weight, top = f"{head}.weight", head.partition(".")[0]
    beside = {name for name in shapes if name.partition(".")[0] == top} - {weight, f"{head}.bias"}
    normed = any(name.startswith("fc_norm.") for name in shapes)
    shape = shapes.get(weight, ())
    return not (beside or normed) and f"{head}.bias" in shapes and len(shape) == 2 and shape[1] == dim and shape[0] > 1
