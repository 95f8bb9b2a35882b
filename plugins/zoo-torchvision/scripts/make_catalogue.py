"""Generate zoo_torchvision/catalogue.json from the installed torchvision; about two minutes on one core.

Names, addresses, preprocessing and accuracies are those of torchvision's weights enums. Parameters and multiply-accumulates are
those of the backbone, without its classifier, measured on the meta device.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.transforms import InterpolationMode
from zoo_torchvision.build import backbone_of
from zoo_torchvision.families import FAMILIES

OUT = Path(__file__).parents[1] / "zoo_torchvision" / "catalogue.json"
# The classifier of these holds no values but NaN, so that they are no weights of the whole backbone.
LEFT_OUT = ("vgg16.imagenet1k_features",)
SWAG = "https://github.com/facebookresearch/SWAG"


def names() -> list[str]:
    """Return torchvision's image classifiers."""
    return models.list_models(module=models)


def home_of(name: str, size: int) -> nn.Module:
    """Build torchvision's network on the meta device, for images of a size where it is built for one."""
    kind = models.get_model_builder(name).__annotations__["return"]
    family = FAMILIES[kind if isinstance(kind, str) else kind.__name__]
    options: dict[str, Any] = {"init_weights": False} if "transform_input" in family.options else {}
    if family.size_option:
        options[family.size_option] = (size, size) if family.size_option == "input_size" else size
    with torch.device("cpu" if family is FAMILIES["RegNet"] else "meta"):  # RegNet computes its widths with tensors
        home: nn.Module = models.get_model(name, weights=None, **options)
    return home.to("meta").eval()


def weights_of(weights: Any) -> dict[str, Any]:
    """Return what an enum's member says of its file and of the preparation of images."""
    preset = weights.transforms()
    (crop,), (resize,) = preset.crop_size, preset.resize_size
    assert math.floor(crop / (crop / resize)) == resize, f"{weights}: the crop {crop} / {resize} does not give its size again"
    assert preset.antialias
    assert weights.meta["num_params"]
    return {
        "url": weights.url,
        "license": "cc-by-nc-4.0" if weights.meta.get("recipe", "").startswith(SWAG) or "license" in weights.meta else "bsd-3-clause",
        "size": crop,
        "resize": resize,
        "interpolation": InterpolationMode(preset.interpolation).value,
        "mean": preset.mean,
        "std": preset.std,
        "top1": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
    }


@torch.no_grad()
def measured(home: nn.Module, size: int) -> tuple[dict[str, Any], int]:
    """Return the parameters and 10^9 multiply-accumulates of the backbone, and the width of its features."""
    backbone = backbone_of(home)
    with FlopCounterMode(display=False) as counter:
        features = backbone(torch.zeros(1, 3, size, size, device="meta"))
    dim = features.shape[1 if features.ndim == 4 else -1]
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return {"parameters": parameters, "gmacs": float(f"{counter.get_total_flops() / 2e9:.4g}")}, dim


def architecture(name: str) -> dict[str, Any]:
    """Return all of an architecture."""
    enum = models.get_model_weights(name)
    published: dict[str, Any] = {}
    sizes: dict[int, dict[str, Any]] = {}
    for weights in enum:
        tag = weights.name.lower()
        if f"{name}.{tag}" in LEFT_OUT:
            continue
        told = weights_of(weights)
        size = told["size"]
        if size not in sizes:
            home = home_of(name, size)
            family = type(home).__name__
            sizes[size], dim = measured(home, size)
        published[tag] = told | sizes[size]
    return {"family": family, "dim": dim, "default": enum.DEFAULT.name.lower(), "weights": published}


def main() -> None:
    """Measure and write."""
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention hides its multiplications
    table = {"torchvision": torchvision.__version__.partition("+")[0], "architectures": {name: architecture(name) for name in names()}}
    OUT.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"torchvision {table['torchvision']}: {len(table['architectures'])} architectures")


if __name__ == "__main__":
    main()
