"""The declarations of torchxrayvision's classifiers, one per published set of weights (Cohen et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import zoo

Groups = dict[str, str | Sequence[str]]

RELEASE = "https://github.com/mlmed/torchxrayvision/releases/download/v1"
STEM = ["features.conv0", "features.norm0"]
DENSENET: Groups = {
    "stem": STEM,
    "stage1": ["features.denseblock1", "features.transition1"],
    "stage2": ["features.denseblock2", "features.transition2"],
    "stage3": ["features.denseblock3", "features.transition3"],
    "stage4": ["features.denseblock4", "features.norm5"],
}
RESNET: Groups = {"stem": ["conv1", "bn1"], "stage1": "layer1", "stage2": "layer2", "stage3": "layer3", "stage4": "layer4"}

# Name of the weights -> the data they were trained on, and the published file: a whole pickled model.
TRAINED_ON = {
    "all": ("NIH, PadChest, CheXpert, MIMIC-CXR, Google, OpenI and RSNA", "nih-pc-chex-mimic_ch-google-openi-kaggle"),
    "nih": ("NIH ChestX-ray14", "nih"),
    "pc": ("PadChest", "pc"),
    "chex": ("CheXpert", "chex"),
    "rsna": ("the RSNA Pneumonia Challenge", "kaggle"),
    "mimic_nb": ("MIMIC-CXR (NegBio labels)", "mimic_nb"),
    "mimic_ch": ("MIMIC-CXR (CheXpert labels)", "mimic_ch"),
}


def specs() -> Iterator[zoo.BackboneSpec]:
    """Yield a declaration per set of weights."""
    for name, (data, file) in TRAINED_ON.items():
        yield _spec(
            f"densenet121-res224-{name}",
            f"{file}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
            build="zoo_medical.xray_networks:densenet121",
            layers=DENSENET,
            size=224,
            dim=1024,
            parameters=6_947_584,
            macs=2.75,
            description=f"DenseNet-121 for chest X-rays, trained on {data}.",
        )
    yield _spec(
        "resnet50-res512-all",
        "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt",
        build="zoo_medical.xray_networks:resnet50",
        layers=RESNET,
        size=512,
        dim=2048,
        parameters=23_501_760,
        macs=20.94,
        description="ResNet-50 for chest X-rays of 512 pixels, trained on PadChest, NIH, RSNA, SIIM and VinBig.",
    )


def _spec(
    name: str,
    file: str,
    *,
    build: str,
    layers: Groups,
    size: int,
    dim: int,
    parameters: int,
    macs: float,
    description: str,
) -> zoo.BackboneSpec:
    return zoo.BackboneSpec(
        name=f"xrv/{name}",
        build=build,
        layers=layers,
        # torchxrayvision's own range: (2 x - 1) * 1024 for x in [0, 1].
        inputs=zoo.Image(size=size, mean=(0.5,), std=(1 / 2048,), interpolation="bilinear"),
        features=zoo.Features(dim=dim, layout="BD"),
        weights=zoo.Weights(url=f"{RELEASE}/{file}", license="apache-2.0"),
        convert="zoo_medical.keys:xray_keys",
        parameters=parameters,
        macs=macs,
        description=description,
    )
