"""Write zoo_hf/catalogue.json: what is known of well-known repositories, with parameters counted from their configurations."""

from __future__ import annotations

import json
from typing import Any

from zoo_hf.build import parameters
from zoo_hf.catalogue import CATALOGUE, entry

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
MINI = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
LONG = {"max_position_embeddings": 514, "layer_norm_eps": 1e-5}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
DINO_IMAGES = {
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    **IMAGENET,
}
VIT_IMAGES = {"size": {"height": 224, "width": 224}, "resample": 2, **HALF}
CUT = {"do_center_crop": True, "crop_size": 224, "resample": 3}
CLIP_IMAGES = {
    "size": 224,
    **CUT,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
DEIT_IMAGES = {"size": 256, **CUT, **IMAGENET}
SIGLIP_IMAGES = {"size": {"height": 224, "width": 224}, "resample": 3, **HALF}
SWIN_IMAGES = {"size": 224, "resample": 3, **IMAGENET}
CONVNEXT_IMAGES = {"size": 224, "crop_pct": 0.875, "resample": 3, **IMAGENET}


def bert(size: dict[str, Any], vocab: int, **more: Any) -> dict[str, Any]:
    """Return a configuration of BERT."""
    return {"model_type": "bert", "vocab_size": vocab, **size, "max_position_embeddings": 512, "pad_token_id": 0, **more}


def roberta(size: dict[str, Any], vocab: int = 50265, kind: str = "roberta", **more: Any) -> dict[str, Any]:
    """Return a configuration of RoBERTa or one of its descendants."""
    return {"model_type": kind, "vocab_size": vocab, **size, "type_vocab_size": 1, **LONG, **IDS, **more}


def distilbert(vocab: int) -> dict[str, Any]:
    """Return a configuration of DistilBERT."""
    size = {"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}
    return {"model_type": "distilbert", "vocab_size": vocab, **size, "max_position_embeddings": 512, "pad_token_id": 0}


def albert(hidden: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    """Return a configuration of ALBERT, version 2."""
    size = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * hidden}
    fixed = {"vocab_size": 30000, "embedding_size": 128, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    dropout = {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}
    return {"model_type": "albert", **size, **fixed, "max_position_embeddings": 512, "hidden_act": "gelu_new", **dropout, **more}


def deberta(size: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of DeBERTa, version 3."""
    positions = {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    more = {"pos_att_type": ["p2c", "c2p"], "max_relative_positions": -1, "position_biased_input": False, "type_vocab_size": 0}
    fixed = {"vocab_size": 128100, "max_position_embeddings": 512, "layer_norm_eps": 1e-7, "pad_token_id": 0}
    return {"model_type": "deberta-v2", **size, **fixed, **positions, **more}


def dinov2(hidden: int, layers: int, heads: int, kind: str = "dinov2", **more: Any) -> dict[str, Any]:
    """Return a configuration of DINOv2, trained at 518 pixels."""
    size = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "mlp_ratio": 4}
    return {"model_type": kind, **size, "image_size": 518, "patch_size": 14, "layer_norm_eps": 1e-6, "qkv_bias": True, **more}


def vit(size: dict[str, Any], patch: int = 16) -> dict[str, Any]:
    """Return a configuration of ViT."""
    return {"model_type": "vit", **size, "image_size": 224, "patch_size": patch, "layer_norm_eps": 1e-12, "qkv_bias": True}


def clip(size: dict[str, Any], patch: int) -> dict[str, Any]:
    """Return a configuration of the images' part of CLIP."""
    return {"model_type": "clip_vision_model", **size, "image_size": 224, "patch_size": patch, "hidden_act": "quick_gelu"}


def clip_pair(width: int, heads: int) -> dict[str, Any]:
    """Return what of the configuration of a whole CLIP its text tower is made of."""
    size = {"hidden_size": width, "num_hidden_layers": 12, "num_attention_heads": heads, "intermediate_size": 4 * width}
    ids = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1}
    text = {**size, "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu", **ids}
    return {"model_type": "clip", "projection_dim": width, "text_config": text}


SIGLIP_PAIR = {"model_type": "siglip", "text_config": {**BASE, "vocab_size": 32000, "max_position_embeddings": 64, "pad_token_id": 1}}


def deit(hidden: int, heads: int) -> dict[str, Any]:
    """Return a configuration of DeiT with its second token."""
    size = {"hidden_size": hidden, "num_hidden_layers": 12, "num_attention_heads": heads, "intermediate_size": 4 * hidden}
    return {"model_type": "deit", **size, "image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-12, "qkv_bias": True}


def swin(width: int, third: int, heads: list[int]) -> dict[str, Any]:
    """Return a configuration of Swin."""
    size = {"embed_dim": width, "depths": [2, 2, third, 2], "num_heads": heads, "window_size": 7}
    return {"model_type": "swin", **size, "image_size": 224, "patch_size": 4, "mlp_ratio": 4.0, "qkv_bias": True}


def convnext(width: int, third: int, kind: str = "convnext") -> dict[str, Any]:
    """Return a configuration of ConvNeXt, version 1 or 2."""
    size = {"hidden_sizes": [width, 2 * width, 4 * width, 8 * width], "depths": [3, 3, third, 3]}
    return {"model_type": kind, **size, "image_size": 224, "patch_size": 4, "num_stages": 4}


def modernbert(**size: Any) -> dict[str, Any]:
    """Return a configuration of ModernBERT."""
    ids = {"pad_token_id": 50283, "bos_token_id": 50281, "eos_token_id": 50282, "cls_token_id": 50281, "sep_token_id": 50282}
    rotation = {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "local_attention": 128}
    return {"model_type": "modernbert", "vocab_size": 50368, **size, "max_position_embeddings": 8192, **ids, **rotation}


CLIP = {"processor": CLIP_IMAGES, "description": "Images and texts; by itself the images' part."}

# Licences are those that the repositories state; one that is not known for certain is left out.
REPOSITORIES: dict[str, dict[str, Any]] = {
    "FacebookAI/roberta-base": {"config": roberta(BASE), "license": "mit"},
    "FacebookAI/roberta-large": {"config": roberta(LARGE), "license": "mit"},
    "FacebookAI/xlm-roberta-base": {"config": roberta(BASE, 250002, "xlm-roberta"), "license": "mit", "description": "100 languages."},
    "FacebookAI/xlm-roberta-large": {"config": roberta(LARGE, 250002, "xlm-roberta"), "license": "mit", "description": "100 languages."},
    "albert/albert-base-v2": {"config": albert(768, 12, 12), "license": "apache-2.0"},
    "albert/albert-large-v2": {"config": albert(1024, 24, 16), "license": "apache-2.0"},
    "almanach/camembert-base": {
        "config": roberta(BASE, 32005, "camembert", bos_token_id=5, eos_token_id=6),
        "license": "mit",
        "description": "French.",
    },
    "answerdotai/ModernBERT-base": {
        "config": modernbert(hidden_size=768, num_hidden_layers=22, num_attention_heads=12, intermediate_size=1152),
        "license": "apache-2.0",
    },
    "answerdotai/ModernBERT-large": {
        "config": modernbert(hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, intermediate_size=2624),
        "license": "apache-2.0",
    },
    "BAAI/bge-base-en-v1.5": {
        "config": bert(BASE, 30522),
        "license": "mit",
        "pool": "token",
        "normalize": True,
        "description": "Sentence embeddings.",
    },
    "BAAI/bge-small-en-v1.5": {
        "config": bert({**MINI, "num_hidden_layers": 12}, 30522),
        "license": "mit",
        "pool": "token",
        "normalize": True,
        "description": "Sentence embeddings.",
    },
    "distilbert/distilbert-base-cased": {"config": distilbert(28996), "license": "apache-2.0"},
    "distilbert/distilbert-base-multilingual-cased": {"config": distilbert(119547), "license": "apache-2.0"},
    "distilbert/distilbert-base-uncased": {"config": distilbert(30522), "license": "apache-2.0"},
    "distilbert/distilroberta-base": {"config": roberta({**BASE, "num_hidden_layers": 6}), "license": "apache-2.0"},
    "dmis-lab/biobert-v1.1": {"config": bert(BASE, 28996), "description": "Trained further on PubMed."},
    "emilyalsentzer/Bio_ClinicalBERT": {
        "config": bert(BASE, 28996),
        "license": "mit",
        "description": "Trained further on MIMIC-III.",
    },
    "facebook/convnext-base-224": {"config": convnext(128, 27), "license": "apache-2.0", "processor": CONVNEXT_IMAGES},
    "facebook/convnext-tiny-224": {"config": convnext(96, 9), "license": "apache-2.0", "processor": CONVNEXT_IMAGES},
    "facebook/convnextv2-tiny-1k-224": {
        "config": convnext(96, 9, "convnextv2"),
        "license": "apache-2.0",
        "processor": CONVNEXT_IMAGES,
    },
    "facebook/deit-base-distilled-patch16-224": {"config": deit(768, 12), "license": "apache-2.0", "processor": DEIT_IMAGES},
    "facebook/deit-small-distilled-patch16-224": {"config": deit(384, 6), "license": "apache-2.0", "processor": DEIT_IMAGES},
    "facebook/deit-tiny-distilled-patch16-224": {"config": deit(192, 3), "license": "apache-2.0", "processor": DEIT_IMAGES},
    "facebook/dinov2-base": {"config": dinov2(768, 12, 12), "license": "apache-2.0", "processor": DINO_IMAGES},
    "facebook/dinov2-large": {"config": dinov2(1024, 24, 16), "license": "apache-2.0", "processor": DINO_IMAGES},
    "facebook/dinov2-small": {"config": dinov2(384, 12, 6), "license": "apache-2.0", "processor": DINO_IMAGES},
    "facebook/dinov2-with-registers-base": {
        "config": dinov2(768, 12, 12, "dinov2_with_registers", num_register_tokens=4),
        "license": "apache-2.0",
        "processor": DINO_IMAGES,
    },
    "facebook/dinov2-with-registers-small": {
        "config": dinov2(384, 12, 6, "dinov2_with_registers", num_register_tokens=4),
        "license": "apache-2.0",
        "processor": DINO_IMAGES,
    },
    "google-bert/bert-base-cased": {"config": bert(BASE, 28996), "license": "apache-2.0"},
    "google-bert/bert-base-multilingual-cased": {"config": bert(BASE, 119547), "license": "apache-2.0", "description": "104 languages."},
    "google-bert/bert-base-uncased": {"config": bert(BASE, 30522), "license": "apache-2.0"},
    "google-bert/bert-large-cased": {"config": bert(LARGE, 28996), "license": "apache-2.0"},
    "google-bert/bert-large-uncased": {"config": bert(LARGE, 30522), "license": "apache-2.0"},
    "google/siglip-base-patch16-224": {
        "config": {"model_type": "siglip_vision_model", **BASE, "image_size": 224, "patch_size": 16},
        "whole": SIGLIP_PAIR,
        "license": "apache-2.0",
        "processor": SIGLIP_IMAGES,
        "description": "Images and texts; by itself the images' part.",
    },
    "google/vit-base-patch16-224": {"config": vit(BASE), "license": "apache-2.0", "processor": VIT_IMAGES},
    "google/vit-base-patch16-224-in21k": {"config": vit(BASE), "license": "apache-2.0", "processor": VIT_IMAGES},
    "google/vit-large-patch16-224": {"config": vit(LARGE), "license": "apache-2.0", "processor": VIT_IMAGES},
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext": {
        "config": bert(BASE, 30522),
        "license": "mit",
        "description": "Trained from scratch on PubMed abstracts and full texts.",
    },
    "microsoft/beit-base-patch16-224": {
        "config": {
            "model_type": "beit",
            **BASE,
            "image_size": 224,
            "patch_size": 16,
            "layer_norm_eps": 1e-12,
            "layer_scale_init_value": 0.1,
            "use_relative_position_bias": True,
            "use_mean_pooling": True,
        },
        "license": "apache-2.0",
        "processor": VIT_IMAGES,
    },
    "microsoft/deberta-v3-base": {"config": deberta(BASE), "license": "mit"},
    "microsoft/deberta-v3-large": {"config": deberta(LARGE), "license": "mit"},
    "microsoft/deberta-v3-small": {"config": deberta({**BASE, "num_hidden_layers": 6}), "license": "mit"},
    "microsoft/rad-dino": {
        "config": dinov2(768, 12, 12),
        "processor": {
            "size": {"shortest_edge": 518},
            "do_center_crop": True,
            "crop_size": {"height": 518, "width": 518},
            "resample": 3,
            "image_mean": [0.5307] * 3,
            "image_std": [0.2583] * 3,
        },
        "license": "mit",
        "description": "DINOv2 on chest radiographs.",
    },
    "microsoft/swin-base-patch4-window7-224": {
        "config": swin(128, 18, [4, 8, 16, 32]),
        "license": "apache-2.0",
        "processor": SWIN_IMAGES,
    },
    "microsoft/swin-tiny-patch4-window7-224": {
        "config": swin(96, 6, [3, 6, 12, 24]),
        "license": "apache-2.0",
        "processor": SWIN_IMAGES,
    },
    "openai/clip-vit-base-patch16": {"config": clip(BASE, 16), "whole": clip_pair(512, 8), **CLIP},
    "openai/clip-vit-base-patch32": {"config": clip(BASE, 32), "whole": clip_pair(512, 8), **CLIP},
    "openai/clip-vit-large-patch14": {"config": clip(LARGE, 14), "whole": clip_pair(768, 12), **CLIP},
    "sentence-transformers/all-MiniLM-L12-v2": {
        "config": bert({**MINI, "num_hidden_layers": 12}, 30522),
        "license": "apache-2.0",
        "pool": "avg",
        "normalize": True,
        "max_length": 128,
        "description": "Sentence embeddings.",
    },
    "sentence-transformers/all-MiniLM-L6-v2": {
        "config": bert({**MINI, "num_hidden_layers": 6}, 30522),
        "license": "apache-2.0",
        "pool": "avg",
        "normalize": True,
        "max_length": 256,
        "description": "Sentence embeddings.",
    },
    "sentence-transformers/all-mpnet-base-v2": {
        "config": {"model_type": "mpnet", "vocab_size": 30527, **BASE, **LONG, **IDS, "relative_attention_num_buckets": 32},
        "license": "apache-2.0",
        "pool": "avg",
        "normalize": True,
        "max_length": 384,
        "description": "Sentence embeddings.",
    },
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": {
        "config": bert({**MINI, "num_hidden_layers": 12}, 250037),
        "license": "apache-2.0",
        "pool": "avg",
        "max_length": 128,
        "description": "Sentence embeddings, 50 languages.",
    },
}


def catalogue() -> dict[str, dict[str, Any]]:
    """Return the table with the parameters of each backbone as it is built by default."""
    told = {}
    for repo, facts in sorted(REPOSITORIES.items(), key=lambda item: item[0].lower()):
        pooler = bool(entry(repo, facts).options.get("pooler"))
        told[repo] = {**facts, "parameters": parameters(facts["config"], pooler=pooler)}
    return told


def main() -> None:
    """Count and write."""
    CATALOGUE.write_text(json.dumps(catalogue(), indent=1) + "\n", encoding="utf-8")
    print(f"{len(REPOSITORIES)} repositories")


if __name__ == "__main__":
    main()
