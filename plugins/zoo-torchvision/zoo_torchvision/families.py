"""The families of torchvision's image classifiers as data: features, classifier, options and layer groups in forward order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Groups = Mapping[str, str | Sequence[str]]

GOOGLENET = ("inception3a", "inception3b", *(f"inception4{one}" for one in "abcde"), "inception5a", "inception5b")
INCEPTION = (*(f"Mixed_5{one}" for one in "bcd"), *(f"Mixed_6{one}" for one in "abcde"), *(f"Mixed_7{one}" for one in "abc"))


def _numbered(parent: str, *stages: tuple[int, ...], last: tuple[str, ...] = ()) -> Groups:
    """Return a stem and stages of numbered children of one module, each with those that hold parameters."""
    groups = {f"stage{index}": [f"{parent}.{number}" for number in stage] for index, stage in enumerate(stages)}
    end = list(groups)[-1]
    return {"stem": groups.pop("stage0"), **groups, end: [*groups[end], *last]}


def _vgg(convolutions: tuple[int, ...], step: int) -> Groups:
    """Return the groups of a VGG: five stages, each ended by a pooling, and its two hidden linear layers.

    Args:
        convolutions: Number of convolutions of each stage.
        step: Modules per convolution: with its activation, and a norm where there is one.
    """
    groups: dict[str, Sequence[str]] = {}
    start = 0
    for stage, number in enumerate(convolutions, 1):
        starts = [start + step * index for index in range(number)]
        groups[f"stage{stage}"] = [f"features.{first + part}" for first in starts for part in range(step - 1)]
        start += step * number + 1
    return {**groups, "fc1": ["classifier.0"], "fc2": ["classifier.3"]}


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the architectures of one torchvision class have in common.

    Attributes:
        classifier: Prefix of the last linear layer, which zoo's linear head replaces; empty where it is something else.
        bias: Whether that layer has a bias.
        layout: Layout of the features: before the pooling as maps or tokens, or pooled where layers with parameters follow it.
        groups: Layer groups of its architectures.
        variants: Layer groups of those that differ.
        options: Options of torchvision's class that concern the backbone.
        size_option: torchvision's name of the image size, where an architecture is built for one.
        no_head_reason: Why torchvision cannot express a linear head, where it cannot.
    """

    classifier: str = ""
    bias: bool = True
    layout: str = "BCHW"
    groups: Groups = field(default_factory=dict)
    variants: Mapping[str, Groups] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    size_option: str = ""
    no_head_reason: str = ""


_HIERARCHY = _numbered("features", (0,), (1,), (2, 3), (4, 5), (6, 7))

