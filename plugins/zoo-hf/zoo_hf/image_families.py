"""The supported families of images, as data."""

from __future__ import annotations

from collections.abc import Mapping

from zoo_hf.family import LINEAR, Family, Groups, Home

VIT: Groups = {"embeddings": "embeddings", "layer": ["layers.*", "layernorm"]}
DINOV2: Groups = {"embeddings": "embeddings", "layer": ["encoder.layer.*", "layernorm"]}

SPLIT_ATTENTION = (
    (r"attention\.attention\.query", "attention.q_proj"),
    (r"attention\.attention\.key", "attention.k_proj"),
    (r"attention\.attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
)
VIT_NAMES = (
    (r"^encoder\.layer\.", "layers."),
    *SPLIT_ATTENTION,
    (r"intermediate\.dense", "mlp.fc1"),
    (r"(?<!attention\.)output\.dense", "mlp.fc2"),
)
DINOV2_NAMES = (*SPLIT_ATTENTION, (r"mlp\.weights_out", "mlp.down_proj"))


def _dinov2(prefix: str) -> Family:
    # Their classifier reads the class token beside the mean of the patches, which no head of ours does.
    return Family(
        layers=DINOV2,
        prefix=prefix,
        reads="image",
        names=DINOV2_NAMES,
        tokens=None,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        fixed={"use_mask_token": False},
    )


IMAGE: Mapping[str, Family] = {
    "dinov2": _dinov2("dinov2"),
    "dinov2_with_registers": _dinov2("dinov2_with_registers"),
    "vit": Family(
        layers=VIT,
        prefix="vit",
        reads="image",
        names=VIT_NAMES,
        sequence=Home(head="linear", keys=LINEAR, pool="token"),
        tokens=None,
    ),
}
