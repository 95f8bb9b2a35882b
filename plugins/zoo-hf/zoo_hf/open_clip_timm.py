"""Image towers of timm in open_clip's layout: a network and its projection, named as open_clip names them."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

import zoo

TRANSFORMER: Mapping[str, Sequence[str]] = {
    "stem": ["cls_token?", "reg_token?", "pos_embed?", "rope?", "patch_embed", "norm_pre?"],
    "block": ["blocks.*", "norm", "fc_norm?", "attn_pool?", "head?"],
}
STAGES: Mapping[str, Sequence[str]] = {"stem": ["stem"], "stage": ["stages.*", "norm_pre?", "final_conv?", "head?"]}
STAGED = ("ConvNeXt", "FastVit")  # classes of networks of stages whose groups are those above
# Arguments of timm's factory that are no options of an architecture: they would fetch or read other files, or change what is declared.
TAKEN = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "num_classes",
    "global_pool",
    "features_only",
)


def _timm(model: str) -> Any:
    """Return the library.

    Raises:
        zoo.OptionError: If it is not installed, or has no such model.
    """
    if importlib.util.find_spec("timm") is None:
        raise zoo.OptionError(f"the image tower {model!r} is one of timm, which is not installed: pip install timm")
    timm = import_module("timm")  # not required: only towers of this layout need it
    if not timm.is_model(model):
        raise zoo.OptionError(
            f"timm {timm.__version__} has no image tower {model!r}; install the one that its publisher used, or a newer one"
        )
    return timm


@cache
def image_width(model: str) -> int:
    """Return the width of an image tower's features, built without values.

    Raises:
        zoo.OptionError: If timm has no such model, or it is none whose groups are known here.
    """
    return int(_shape_of(model).num_features)


@cache
def _shape_of(model: str) -> Any:
    """Return a model of timm without values.

    Raises:
        zoo.OptionError: If timm has no such model, or it is none whose groups are known here.
    """
    with torch.device("meta"):
        trunk = _timm(model).create_model(model, pretrained=False, num_classes=0)
    if not (_is_transformer(trunk) or type(trunk).__name__ in STAGED):
        raise zoo.OptionError(
            f"the image tower {model!r} of timm is a {type(trunk).__name__}, which is not read; read are its vision transformers for "
            f"images of any size, and {' and '.join(STAGED)}"
        )
    return trunk


def _is_transformer(trunk: Any) -> bool:
    return all(hasattr(trunk, name) for name in ("blocks", "patch_embed", "dynamic_img_size"))


class ImageTower(nn.Module):
    """A trunk of timm and its projection, named as open_clip names them.

    Args:
        trunk: Gives one vector per image.
        head: The projection, or None.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(batch, 3, height, width)`` to ``(batch, dim)``."""
        features: Tensor = self.trunk(x)
        return features if self.head is None else self.head(features)


def timm_tower(tower: Mapping[str, Any], projection: int = 0, **options: Any) -> nn.Module:
    """Build an image tower of timm.

    Args:
        tower: ``model`` of timm, ``pool``, ``proj`` and ``proj_bias``, as open_clip's configuration has them.
        projection: Width of the space of images and texts; 0 for the features before the projection.
        **options: Of the model of timm, such as ``drop_path_rate``.

    Raises:
        zoo.OptionError: If timm is missing, or has no such model or option.
    """
    model, pool, proj = tower["model"], tower.get("pool", ""), tower.get("proj", "linear")
    timm = _timm(model)
    # A pooling that is given to the constructor changes the norms; with a projection of its own open_clip sets it afterwards.
    early = {"global_pool": pool} if proj in ("", "none") and pool else {}
    sizes = {"dynamic_img_size": True} if _is_transformer(_shape_of(model)) else {}
    classes = projection if proj == "" else 0  # the classifier of timm is the projection
    try:
        trunk = timm.create_model(model, pretrained=False, num_classes=classes, **sizes, **early, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        told = ", ".join(f"{name}={value!r}" for name, value in options.items()) or "these options"
        raise zoo.OptionError(f"timm's {model} refuses {told}: {error}; leave out what it does not take") from error
    if pool and not early:
        trunk.reset_classifier(0, global_pool=pool)
    return ImageTower(trunk, _image_head(proj, trunk.num_features, projection, bool(tower.get("proj_bias"))))


def _image_head(proj: str, width: int, projection: int, bias: bool) -> nn.Module | None:
    """Return the projection of an image tower by open_clip's name, with its names."""
    if not projection or proj in ("", "none"):
        return None
    if proj == "linear":
        return nn.Sequential(OrderedDict(drop=nn.Dropout(0.0), proj=nn.Linear(width, projection, bias=bias)))
    layers = import_module("timm.layers")
    return nn.Sequential(OrderedDict(mlp=layers.Mlp(width, 2 * projection, projection, bias=(True, bias))))


def timm_layers(trunk: Any) -> dict[str, Sequence[str]]:
    """Return the layer groups of such an image tower: the embeddings or the stem, and a group per block or stage."""
    *first, (last, members) = (TRANSFORMER if _is_transformer(trunk) else STAGES).items()
    below = {name: [f"trunk.{member}" for member in parts] for name, parts in first}
    return {**below, last: [*(f"trunk.{member}" for member in members), "head?"]}
