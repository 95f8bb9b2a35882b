"""Tiny dual encoders of each kind that open_clip has, their values a function of their names, and how they are published."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tiny import VOCABULARY, words
from torch import Tensor, nn

TEXT: dict[str, Any] = {"context_length": 12, "vocab_size": 60, "width": 16, "heads": 2, "layers": 2}
VISION: dict[str, Any] = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
NAMED = {"hf_tokenizer_name": "acme/clip"}
SEEN = {"no_causal_mask": True, "pool_type": "last"}  # what is behind the end of a text
SIGMOID = {"init_logit_bias": -10, "custom_text": True}
HALVES = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"}
KINDS: dict[str, dict[str, Any]] = {
    "resnet": {
        "embed_dim": 12,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "head_width": 16, "patch_size": None},
        "text_cfg": TEXT,
    },
    "siglip": {
        "embed_dim": 64,
        **SIGMOID,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 160},
        "text_cfg": {
            **TEXT,
            **NAMED,
            **SEEN,
            "proj_bias": True,
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    },
    "coca": {
        "embed_dim": 12,
        "custom_text": True,
        "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 3, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "layers": 1, "attn_pooler_heads": 2},
    },
    "clipa": {
        "embed_dim": 12,
        "vision_cfg": {**VISION, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {**TEXT, **NAMED, **SEEN, "tokenizer_kwargs": {"strip_sep_token": True}},
    },
    # The end is "bad" here: another place than that of the largest number, and of a text without it the first.
    "worldwide": {"embed_dim": 12, "vision_cfg": VISION, "text_cfg": {**TEXT, **NAMED, "pool_type": "eos", "eos_id": 5}},
    "mobileclip": {
        "embed_dim": 12,
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": None, "image_size": 160},
        "text_cfg": {**TEXT, "no_causal_mask": True},
    },
    "convnext": {
        "embed_dim": 12,
        "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64},
        "text_cfg": TEXT,
    },
}
TEXTS = ["a very good film", "the plots is bad " * 4, "Bad, very_bad!"]  # the second one is cut, so that it has no padding


def wave(name: str, count: int) -> Tensor:
    """Return numbers from -1 to 1 that depend on a name."""
    seed = zlib.crc32(name.encode())
    return torch.sin(torch.arange(count, dtype=torch.float64) * (0.5 + seed % 97 / 97) + seed % 1009).float()


@torch.no_grad()
def fill(module: nn.Module, prefix: str) -> nn.Module:
    """Set the values of a tower by their names in the file, in place."""
    for name, value in module.state_dict().items():
        numbers = wave(f"{prefix}{name}", value.numel()).reshape(value.shape)
        if name.endswith("running_var"):
            value.copy_(1 + numbers.abs())
        elif value.ndim > 1:
            value.copy_(2 * numbers * (value.shape[0] / value.numel()) ** 0.5)
        elif value.is_floating_point():
            value.copy_(0.2 * numbers + float(name.endswith("weight") or name.endswith("gamma")))
    return module.eval()


def pictures(size: int) -> Tensor:
    """Return two images ``(2, 3, size, size)``."""
    return wave("pictures", 6 * size * size).reshape(2, 3, size, size)


def publish(folder: Path, kind: str, towers: tuple[nn.Module, nn.Module], **more: Any) -> None:
    """Write a dual encoder as open_clip publishes it, its texts without a prefix where open_clip has none, and a tokenizer."""
    config = KINDS[kind] | more
    text = "text." if config.get("custom_text") else ""
    state = {f"visual.{name}": value for name, value in towers[0].state_dict().items()}
    state |= {f"{text}{name}": value for name, value in towers[1].state_dict().items()} | {"logit_scale": torch.tensor(3.0)}
    state |= {"logit_bias": torch.tensor(-9.0)} if "init_logit_bias" in config else {}
    if "multimodal_cfg" in config:
        state |= {f"text_decoder.{name}": torch.ones(16) for name in ("ln_final.weight", "resblocks.0.ln_1.weight")}
    folder.mkdir()
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    told = {"model_cfg": config, "preprocess_cfg": HALVES if kind == "siglip" else {}}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    words(folder)
    pieces = [piece for piece in VOCABULARY if piece != "[SEP]"]
    (folder / "vocab.txt").write_text("\n".join([*pieces, "[SEP]"]) + "\n")  # the last token ends a text, as in CLIP's vocabulary
