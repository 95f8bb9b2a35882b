"""The supported families of transformers, as data: their layer groups, their heads, their names in published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Groups = Mapping[str, "str | Sequence[str]"]

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
VIT: Groups = {"embeddings": "embeddings", "layer": ["layers.*", "layernorm"]}
DINOV2: Groups = {"embeddings": "embeddings", "layer": ["encoder.layer.*", "layernorm"]}

# Names in published files -> names in the module, as regular expressions; tried in order where a name is not the module's.
NORM = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))
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


@dataclass(frozen=True, kw_only=True)
class Home:
    """A head of the home library that a head of ours can be.

    Attributes:
        head: ``linear``, ``mlp`` or ``tokens``.
        keys: Our prefixes of the head's tensors -> theirs.
        pool: Pooling that goes with it; ``pooler`` is the backbone's own.
        activation: Of the hidden layer of ``mlp``; a word in capitals names the field of the configuration that tells it.
    """

    head: str
    keys: Mapping[str, str]
    pool: str = ""
    activation: str = ""


LINEAR = {"head.linear": "classifier"}
HIDDEN = {"head.hidden": "classifier.dense", "head.linear": "classifier.out_proj"}
TOKENS = Home(head="tokens", keys=LINEAR)
POOLED = Home(head="linear", keys=LINEAR, pool="pooler")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One ``model_type`` of transformers.

    Attributes:
        layers: Layer groups.
        prefix: Where the backbone stands inside models with a head.
        reads: ``text`` or ``image``.
        pooler: ``default`` where classifiers of this family use the backbone's own pooling, ``optional`` where it exists and
            few published files fill it, empty where there is none.
        pool: Pooling of the tokens where the own one is not used.
        width: Field of the configuration that tells the width.
        default_width: Width where the configuration does not tell it.
        positions: Number of positions where the configuration does not tell it.
        offset: Whether positions are counted from after the padding index, so that fewer tokens fit than there are positions.
        names: Rules from names in published files to names in the module.
        sequence: The home library's classifier of whole inputs, where it can be a head of ours.
        tokens: Its classifier of tokens, likewise.
        mean: Mean and standard deviation per channel of the images that the family expects by default.
        std: See ``mean``.
        fixed: Options of the configuration that a backbone always has.
    """

    layers: Groups | str
    prefix: str
    reads: str = "text"
    pooler: str = ""
    pool: str = "token"
    width: str = "hidden_size"
    default_width: int = 768
    positions: int = 512
    offset: bool = False
    names: tuple[tuple[str, str], ...] = NORM
    sequence: Home | None = None
    tokens: Home | None = TOKENS
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    fixed: Mapping[str, object] = field(default_factory=dict)


def _roberta() -> Family:
    return Family(
        layers=BERT,
        prefix="roberta",
        pooler="optional",
        offset=True,
        sequence=Home(head="mlp", keys=HIDDEN, pool="token", activation="tanh"),
    )


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


FAMILIES: Mapping[str, Family] = {
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
    "dinov2": _dinov2("dinov2"),
    "dinov2_with_registers": _dinov2("dinov2_with_registers"),
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
    "vit": Family(
        layers=VIT,
        prefix="vit",
        reads="image",
        names=VIT_NAMES,
        sequence=Home(head="linear", keys=LINEAR, pool="token"),
        tokens=None,
    ),
    "xlm-roberta": _roberta(),
}
