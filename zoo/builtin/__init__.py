"""The built-in plugin: one small pretrained backbone and the task heads."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.declare import BackboneSpec, Features, HeadSpec, Image, Weights
from zoo.hookspecs import hookimpl

GLYPHNET = BackboneSpec(
    name="zoo/glyphnet",
    build="zoo.builtin.glyphnet:glyphnet",
    layers={"stem": ["conv", "norm"], "stage1": "stage1", "stage2": "stage2", "stage3": "stage3"},
    inputs=Image(size=32, mean=(0.3,), std=(0.33,), interpolation="bicubic"),
    features=Features(dim=160, layout="BCHW"),
    weights=Weights(
        package="zoo.builtin",
        file="glyphnet.safetensors",
        sha256="7afda8f0c56b1a85bcaa6d360c83574f9eb020d30cbadbb52b2d1ec43a23e353",
        license="apache-2.0",
    ),
    parameters=410_912,
    macs=0.014,
    description="Small residual CNN for pictures of characters, pretrained on distorted letters of 470 kinds, no digits.",
)


@hookimpl
def zoo_backbones() -> Iterable[BackboneSpec]:
    """List GlyphNet."""
    yield GLYPHNET


@hookimpl
def zoo_heads() -> Iterable[HeadSpec]:
    """List the heads of the core."""
    yield HeadSpec(name="linear", build="zoo.models.heads:LinearHead", description="Pooling, dropout, one linear layer.")
    yield HeadSpec(
        name="mlp", build="zoo.models.heads:MLPHead", description="Pooling, a hidden layer with ReLU and dropout, a linear layer."
    )
    yield HeadSpec(
        name="tokens", build="zoo.models.heads:TokenHead", description="Dropout and one linear layer for each token.", per_token=True
    )
    yield HeadSpec(
        name="zero-shot",
        build="zoo.models.pairs.zero_shot:ZeroShotHead",
        description="Embeddings of texts about the classes, of CLIP and its kin.",
    )
