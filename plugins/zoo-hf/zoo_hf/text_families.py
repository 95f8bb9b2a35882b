"""The supported families of texts, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo_hf.family import HIDDEN, POOLED, Family, Groups, Home

BERT: Groups = {"embeddings": "embeddings", "layer": "encoder.layer.*", "pooler": "pooler?"}
# Some end in a norm behind the last layer.
PRENORM: Groups = {**BERT, "layer": ["encoder.layer.*", "LayerNorm?", "encoder.LayerNorm?", "encoder.ln?"]}
ELECTRA: Groups = {"embeddings": ["embeddings", "embeddings_project?"], "layer": "encoder.layer.*"}
DISTILBERT: Groups = {"embeddings": "embeddings", "layer": "transformer.layer.*"}
# All layers of ALBERT are one set of weights, so they are one group.
ALBERT: Groups = {
    "embeddings": ["embeddings", "encoder.embedding_hidden_mapping_in"],
    "shared": "encoder.albert_layer_groups",
    "pooler": "pooler?",
}
# The convolution runs between the first layer and the second, so it belongs to the group of the first.
DEBERTA: Groups = {
    "embeddings": ["embeddings", "encoder.rel_embeddings?", "encoder.LayerNorm?"],
    "layer": ["encoder.conv?", "encoder.layer.*"],
}
# Without entities in its input the second table is not used.
LUKE: Groups = {**BERT, "embeddings": ["embeddings", "entity_embeddings"]}
MPNET: Groups = {"embeddings": ["embeddings", "encoder.relative_attention_bias"], "layer": "encoder.layer.*", "pooler": "pooler?"}
REMBERT: Groups = {**BERT, "embeddings": ["embeddings", "encoder.embedding_hidden_mapping_in"]}
ROFORMER: Groups = {"embeddings": ["embeddings", "embeddings_project?", "encoder.embed_positions"], "layer": "encoder.layer.*"}
# Poolers that may be without parameters, or that classifiers hold without using them, belong to the group of the last layer.
KEPT: Groups = {"embeddings": "embeddings", "layer": ["encoder.layer.*", "pooler?"]}
SQUEEZEBERT: Groups = {"embeddings": "embeddings", "layer": ["encoder.layers.*", "pooler"]}
# The head for contacts reads attentions, and is part of the model without being called.
ESM: Groups = {
    "embeddings": ["embeddings", "rotary_embeddings?"],
    "layer": ["encoder.layer.*", "encoder.emb_layer_norm_after?", "contact_head"],
    "pooler": "pooler?",
}
ROTARY: Groups = {"embeddings": ["embeddings", "rotary_emb?"], "layer": "layers.*", "pooler": "pooler?"}
MODERNBERT: Groups = {"embeddings": ["embeddings", "rotary_emb?"], "layer": ["layers.*", "final_norm"]}
T5: Groups = {"embeddings": ["shared", "encoder.embed_tokens"], "layer": ["encoder.block.*", "encoder.final_layer_norm"]}
DECODER: Groups = {"embeddings": ["embed_tokens", "rotary_emb?"], "layer": ["layers.*", "norm"]}
TOWER: Groups = {"embeddings": "embeddings", "layer": ["encoder.layers.*", "final_layer_norm", "head?", "projection?"]}
GPT2: Groups = {"embeddings": ["wte", "wpe"], "layer": ["h.*", "ln_f"]}

TANH = Home(head="mlp", keys=HIDDEN, pool="token", activation="tanh")
ACTIVATED = Home(head="mlp", keys=HIDDEN, pool="token", activation="HIDDEN_ACT")
CONTEXT = Home(head="mlp", keys={"head.hidden": "pooler.dense", "head.linear": "classifier"}, pool="token", activation="POOLER_HIDDEN_ACT")
SCORE = Home(head="linear", keys={"head.linear": "score"}, pool="last", options={"bias": False})
SCORES = Home(head="tokens", keys={"head.linear": "score"})


def _roberta(layers: Groups = BERT, **facts: Any) -> Family:
    return Family(layers=layers, pooler="optional", offset=True, **{"sequence": TANH, **facts})


def _t5() -> Family:
    return Family(
        layers=T5,
        auto="AutoModelForTextEncoding",
        early=("encoder.dropout",),
        pool="avg",
        class_token=False,
        width="d_model",
        default_width=512,
        length="n_positions",
    )


def _decoder(width: int, positions: int, tokens: Home | None = SCORES) -> Family:
    return Family(layers=DECODER, pool="last", class_token=False, default_width=width, positions=positions, sequence=SCORE, tokens=tokens)


def _siglip(kind: str, composite: str) -> Family:
    # Pretrained on texts padded to all positions, whose padding was attended; its pooled output is the last token's.
    return Family(
        layers=TOWER,
        prefix="text_model",
        kind=kind,
        inputs="zoo_hf.text_inputs:filled",
        pooler="default",
        keeps_pooler=True,
        pool="last",
        class_token=False,
        positions=64,
        tokens=None,
        composite=composite,
    )


TEXT: Mapping[str, Family] = {
    "albert": Family(layers=ALBERT, pooler="default", default_width=4096, sequence=POOLED),
    "bert": Family(layers=BERT, pooler="default", sequence=POOLED),
    # Which attention it computes would depend on the longest text of a batch; full attention is what it computes up to 704 tokens.
    "big_bird": Family(
        layers=KEPT,
        keeps_pooler=True,
        positions=4096,
        sequence=ACTIVATED,
        preset={"attention_type": "original_full"},
    ),
    "camembert": _roberta(),
    "clip_text_model": Family(
        layers=TOWER,
        prefix="text_model",
        pooler="default",
        pool="last",
        class_token=False,
        default_width=512,
        positions=77,
        names=((r"^text_projection\.", "projection."),),
        tokens=None,
        composite="clip",
        projected="projection_dim",
    ),
    # Its convolutions read the padding.
    "convbert": Family(layers=ELECTRA, inputs="zoo_hf.text_inputs:padded", sequence=ACTIVATED),
    "data2vec-text": _roberta(),
    "deberta": Family(layers=DEBERTA, sequence=CONTEXT),
    "deberta-v2": Family(layers=DEBERTA, default_width=1536, sequence=CONTEXT),
    "distilbert": Family(
        layers=DISTILBERT,
        width="dim",
        sequence=Home(head="mlp", keys={"head.hidden": "pre_classifier", "head.linear": "classifier"}, pool="token", activation="relu"),
    ),
    "electra": Family(layers=ELECTRA, default_width=256, sequence=Home(head="mlp", keys=HIDDEN, pool="token", activation="gelu")),
    "ernie": Family(layers=BERT, pooler="default", sequence=POOLED),
    "esm": _roberta(
        ESM, positions=1026, defaults={"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32, "position_embedding_type": "rotary"}
    ),
    "eurobert": Family(
        layers=DECODER,
        positions=8192,
        sequence=Home(
            head="mlp",
            keys={"head.hidden": "dense", "head.linear": "classifier"},
            pool="token",
            activation="gelu",
            config={"classifier_pooling": "bos"},
        ),
    ),
    "fnet": Family(layers=KEPT, inputs="zoo_hf.text_inputs:padded", pooler="default", keeps_pooler=True, sequence=POOLED),
    "gemma3_text": _decoder(2304, 131_072, tokens=None),
    "gpt2": Family(
        layers=GPT2,
        pool="last",
        class_token=False,
        width="n_embd",
        length="n_positions",
        positions=1024,
        sequence=SCORE,
    ),
    "gte": Family(layers=ROTARY, pooler="optional", positions=8192, sequence=POOLED),
    "jina_embeddings_v3": _roberta(ROTARY, pool="avg", default_width=1024, positions=8194),
    "llama": _decoder(4096, 2048),
    # Its classifier of tokens has no global attention, unless it is called with one.
    "longformer": _roberta(inputs="zoo_hf.text_inputs:with_global_attention", tokens=None),
    "luke": Family(layers=LUKE, pooler="default", offset=True, sequence=POOLED),
    "megatron-bert": Family(layers=PRENORM, pooler="default", default_width=1024, sequence=POOLED),
    "mistral": _decoder(4096, 131_072),
    "mobilebert": Family(
        layers=KEPT, inputs="zoo_hf.text_inputs:followed_by_padding", pooler="default", default_width=512, sequence=POOLED
    ),
    "modernbert": Family(
        layers=MODERNBERT,
        positions=8192,
        sequence=Home(
            head="mlp",
            keys={"head.hidden": "head.dense", "head.norm": "head.norm", "head.linear": "classifier"},
            pool="token",
            activation="CLASSIFIER_ACTIVATION",
            options={"norm": True, "bias": False},
            config={"classifier_pooling": "cls"},
        ),
        tokens=None,
    ),
    "mpnet": _roberta(MPNET),
    "mt5": _t5(),
    "nomic_bert": Family(layers=ROTARY, pooler="optional", pool="avg", positions=2048, sequence=POOLED),
    "phi3": _decoder(3072, 4096),
    "qwen2": _decoder(4096, 32_768),
    "qwen3": _decoder(4096, 32_768),
    "rembert": Family(layers=REMBERT, pooler="default", default_width=1152, sequence=POOLED),
    "roberta": _roberta(),
    "roberta-prelayernorm": _roberta(PRENORM),
    "roformer": Family(layers=ROFORMER, positions=1536, sequence=ACTIVATED),
    "siglip2_text_model": _siglip("Siglip2TextModel", "siglip2"),
    "siglip_text_model": _siglip("SiglipTextModel", "siglip"),
    "smollm3": _decoder(2048, 32_768),
    "squeezebert": Family(layers=SQUEEZEBERT, pooler="default", sequence=POOLED),
    "t5": _t5(),
    "umt5": _t5(),
    "xlm-roberta": _roberta(),
    "xlm-roberta-xl": _roberta(PRENORM, default_width=2560, positions=514),
}
