"""Language-model heads: from features of tokens to logits of words, published or fresh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.weights.load import read
from zoo.weights.locate import locate

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel


class Names(NamedTuple):
    """Names of the tensors of a published head: of a linear layer, of a LayerNorm, and of biases of words."""

    linear: str
    norm: str
    biases: tuple[str, ...]


# As transformers saves them, with the family that each is of.
PUBLISHED = (
    Names(
        "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", ("cls.predictions.bias", "cls.predictions.decoder.bias")
    ),
    Names(
        "cls.predictions.transform.dense", "cls.predictions.transform.layer_norm", ("cls.predictions.bias", "cls.predictions.decoder.bias")
    ),
    Names("lm_head.dense", "lm_head.layer_norm", ("lm_head.bias", "lm_head.decoder.bias")),  # RoBERTa, MPNet, ESM
    Names("lm_head.dense", "lm_head.norm", ("lm_head.bias", "lm_head.decoder.bias")),  # GTE
    Names("predictions.dense", "predictions.LayerNorm", ("predictions.bias", "predictions.decoder.bias")),  # ALBERT
    Names("generator_predictions.dense", "generator_predictions.LayerNorm", ("generator_lm_head.bias",)),  # ELECTRA
    Names("vocab_transform", "vocab_layer_norm", ("vocab_projector.bias",)),  # DistilBERT
    Names("head.dense", "head.norm", ("decoder.bias",)),  # ModernBERT
)
OLD = {".weight": ".gamma", ".bias": ".beta"}  # names of a LayerNorm in files of the first BERTs
PLAIN_GELU = ("lm_head.dense", "generator_predictions.dense")  # heads that do not ask the configuration
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "gelu_pytorch_tanh": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


class WordHead(nn.Module):
    """From features of tokens to vectors as wide as the embeddings, whose products with these are the logits (Press & Wolf 2017).

    Args:
        dim: Width of the features.
        embeddings: The embeddings of the backbone; they are shared and not copied.
        activation: Name of the activation, one of ``ACTIVATIONS``.
        eps: Of the LayerNorm.
    """

    def __init__(self, dim: int, embeddings: nn.Embedding, *, activation: str = "gelu", eps: float = 1e-5) -> None:
        super().__init__()
        width = embeddings.embedding_dim
        self.transform = nn.Sequential(nn.Linear(dim, width), ACTIVATIONS[activation](), nn.LayerNorm(width, eps=eps))
        self.bias = nn.Parameter(torch.zeros(embeddings.num_embeddings))

    def forward(self, features: Tensor, embeddings: nn.Embedding) -> Tensor:
        """Return logits ``(tokens, vocabulary)``."""
        return functional.linear(self.transform(features), embeddings.weight, self.bias)


def word_head(model: TaskModel, embeddings: nn.Embedding) -> tuple[WordHead, str]:
    """Return the head that was published with the weights of a model, else one with random values, and a line that says which.

    A published head is taken where its words are tied to the embeddings, and the model has the published values and no later ones.

    Args:
        model: The model.
        embeddings: The embeddings of its tokens.
    """
    dim, name = model.spec.features.dim, model.spec.name
    if model.spec.weights is None or [origin.step for origin in model.origins] != ["weights"]:
        return WordHead(dim, embeddings), "the language-model head starts from random values, as the backbone's are no published ones"
    tensors = read(locate(model.spec.weights, name), name)
    found = _published(tensors, dim, embeddings, getattr(model.backbone, "config", None))
    if isinstance(found, str):
        return WordHead(dim, embeddings), f"the language-model head starts from random values: {found}"
    head, told = found
    return head, f"the language-model head starts from the published one, {told}"


def _published(tensors: Mapping[str, Tensor], dim: int, embeddings: nn.Embedding, config: Any) -> tuple[WordHead, str] | str:
    """Return a head with published values and the name of its layer, or why there is none."""
    names = next(
        (each for each in PUBLISHED if f"{each.linear}.weight" in tensors and _of_norm(tensors, each, ".weight") is not None), None
    )
    if names is None:
        return "the weights hold none"
    shape, rows = (embeddings.embedding_dim, dim), tuple(embeddings.weight.shape)
    if tuple(tensors[f"{names.linear}.weight"].shape) != shape:
        return f"the published {names.linear!r} is {tuple(tensors[f'{names.linear}.weight'].shape)}, and one tied to the embeddings {shape}"
    words = [value for name, value in tensors.items() if tuple(value.shape) == rows]
    if any(not torch.equal(words[0], other) for other in words[1:]):
        return "the published one is not tied to the embeddings"
    asked = getattr(config, "hidden_act", None) or getattr(config, "activation", None) or getattr(config, "classifier_activation", None)
    activation = "gelu" if names.linear in PLAIN_GELU else asked or "gelu"
    if activation not in ACTIVATIONS:
        return f"the activation {activation!r} of the published one is not known"
    eps = getattr(config, "layer_norm_eps", None) or getattr(config, "norm_eps", None) or 1e-12
    head = WordHead(dim, embeddings, activation=activation, eps=eps)
    bias = next((tensors[each] for each in names.biases if each in tensors), None)
    values = {
        "transform.0.weight": tensors[f"{names.linear}.weight"],
        "transform.0.bias": tensors.get(f"{names.linear}.bias"),
        "transform.2.weight": _of_norm(tensors, names, ".weight"),
        "transform.2.bias": _of_norm(tensors, names, ".bias"),
        "bias": bias,
    }
    own = head.state_dict()
    if odd := [name for name, value in values.items() if value is not None and value.shape != own[name].shape]:
        return f"the published one is of another size ({', '.join(odd)})"
    head.load_state_dict({name: torch.zeros_like(own[name]) if value is None else value.float() for name, value in values.items()})
    return head, names.linear


def _of_norm(tensors: Mapping[str, Tensor], names: Names, end: str) -> Tensor | None:
    return tensors.get(names.norm + end, tensors.get(names.norm + OLD[end]))
