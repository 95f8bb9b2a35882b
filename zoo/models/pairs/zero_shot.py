"""Zero-shot heads: classifiers of images made of embeddings of texts about the classes (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.data.texts.tokenizers import open_tokenizer
from zoo.declare import Features, Text
from zoo.errors import CoverageError, OptionError
from zoo.models.backbone import Backbone
from zoo.models.construct.seed import seed_modules
from zoo.models.heads import PooledHead
from zoo.models.pairs.prompts import find_templates, prompts_of
from zoo.models.pairs.towers import image_spec, pair_of, text_spec
from zoo.models.pooling import Pool

ZERO_SHOT = "zero-shot"
_CHUNK = 256  # texts that are embedded at a time


class ZeroShotHead(PooledHead):
    """A linear layer on features of length one; its rows are embeddings of classes times the published scale.

    Args:
        features: Declared features of the backbone, of layout BD.
        num_classes: Number of logits.
        templates: Texts in which the name of a class stands, or the name of a set of them, see ``find_templates``.
        words: What stands there instead of the names of some classes.
        bias: Whether there is a bias, as of SigLIP.

    Raises:
        OptionError: For templates that are none.
    """

    def __init__(
        self,
        features: Features,
        num_classes: int,
        *,
        templates: str | Sequence[str] | None = None,
        words: Mapping[str, str] | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.templates, self.words = find_templates(templates), dict(words or {})
        self.pool = Pool(features)
        self.linear = nn.Linear(features.dim, num_classes, bias=bias)

    def logits(self, pooled: Tensor) -> Tensor:
        """Map pooled features ``(batch, dim)`` to ``(batch, num_classes)``."""
        scores: Tensor = self.linear(functional.normalize(pooled, dim=-1))
        return scores

    def prompts(self, labels: Sequence[str]) -> list[list[str]]:
        """Return the texts of each class, one per template."""
        return prompts_of(labels, self.templates, self.words)


def tokens_of(inputs: Text, texts: Sequence[str]) -> dict[str, Tensor]:
    """Return the inputs of texts, ``(texts, tokens)`` int64 each, padded to the longest."""
    tokenizer = open_tokenizer(inputs)
    encoded = tokenizer.encode(list(texts), inputs.max_length)
    longest = max(len(one["input_ids"]) for one in encoded)
    return {
        name: torch.tensor([one[name] + [value] * (longest - len(one[name])) for one in encoded], dtype=torch.int64)
        for name, value in tokenizer.padding.items()
    }


def class_embeddings(tower: nn.Module, inputs: Text, prompts: Sequence[Sequence[str]]) -> Tensor:
    """Return the embedding of each class, ``(classes, dim)``, of length one.

    The embeddings of its texts are normalised, averaged and normalised again (Radford et al. 2021, section 3.1.4).

    Args:
        tower: The text tower.
        inputs: Its declared input.
        prompts: The texts of each class, equally many.
    """
    flat = [text for texts in prompts for text in texts]
    device = next(tower.parameters()).device
    parts = []
    for start in range(0, len(flat), _CHUNK):
        batch = {name: values.to(device) for name, values in tokens_of(inputs, flat[start : start + _CHUNK]).items()}
        parts.append(functional.normalize(tower(batch).float(), dim=-1))
    rows = torch.cat(parts)
    return functional.normalize(rows.reshape(len(prompts), -1, rows.shape[-1]).mean(1), dim=-1)


def scale_and_bias(backbone: Backbone) -> tuple[float, float]:
    """Return the factor on cosines and what is added to them, as published with the weights.

    Raises:
        CoverageError: If the weights file does not have them.
    """
    pair = pair_of(backbone.spec, "the scale of logits")
    if not backbone.pretrained:
        return pair.scale, pair.bias
    state = backbone.read_weights()

    def value(name: str) -> float:
        found = state.get(name)
        if found is None:
            found = next((tensor for key, tensor in state.items() if key.endswith(f".{name}")), None)
        if found is None or found.numel() != 1:
            raise CoverageError(f"{backbone.spec.name}: the weights have no single value {name!r}; are they those of both towers?")
        return float(found)

    scale = float(torch.tensor(value(pair.scale_tensor), dtype=torch.float64).exp())
    return scale, value(pair.bias_tensor) if pair.bias_tensor else pair.bias


def image_tower(backbone: Backbone) -> Backbone:
    """Return the image tower whose features are embeddings.

    Raises:
        OptionError: If the backbone has no text tower.
    """
    return backbone.with_spec(image_spec(backbone.spec, "a zero-shot head"))


def text_tower(backbone: Backbone, what: str = "a zero-shot head") -> Backbone:
    """Return the text tower.

    Raises:
        OptionError: If there is none.
    """
    return backbone.with_spec(text_spec(backbone.spec, what))


def head_options(backbone: Backbone, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a zero-shot head for a dual encoder: templates written out, and whether there is a bias.

    Raises:
        OptionError: For templates that are none, or a pooling, which the tower has itself.
    """
    if "pool" in options:
        raise OptionError("pool: a zero-shot head takes the embeddings of the image tower, which pools by itself; leave it out")
    pair = pair_of(backbone.spec, "a zero-shot head")
    bias = {"bias": True} if pair.bias_tensor or pair.bias else {}
    return {**options, "templates": list(find_templates(options.get("templates"))), **bias}


@torch.no_grad()
def fill_head(head: ZeroShotHead, backbone: Backbone, labels: Sequence[str], *, seed: int = 0) -> None:
    """Give a head the embeddings of its classes, in place.

    Args:
        head: The head.
        backbone: The dual encoder.
        labels: Names of the classes in the order of the logits.
        seed: Seed of the text tower, where it is not pretrained.
    """
    with torch.random.fork_rng(devices=[]):
        seed_modules(seed)
        texts = text_tower(backbone)
        tower = texts.fresh().model.eval()
    assert isinstance(texts.spec.inputs, Text), "a pair has checked it"
    embeddings = class_embeddings(tower, texts.spec.inputs, head.prompts(labels))
    set_classes(head, embeddings, *scale_and_bias(backbone))


@torch.no_grad()
def set_classes(head: ZeroShotHead, embeddings: Tensor, scale: float, bias: float) -> None:
    """Give a head the embeddings of its classes ``(classes, dim)``, the factor on cosines and the addend, in place."""
    head.linear.weight.copy_(scale * embeddings)
    if head.linear.bias is not None:
        head.linear.bias.fill_(bias)
