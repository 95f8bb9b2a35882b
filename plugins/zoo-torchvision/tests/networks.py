"""Small networks of torchvision's classes, one of each family, with random values that hide nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from zoo.testing import randomise

AUXILIARY: dict[str, Any] = {"aux_logits": True, "init_weights": False, "transform_input": True}
SWIN: dict[str, Any] = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [2] * 4, "window_size": [4, 4]}

SMALL: dict[str, Callable[..., nn.Module]] = {
    "AlexNet": models.AlexNet,
    "ConvNeXt": partial(
        models.ConvNeXt, [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 2), CNBlockConfig(24, 32, 1), CNBlockConfig(32, None, 1)]
    ),
    "DenseNet": partial(models.DenseNet, 4, (1, 2, 1, 1), 8),
    "EfficientNet": partial(
        models.EfficientNet,
        [MBConvConfig(2, 3, 1 + index % 2, 8, 8, 1, 1.0, 1.0) for index in range(7)],
        dropout=0.2,
        last_channel=16,
    ),
    "GoogLeNet": partial(models.GoogLeNet, **AUXILIARY),
    "Inception3": partial(models.Inception3, **AUXILIARY),
    "MNASNet": partial(models.MNASNet, 0.35),
    "MaxVit": partial(
        models.MaxVit,
        input_size=(64, 64),
        stem_channels=8,
        partition_size=2,
        block_channels=[8, 8, 16, 16],
        block_layers=[1, 1, 1, 1],
        head_dim=8,
        stochastic_depth_prob=0.2,
    ),
    "MobileNetV2": partial(models.MobileNetV2, width_mult=0.25),
    "MobileNetV3": partial(
        models.MobileNetV3, [InvertedResidualConfig(8, 3, 8, 8, True, "HS", 1 + index % 2, 1, 1.0) for index in range(11)], 16
    ),
    "RegNet": partial(models.RegNet, BlockParams([1, 1, 1, 1], [8, 8, 16, 16], [8, 8, 8, 8], [1.0] * 4, [2] * 4, 0.25)),
    "ResNet": partial(models.ResNet, BasicBlock, [1, 1, 1, 1]),
    "ShuffleNetV2": partial(models.ShuffleNetV2, [2, 2, 2], [8, 16, 24, 32, 40]),
    "SqueezeNet": partial(models.SqueezeNet, "1_1"),
    "SwinTransformer": partial(models.SwinTransformer, **SWIN),
    "SwinTransformer v2": partial(models.SwinTransformer, **SWIN, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
    "VGG": partial(models.VGG, nn.Sequential(nn.Conv2d(3, 512, 3), nn.ReLU(inplace=True))),
    "VisionTransformer": partial(
        models.VisionTransformer, image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    ),
}
ARCHITECTURES = {  # whose layer groups fit the small network
    "EfficientNet": "efficientnet_b0",
    "MobileNetV3": "mobilenet_v3_small",
    "SqueezeNet": "squeezenet1_1",
}
SIZES = {"Inception3": 75, "VisionTransformer": 32}


def small(name: str, classes: int = 5) -> nn.Module:
    """Build a small network in eval mode; every value is moved, running statistics too."""
    torch.manual_seed(0)
    return randomise(SMALL[name](num_classes=classes))


def images(name: str, batch: int = 2) -> torch.Tensor:
    """Return a batch of random images of a size that a small network takes."""
    size = SIZES.get(name, 64)
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
