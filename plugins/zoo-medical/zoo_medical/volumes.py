"""The declarations of MONAI's three-dimensional networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zoo

RESNET = {"stem": ["conv1", "bn1"], "stage1": "layer1", "stage2": "layer2", "stage3": "layer3", "stage4": "layer4"}
DENSENET = {
    "stem": ["features.conv0", "features.norm0"],
    "stage1": ["features.denseblock1", "features.transition1"],
    "stage2": ["features.denseblock2", "features.transition2"],
    "stage3": ["features.denseblock3", "features.transition3"],
    "stage4": ["features.denseblock4", "features.norm5"],
}
SWIN = {"stem": "patch_embed", **{f"stage{i}": [f"layers{i}c?", f"layers{i}"] for i in (1, 2, 3, 4)}}
VIT = {"stem": "patch_embedding", "block": ["blocks.*", "norm"]}

MEDICALNET = "TencentMedicalNet/MedicalNet-Resnet{depth}"
SWIN_SSL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/model_swinvit.pt"

# Depth or width -> (width of the features, parameters).
RESNETS = {
    10: (512, 14_356_416),
    18: (512, 33_160_896),
    34: (512, 63_470_528),
    50: (2048, 46_158_912),
    101: (2048, 85_205_056),
    152: (2048, 117_363_776),
    200: (2048, 126_563_392),
}
MEDICALNETS = {10: 14_355_520, 18: 32_986_176, 34: 63_295_808, 50: 46_155_072, 101: 85_201_216, 152: 117_359_936, 200: 126_559_552}
DENSENETS = {121: (1024, 11_242_624), 169: (1664, 18_542_720), 201: (1920, 25_330_816), 264: (2688, 40_245_888)}
SWINS = {24: 2_171_466, 48: 8_062_002}
VITS = {"small": (384, 22_936_704), "base": (768, 88_340_736)}


def specs() -> Iterator[zoo.BackboneSpec]:
    """Yield every declaration; of a network with published weights first the one without."""
    yield from _resnets()
    for depth, (dim, parameters) in DENSENETS.items():
        yield _spec(
            f"densenet{depth}-3d",
            "densenet3d",
            DENSENET,
            features=zoo.Features(dim=dim, layout="BCDHW"),
            options={"depth": depth},
            parameters=parameters,
            description=f"MONAI's DenseNet-{depth} in three dimensions.",
        )
    yield from _swins()
    for width, (dim, parameters) in VITS.items():
        yield _spec(
            f"vit-{width}-3d",
            "vit3d",
            VIT,
            features=zoo.Features(dim=dim, layout="BND", pool="avg"),
            inputs=zoo.Volume(size=96, fixed_size=True),
            options={"hidden_size": dim, "num_heads": dim // 64},
            convert="vit_keys",
            parameters=parameters,
            description=f"MONAI's ViT ({width}) on cubes of 16 voxels, the encoder of UNETR.",
        )


def _resnets() -> Iterator[zoo.BackboneSpec]:
    for depth, (dim, parameters) in RESNETS.items():
        features = zoo.Features(dim=dim, layout="BCDHW")
        told = f"MONAI's ResNet-{depth} in three dimensions"
        given: dict[str, Any] = {"options": {"depth": depth}, "parameters": parameters}
        yield _spec(f"resnet{depth}-3d", "resnet3d", RESNET, features=features, description=f"{told}.", **given)
        data = "_23dataset" if depth <= 50 else ""
        yield _spec(
            f"resnet{depth}-3d.medicalnet",
            "resnet3d",
            RESNET,
            features=features,
            options={"depth": depth, "medicalnet": True},
            weights=zoo.Weights(repo=MEDICALNET.format(depth=depth), file=f"resnet_{depth}{data}.pth", license="mit"),
            convert="medicalnet_keys",
            parameters=MEDICALNETS[depth],
            description=f"{told}, as MedicalNet (Chen et al. 2019) trained it to segment CT and MR.",
        )


def _swins() -> Iterator[zoo.BackboneSpec]:
    for width, parameters in SWINS.items():
        common: dict[str, Any] = {
            "features": zoo.Features(dim=16 * width, layout="BCDHW"),
            "options": {"feature_size": width},
            "parameters": parameters,
            "convert": "swin_keys",
        }
        told = f"The encoder of MONAI's SwinUNETR of width {width} (Hatamizadeh et al. 2022)"
        yield _spec(f"swinunetr-{width}", "swin3d", SWIN, description=f"{told}.", **common)
        if width == 48:
            yield _spec(
                f"swinunetr-{width}.ssl",
                "swin3d",
                SWIN,
                description=f"{told}, trained without labels on 5050 CT volumes (Tang et al. 2022).",
                inputs=zoo.Volume(size=96, spacing=(1.5, 1.5, 2.0), window=(0, 2000)),  # as in its training
                weights=zoo.Weights(url=SWIN_SSL, license="apache-2.0"),
                **common,
            )


def _spec(name: str, build: str, layers: Any, *, convert: str = "", inputs: zoo.Volume | None = None, **fields: Any) -> zoo.BackboneSpec:
    return zoo.BackboneSpec(
        name=f"monai/{name}",
        build=f"zoo_medical.volume_networks:{build}",
        layers=layers,
        inputs=inputs or zoo.Volume(size=96),
        convert=f"zoo_medical.keys:{convert}" if convert else "",
        **fields,
    )
