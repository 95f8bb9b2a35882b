"""Layer groups written by hand, by the name of timm's model class (the signs are explained in docs/layers.md).

``Class+attribute`` is for the variants of a class in which that attribute is not None.
"""

from __future__ import annotations

Literal = dict[str, str | list[str]]


def _coat(stage: int) -> list[str]:
    parts = ("patch_embed", "cls_token", "cpe", "crpe", "serial_blocks")
    return [f"{part}{stage}" for part in parts]


# CoaT numbers its parts by stage; the position encodings of a stage are shared with the parallel blocks, which run last.
COAT: Literal = {f"stage{i}": _coat(i) for i in (1, 2, 3)}

# Each stage is followed by its own norm; the weights of the fused heads are the last thing used.
EFFICIENTVIM: Literal = {
    "stem": "patch_embed",
    "stage.0": ["stages.0", "norm.0"],
    "stage.1": ["stages.1", "norm.1"],
    "stage.2": ["stages.2", "norm.2", "norm.3", "weights", "weights_dist?"],
}

LITERALS: dict[str, Literal] = {
    # No group_matcher.
    "MetaFormer": {"stem": "stem", "stage": ["stages.*", "norm?", "head"]},
    "PoolingVisionTransformer": {"stem": ["pos_embed", "cls_token", "patch_embed"], "stage": ["transformers.*", "norm"]},
    "MobileNetV5Encoder": {"stem": "conv_stem", "stage": ["blocks.*", "msfa"]},
    "CSATv2": {"stem": "stem_dct", "stage": ["stages.*", "head"]},
    # The class token enters after the blocks, and the class attention runs last.
    "Cait": {"stem": ["pos_embed", "patch_embed"], "block": "blocks.*", "token": ["cls_token", "blocks_token_only", "norm"]},
    # timm counts the position encodings of a stage to the stage before, and has the norms of all stages last.
    "CoaT+parallel_blocks": {**COAT, "stage4": _coat(4), "fusion": ["parallel_blocks", "norm2?", "norm3?", "norm4?", "aggregate?"]},
    "CoaT": {**COAT, "stage4": [*_coat(4), "norm4"]},
    "EfficientViM": EFFICIENTVIM,
    "EfficientViMDistilled": EFFICIENTVIM,
}