FAMILIES: dict[str, Family] = {
    "AlexNet": Family(
        classifier="classifier.6",
        layout="BD",
        groups={
            **{f"conv{index}": f"features.{number}" for index, number in enumerate((0, 3, 6, 8, 10), 1)},
            "fc1": "classifier.1",
            "fc2": "classifier.4",
        },
        options=("dropout",),
    ),
    "ConvNeXt": Family(
        classifier="classifier.2",
        layout="BD",
        groups={**_HIERARCHY, "stage4": ["features.6", "features.7", "classifier.0"]},
        options=("layer_scale", "stochastic_depth_prob"),
    ),
    "DenseNet": Family(
        classifier="classifier",
        groups={
            "stem": ["features.conv0", "features.norm0"],
            **{f"stage{i}": [f"features.denseblock{i}", f"features.transition{i}"] for i in (1, 2, 3)},
            "stage4": ["features.denseblock4", "features.norm5"],
        },
        options=("bn_size", "drop_rate", "memory_efficient"),
    ),
    "EfficientNet": Family(
        classifier="classifier.1",
        groups=_numbered("features", (0,), (1,), (2,), (3,), (4,), (5,), (6,), (7, 8)),
        variants={"efficientnet_v2_s": _numbered("features", (0,), (1,), (2,), (3,), (4,), (5,), (6, 7))},
        options=("stochastic_depth_prob",),
    ),
    "GoogLeNet": Family(
        classifier="fc",
        groups={"stem": ["conv1", "conv2", "conv3"], **{name: name for name in GOOGLENET}},
        options=("init_weights", "transform_input"),
    ),
    "Inception3": Family(
        classifier="fc",
        groups={
            "stem": ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"],
            **{name: name for name in INCEPTION},
        },
        options=("init_weights", "transform_input"),
    ),
    "MNASNet": Family(
        classifier="classifier.1",
        groups=_numbered("layers", (0, 1, 3, 4, 6, 7), (8,), (9,), (10,), (11,), (12,), (13, 14, 15)),
    ),
    "MaxVit": Family(
        classifier="classifier.5",
        bias=False,
        layout="BD",
        groups={
            "stem": "stem",
            **{f"stage{i}": f"blocks.{i - 1}" for i in (1, 2, 3)},
            "stage4": ["blocks.3", "classifier.2", "classifier.3"],
        },
        options=("attention_dropout", "expansion_ratio", "mlp_dropout", "mlp_ratio", "squeeze_ratio"),
        size_option="input_size",
    ),
    "MobileNetV2": Family(
        classifier="classifier.1",
        groups=_numbered("features", (0,), (1,), (2, 3), (4, 5, 6), (7, 8, 9, 10), (11, 12, 13), (14, 15, 16), (17, 18)),
        options=("round_nearest", "width_mult"),
    ),
    "MobileNetV3": Family(
        classifier="classifier.3",
        layout="BD",
        groups=_numbered("features", (0,), (1,), (2, 3), (4, 5, 6), (7, 8, 9, 10), (11, 12), (13, 14, 15, 16), last=("classifier.0",)),
        variants={
            "mobilenet_v3_small": _numbered("features", (0,), (1,), (2, 3), (4, 5, 6), (7, 8), (9, 10, 11, 12), last=("classifier.0",))
        },
        options=("dilated", "dropout", "reduced_tail", "width_mult"),
    ),
    "RegNet": Family(
        classifier="fc",
        groups={"stem": "stem", **{f"stage{i}": f"trunk_output.block{i}" for i in (1, 2, 3, 4)}},
    ),
    "ResNet": Family(
        classifier="fc",
        groups={"stem": ["conv1", "bn1"], **{f"stage{i}": f"layer{i}" for i in (1, 2, 3, 4)}},
        options=("groups", "replace_stride_with_dilation", "width_per_group", "zero_init_residual"),
    ),
    "ShuffleNetV2": Family(
        classifier="fc",
        groups={"stem": "conv1", "stage2": "stage2", "stage3": "stage3", "stage4": ["stage4", "conv5"]},
    ),
    "SqueezeNet": Family(
        variants={
            "squeezenet1_0": _numbered("features", (0,), (3, 4, 5), (7, 8, 9, 10), (12,)),
            "squeezenet1_1": _numbered("features", (0,), (3, 4), (6, 7), (9, 10, 11, 12)),
        },
        no_head_reason="the classifier of torchvision's SqueezeNet is a convolution and an activation before the pooling",
    ),
    "SwinTransformer": Family(
        classifier="head",
        groups={**_HIERARCHY, "stage4": ["features.6", "features.7", "norm"]},
        options=("attention_dropout", "dropout", "mlp_ratio"),
    ),
    "VGG": Family(
        classifier="classifier.6",
        layout="BD",
        variants={
            f"vgg{depth}{ending}": _vgg(convolutions, step)
            for depth, convolutions in {11: (1, 1, 2, 2, 2), 13: (2,) * 5, 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}.items()
            for ending, step in (("", 2), ("_bn", 3))
        },
        options=("dropout", "init_weights"),
    ),
    "VisionTransformer": Family(
        classifier="heads.head",
        layout="BND",
        groups={"stem": ["class_token", "conv_proj", "encoder.pos_embedding"], "block": ["encoder.layers.*", "encoder.ln"]},
        options=("attention_dropout", "dropout"),
        size_option="image_size",
    ),
}


def layers(architecture: str, family: str) -> Groups:
    """Return the layer groups of an architecture in forward order, as literals of docs/layers.md."""
    declared = FAMILIES[family]
    return declared.variants.get(architecture, declared.groups)
