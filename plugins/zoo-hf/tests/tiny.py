"""Tiny configurations of every family, and a tokenizer of a few words."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertTokenizerFast

BERT: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
SHORT: dict[str, Any] = {key: BERT[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
DEBERTA = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "type_vocab_size": 0,
}
PLAIN: dict[str, Any] = {**SHORT, "intermediate_size": 32, "image_size": 32, "patch_size": 8}
MAPS: dict[str, Any] = {"hidden_sizes": [8, 12], "depths": [1, 2], "image_size": 32}
WINDOWS: dict[str, Any] = {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4, "image_size": 32, "patch_size": 4}
IMAGE_CONFIGS: dict[str, dict[str, Any]] = {
    "beit": {**PLAIN, "use_relative_position_bias": True},
    "clip_vision_model": PLAIN,
    "convnext": {**MAPS, "num_stages": 2},
    "convnextv2": {**MAPS, "num_stages": 2},
    "deit": PLAIN,
    "dinov2": {**SHORT, "mlp_ratio": 2, "image_size": 42, "patch_size": 14},
    "dinov2_with_registers": {**SHORT, "mlp_ratio": 2, "image_size": 42, "patch_size": 14, "num_register_tokens": 2},
    "dinov3_convnext": MAPS,
    "dinov3_vit": {**PLAIN, "num_register_tokens": 2},
    "hiera": {
        "embed_dim": 8,
        "depths": [1, 2],
        "num_heads": [1, 2],
        "num_query_pool": 1,
        "masked_unit_attention": [True, False],
        "image_size": [64, 64],
    },
    "ijepa": PLAIN,
    "segformer": {
        "hidden_sizes": [8, 16],
        "depths": [1, 2],
        "num_attention_heads": [1, 2],
        "num_encoder_blocks": 2,
        "image_size": 32,
    },
    "siglip_vision_model": PLAIN,
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "vit": PLAIN,
    "vit_mae": PLAIN,
}
ROTARY = {**BERT, "pad_token_id": 0}
DECODER = {**ROTARY, "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"vocab_size": 60, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32, "n_positions": 40}
SQUEEZED = ("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups")
TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "albert": {**BERT, "embedding_size": 8},
    "bert": BERT,
    "big_bird": BERT,
    "camembert": BERT,
    "convbert": {**BERT, "embedding_size": 8},
    "data2vec-text": BERT,
    "deberta": {**BERT, **DEBERTA, "pos_att_type": ["p2c", "c2p"]},
    "deberta-v2": {**BERT, **DEBERTA},
    "distilbert": {"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40},
    "electra": {**BERT, "embedding_size": 8},
    "ernie": {**BERT, "use_task_id": True},
    "esm": {**BERT, "pad_token_id": 1, "mask_token_id": 4, "position_embedding_type": "rotary", "token_dropout": True},
    "eurobert": {**ROTARY, "num_key_value_heads": 1},
    "fnet": {**BERT, "pad_token_id": 0, "tpu_short_seq_length": 40},
    "gemma3_text": {**DECODER, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "query_pre_attn_scalar": 8},
    "gpt2": {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "bos_token_id": 1, "eos_token_id": 2},
    "gte": ROTARY,
    "jina_embeddings_v3": {**BERT, "pad_token_id": 1},
    "llama": DECODER,
    "longformer": {**BERT, "attention_window": [4, 4]},
    "luke": {**BERT, "entity_vocab_size": 9, "entity_emb_size": 8},
    "megatron-bert": BERT,
    "mistral": {**DECODER, "sliding_window": 8},
    "mobilebert": {
        **BERT,
        "initializer_range": 0.05,  # without norms, smaller ones leave gradients that are lost in rounding
        "embedding_size": 8,
        "intra_bottleneck_size": 8,
        "true_hidden_size": 8,
        "classifier_activation": False,
    },
    "modernbert": {**BERT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "mpnet": BERT,
    "mt5": T5,
    "nomic_bert": ROTARY,
    "phi3": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "rembert": {**BERT, "input_embedding_size": 8},
    "roberta": BERT,
    "roberta-prelayernorm": BERT,
    "roformer": {**BERT, "embedding_size": 8},
    "smollm3": DECODER,
    "squeezebert": {**BERT, "embedding_size": 16, **dict.fromkeys(SQUEEZED, 2), "post_attention_groups": 1},
    "t5": T5,
    "umt5": T5,
    "xlm-roberta": BERT,
    "xlm-roberta-xl": BERT,
}
TOWER: dict[str, Any] = {**BERT, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
# Towers of dual encoders that are tested as a pair.
TOWER_CONFIGS: dict[str, dict[str, Any]] = {
    "clip_text_model": TOWER,
    "siglip_text_model": {**TOWER, "projection_size": 16},
    "siglip2_text_model": {**TOWER, "projection_size": 16},
    "siglip2_vision_model": {**SHORT, "intermediate_size": 32, "patch_size": 8, "num_patches": 16},
}
CONFIGS = {**TEXT_CONFIGS, **IMAGE_CONFIGS, **TOWER_CONFIGS}
IMAGES, TEXTS = tuple(IMAGE_CONFIGS), tuple(TEXT_CONFIGS)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "very", "##ly", "plot", "##s", "is", "the"]


def some(kinds: Iterable[str], *chosen: str) -> list[Any]:
    """Return parameters of a test for these kinds; those that are not chosen are for the long sweep."""
    return [pytest.param(kind, marks=[] if kind in chosen else pytest.mark.sweep) for kind in kinds]


def words(path: Path) -> None:
    """Write the files of a tokenizer of a few words."""
    (path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))


# Families whose tokenizers transformers opens by tokenizer.json only.
ONE_FILE = {"mistral", "mixtral", "modernbert", "phi3", "umt5", "xlm-roberta-xl"}


def one_file(path: Path) -> None:
    """Write the tokenizer of ``words`` as tokenizer.json, beside its other files."""
    with tempfile.TemporaryDirectory() as folder:
        words(Path(folder))
        BertTokenizerFast.from_pretrained(folder).backend_tokenizer.save(str(path / "tokenizer.json"))


def batch(size: int = 2, tokens: int = 12, padding: int = 1) -> dict[str, torch.Tensor]:
    """Return a batch of token ids, the last sample padded."""
    mask = torch.ones(size, tokens, dtype=torch.int64)
    mask[-1, tokens // 2 :] = 0
    ids = torch.randint(5, 30, (size, tokens), generator=torch.Generator().manual_seed(0))
    return {"input_ids": torch.where(mask.bool(), ids, padding), "attention_mask": mask}


def as_padded(kind: str, given: dict[str, torch.Tensor], padding: int = 0) -> dict[str, torch.Tensor]:
    """Return what the home library's classifier must be given for equal outputs, where that is not the batch itself."""
    ids, mask = given["input_ids"], given["attention_mask"]
    longer = {"convbert": 40, "fnet": 40, "mobilebert": 13}
    if kind in longer:
        more = (0, longer[kind] - ids.shape[1])
        ids = torch.nn.functional.pad(torch.where(mask.bool(), ids, padding), more, value=padding)
        return {"input_ids": ids} | ({} if kind == "fnet" else {"attention_mask": torch.nn.functional.pad(mask, more)})
    return given


def opened(auto: Any, path: Path) -> Any:
    """Open a saved model in transformers, which must find every tensor."""
    model, told = auto.from_pretrained(path, output_loading_info=True)
    assert not {key: value for key, value in told.items() if value}
    return model.eval()
