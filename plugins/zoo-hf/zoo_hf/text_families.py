"""The supported families of texts, as data."""

from __future__ import annotations

from collections.abc import Mapping

from zoo_hf.family import HIDDEN, POOLED, Family, Groups, Home

BERT: Groups = {"embeddings": "embeddings", "layer": "encoder.layer.*", "pooler": "pooler?"}
ELECTRA: Groups = {"embeddings": ["embeddings", "embeddings_project?"], "layer": "encoder.layer.*"}
DISTILBERT: Groups = {"embeddings": "embeddings", "layer": "transformer.layer.*"}
# All layers of ALBERT are one set of weights, so they are one group.
ALBERT: Groups = {
    "embeddings": ["embeddings", "encoder.embedding_hidden_mapping_in"],
    "shared": "encoder.albert_layer_groups",
    "pooler": "pooler?",
}
# The convolution runs between the first layer and the second, so it rides with the first.
DEBERTA: Groups = {
    "embeddings": ["embeddings", "encoder.rel_embeddings?", "encoder.LayerNorm?"],
    "layer": ["encoder.conv?", "encoder.layer.*"],
}
MPNET: Groups = {"embeddings": ["embeddings", "encoder.relative_attention_bias"], "layer": "encoder.layer.*", "pooler": "pooler?"}
MODERNBERT: Groups = {"embeddings": ["embeddings", "rotary_emb?"], "layer": ["layers.*", "final_norm"]}


def _roberta() -> Family:
    return Family(
        layers=BERT,
        prefix="roberta",
        pooler="optional",
        offset=True,
        sequence=Home(head="mlp", keys=HIDDEN, pool="token", activation="tanh"),
    )


TEXT: Mapping[str, Family] = {
    "albert": Family(layers=ALBERT, prefix="albert", pooler="default", default_width=4096, sequence=POOLED),
    "bert": Family(layers=BERT, prefix="bert", pooler="default", sequence=POOLED),
    "camembert": _roberta(),
    "deberta-v2": Family(
        layers=DEBERTA,
        prefix="deberta",
        default_width=1536,
        sequence=Home(
            head="mlp",
            keys={"head.hidden": "pooler.dense", "head.linear": "classifier"},
            pool="token",
            activation="POOLER_HIDDEN_ACT",
        ),
    ),
    "distilbert": Family(
        layers=DISTILBERT,
        prefix="distilbert",
        width="dim",
        sequence=Home(head="mlp", keys={"head.hidden": "pre_classifier", "head.linear": "classifier"}, pool="token", activation="relu"),
    ),
    "electra": Family(
        layers=ELECTRA, prefix="electra", default_width=256, sequence=Home(head="mlp", keys=HIDDEN, pool="token", activation="gelu")
    ),
    # Its classifiers have a norm between the hidden layer and the logits.
    "modernbert": Family(layers=MODERNBERT, prefix="model", positions=8192, tokens=None),
    "mpnet": Family(
        layers=MPNET,
        prefix="mpnet",
        pooler="optional",
        offset=True,
        sequence=Home(head="mlp", keys=HIDDEN, pool="token", activation="tanh"),
    ),
    "roberta": _roberta(),
    "xlm-roberta": _roberta(),
}
