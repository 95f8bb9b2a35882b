"""The supported families of images, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zoo_hf import image_processor
from zoo_hf.family import LINEAR, POOLED, Family, Groups, Home

VIT: Groups = {"embeddings": "embeddings", "layer": ["layers.*", "layernorm"]}
DINOV2: Groups = {"embeddings": "embeddings", "layer": ["encoder.layer.*", "layernorm"]}
DINOV3: Groups = {"embeddings": ["embeddings", "rope_embeddings"], "layer": ["model.layer.*", "norm"]}
BEIT: Groups = {"embeddings": ["embeddings", "shared_position_bias?"], "layer": ["layers.*", "layernorm", "pooler?"]}
CLIP: Groups = {"embeddings": ["embeddings", "pre_layrnorm?"], "layer": ["encoder.layers.*", "post_layernorm", "head?", "projection?"]}
# A stage is one group; the reduction to the next stage's size belongs to the stage that it is registered in.
SWIN: Groups = {"embeddings": "embeddings", "stage": ["encoder.layers.*", "layernorm"]}
HIERA: Groups = {"embeddings": "embeddings", "stage": ["encoder.stages.*", "pooler?"]}
CONVNEXT: Groups = {"embeddings": "embeddings", "stage": ["encoder.stages.*", "layernorm"]}

IMAGENET: dict[str, Any] = dict(zip(("mean", "std"), image_processor.IMAGENET, strict=True))
OPENAI: dict[str, Any] = dict(zip(("mean", "std"), image_processor.OPENAI, strict=True))

# (published, module): the home library renamed the parts of its layers, and still writes files with the older names.
ATTENTION = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
)
MLP = (("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"))
VIT_PARTS = (("encoder.layer.", "layers."), *ATTENTION, *MLP)
BEIT_PARTS = (
    *VIT_PARTS,
    ("attention.attention.relative_position_bias", "relative_position_bias"),
    ("encoder.relative_position_bias", "shared_position_bias"),
)
SWIN_PARTS = (
    ("attention.self.query", "attention.q_proj"),
    ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    *MLP,
)
SWIN_TABLE = "attention.self.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"
SEGFORMER_PARTS = (
    *SWIN_PARTS[:4],
    ("attention.self.sr", "attention.sequence_reduction.sequence_reduction"),
    ("attention.self.layer_norm", "attention.sequence_reduction.layer_norm"),
    ("mlp.dense1", "mlp.fc1"),
    ("mlp.dense2", "mlp.fc2"),
    ("layer_norm_1", "layernorm_before"),
    ("layer_norm_2", "layernorm_after"),
)
SEGFORMER_NAMES = (
    (r"^encoder\.patch_embeddings\.(\d+)\.", r"stages.\1.patch_embeddings."),
    (r"^encoder\.block\.(\d+)\.", r"stages.\1.blocks."),
    (r"^encoder\.layer_norm\.(\d+)\.", r"stages.\1.layer_norm."),
)
SEGFORMER_PUBLISHED = (
    (r"^stages\.(\d+)\.patch_embeddings", r"encoder.patch_embeddings.\1"),
    (r"^stages\.(\d+)\.blocks\.", r"encoder.block.\1."),
    (r"^stages\.(\d+)\.layer_norm$", r"encoder.layer_norm.\1"),
)
DINOV2_NAMES = (*((re.escape(theirs), ours) for theirs, ours in ATTENTION), (r"mlp\.weights_out", "mlp.down_proj"))

TOKEN = Home(head="linear", keys=LINEAR, pool="token")
AVERAGE = Home(head="linear", keys=LINEAR, pool="avg")
ONLY = Home(head="linear", keys=LINEAR)


def _image(layers: Groups, prefix: str, parts: tuple[tuple[str, str], ...] = (), **more: Any) -> Family:
    """Return a family with a table of renamed parts, which is read in both directions."""
    names = (*more.pop("names", ()), *((re.escape(theirs), ours) for theirs, ours in parts))
    published = (*more.pop("published", ()), *((re.escape(ours), theirs) for theirs, ours in parts))
    return Family(layers=layers, prefix=prefix, reads="image", tokens=None, names=names, published=published, **more)


def _dinov2(prefix: str, registers: int = 0) -> Family:
    # Their classifier reads the class token beside the mean of the patches, which no head of ours does.
    return _image(
        DINOV2,
        prefix,
        names=DINOV2_NAMES,
        registers=registers,
        processor="Bit",
        resample="bicubic",
        fixed={"use_mask_token": False},
        **IMAGENET,
    )


def _convnext(prefix: str) -> Family:
    # The last norm follows the pooling, so the pooled features are what their classifier reads.
    return _image(
        CONVNEXT,
        prefix,
        width="hidden_sizes",
        pooler="always",
        class_tokens=0,
        sequence=ONLY,
        processor="ConvNext",
        resample="bicubic",
        crop=0.875,
        uncropped=384,
        **IMAGENET,
    )


def _swin(prefix: str, parts: tuple[tuple[str, str], ...] = (), **more: Any) -> Family:
    prepared = {"processor": "ViT", "resample": "bicubic", **IMAGENET}
    return _image(SWIN, prefix, parts, width="embed_dim", class_tokens=0, sequence=AVERAGE, **prepared, **more)


def _tower(composite: str, **more: Any) -> Family:
    # Their classifiers average the tokens; what the models were trained by is their own pooling.
    common: dict[str, Any] = {"pooler": "default", "sequence": AVERAGE, "resample": "bicubic", "interpolates": True}
    return _image(CLIP, "vision_model", composite=composite, **common, **more)


IMAGE: Mapping[str, Family] = {
    "beit": _image(
        BEIT, "beit", BEIT_PARTS, pooler="default", sequence=POOLED, processor="Beit", resample="bicubic", fixed={"use_mask_token": False}
    ),
    "clip_vision_model": _tower(
        "clip", processor="CLIP", names=((r"^visual_projection\.", "projection."),), projected="projection_dim", **OPENAI
    ),
    "convnext": _convnext("convnext"),
    "convnextv2": _convnext("convnextv2"),
    "deit": _image(
        VIT,
        "deit",
        VIT_PARTS,
        class_tokens=2,
        sequence=TOKEN,
        processor="DeiT",
        resample="bicubic",
        crop=0.875,
        interpolates=True,
        **IMAGENET,
    ),
    "dinov2": _dinov2("dinov2"),
    "dinov2_with_registers": _dinov2("dinov2_with_registers", registers=4),
    # The class token is the mean of the map, normalised together with it.
    "dinov3_convnext": _image(
        {"stage": ["model.stages.*", "layer_norm"]},
        "",
        names=((r"^stages\.", "model.stages."),),
        width="hidden_sizes",
        processor="DINOv3ViT",
        **IMAGENET,
    ),
    "dinov3_vit": _image(DINOV3, "", names=((r"^layer\.", "model.layer."),), default_width=384, processor="DINOv3ViT", **IMAGENET),
    "hiera": _image(
        HIERA,
        "hiera",
        width="embed_dim",
        pooler="default",
        class_tokens=0,
        sequence=POOLED,
        processor="Bit",
        resample="bicubic",
        crop=0.875,
        interpolates=True,
        **IMAGENET,
    ),
    "ijepa": _image(VIT, "ijepa", VIT_PARTS, class_tokens=0, sequence=AVERAGE, processor="ViT", interpolates=True),
    "segformer": _image(
        {"stage": "stages.*"},
        "segformer",
        SEGFORMER_PARTS,
        names=SEGFORMER_NAMES,
        published=SEGFORMER_PUBLISHED,
        width="hidden_sizes",
        default_width=256,
        layout="BCHW",
        class_tokens=0,
        sequence=AVERAGE,
        fixed={"reshape_last_stage": True},
        processor="Segformer",
        **IMAGENET,
    ),
    "siglip_vision_model": _tower("siglip", processor="Siglip", class_tokens=0, pooler_field="vision_use_head"),
    # Images of any shape, as patches with their places; here all of a batch have one shape. It has no classifier that opens pixels.
    "siglip2_vision_model": _image(
        CLIP,
        "vision_model",
        composite="siglip2",
        pooler="default",
        pooler_field="vision_use_head",
        class_tokens=0,
        patches=256,
        processor="Siglip2",
    ),
    "swin": _swin(
        "swin",
        SWIN_PARTS,
        names=((re.escape(SWIN_TABLE[0]), SWIN_TABLE[1]),),
        published=((r"attention\.relative_position_bias$", "attention.self"),),
        interpolates=True,
    ),
    "swinv2": _swin("swinv2"),
    "vit": _image(VIT, "vit", VIT_PARTS, sequence=TOKEN, processor="ViT", interpolates=True),
    # It has no classifier of its own; its masking is off, so the order of the patches is kept.
    "vit_mae": _image(VIT, "vit", VIT_PARTS, processor="ViT", interpolates=True, fixed={"mask_ratio": 0.0}, **IMAGENET),
}
