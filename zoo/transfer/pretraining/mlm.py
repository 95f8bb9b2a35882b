"""Masked language modelling: hidden tokens are predicted from the others (Devlin et al. 2019; Gururangan et al. 2020)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.data.dataset import Batch
from zoo.data.texts.tokenizers import open_tokenizer
from zoo.declare import Text
from zoo.engine.cache.forward import Forward
from zoo.engine.options.recipe import Recipe
from zoo.errors import OptionError, checked_fields, fault_list
from zoo.transfer.method import Method
from zoo.transfer.pretraining.objective import SelfSupervised
from zoo.transfer.pretraining.word_head import word_head
from zoo.transfer.recipes import OWN_RECIPES
from zoo.util.numbers import is_finite

if TYPE_CHECKING:
    from zoo.engine.objective.supervised import Supervised

log = logging.getLogger("zoo")

HIDDEN, RANDOM = 0.8, 0.1  # of the chosen tokens: shown as the mask token, as a random token; the rest as they are
UNCHOSEN = -100  # target of a token that is not predicted, as in transformers


@dataclass(frozen=True)
class Masking:
    """The rule of BERT, as in transformers' ``DataCollatorForLanguageModeling``, but with at least one chosen token in each text.

    Attributes:
        token: The mask token.
        special: Tokens that are never chosen.
        vocabulary: Number of tokens.
        share: Share of the tokens that are chosen, in (0, 1).
    """

    token: int
    special: frozenset[int]
    vocabulary: int
    share: float

    def __call__(self, ids: Tensor, real: Tensor, keys: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Return masked ids and targets, ``(batch, tokens)``; both are a function of the keys, not of the padding.

        Args:
            ids: Token ids, ``(batch, tokens)``.
            real: Whether a token is none of the padding, ``(batch, tokens)``.
            keys: Of each text what its random numbers are drawn from.
        """
        rows, shown = ids.cpu().numpy(), ids.cpu().numpy().copy()
        targets = np.full_like(rows, UNCHOSEN)
        usable = real.cpu().numpy().astype(bool) & ~np.isin(rows, list(self.special))
        for row, key in enumerate(keys):
            places, random = np.flatnonzero(usable[row]), np.random.default_rng(key)
            draws = random.random(len(places))
            chosen = places[draws < max(self.share, draws.min(initial=1.0) + 1e-12)]
            fate, others = random.random(len(chosen)), random.integers(0, self.vocabulary, len(chosen))
            targets[row, chosen] = rows[row, chosen]
            shown[row, chosen] = np.where(fate < HIDDEN, self.token, np.where(fate < HIDDEN + RANDOM, others, rows[row, chosen]))
        return torch.from_numpy(shown).to(ids.device), torch.from_numpy(targets).to(ids.device)


class MaskedWords(SelfSupervised):
    """Chosen tokens of each text, predicted from the text in which most of them are hidden; chosen anew in each step.

    Args:
        base: The objective of the labels, whose training data are used.
        masking: How tokens are chosen and hidden.
        embeddings: The embeddings of tokens in the backbone.
    """

    name, pooled, cache_obstacle = "mlm", False, "other tokens are hidden in each step"

    def __init__(self, base: Supervised, masking: Masking, embeddings: nn.Embedding) -> None:
        super().__init__(base)
        self._masking, self._seed, self._shared = masking, base.config.seed, [embeddings]  # a list: it is part of the model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            self.words, told = word_head(base.model, embeddings)
        log.info("%s", told)
        self.module = nn.ModuleDict({"model": base.model, "words": self.words})

    def weight(self, batch: Mapping[str, Batch]) -> Tensor | float:
        """Return the number of chosen tokens."""
        return float((self._masked(batch["train"])[1] != UNCHOSEN).sum().clamp(min=1))

    def loss(self, forward: Forward, batch: Mapping[str, Batch]) -> Tensor:
        """Return the sum of the cross-entropies of the chosen tokens."""
        one = batch["train"]
        shown, targets = self._masked(one)
        with forward.autocast():
            features = self.model.backbone({**one.x, "input_ids": shown})
            chosen = targets != UNCHOSEN
            logits = self.words(features[chosen], self._shared[0])
        return functional.cross_entropy(logits.float(), targets[chosen], reduction="sum")

    def _masked(self, one: Batch) -> tuple[Tensor, Tensor]:
        keys = [(self._seed, self._steps, index) for index in one.indices]
        return self._masking(one.x["input_ids"], one.x["attention_mask"], keys)


@checked_fields
@dataclass(frozen=True)
class MaskedLanguage(Method):
    """Masked language modelling (Devlin et al. 2019), continued on texts of the task (Gururangan et al. 2020).

    A head predicts the tokens: one layer, then the products with the embeddings. It starts from the head that was published with the
    weights, as that of BERT or RoBERTa, else from random values, and is dropped afterwards.

    Attributes:
        mask_ratio: Share of the tokens of a text that are to be predicted, in (0, 1); of these 80 % are hidden, 10 % are others, 10 % stay.

    Raises:
        OptionError: If it is out of range.
    """

    mask_ratio: float = 0.15

    name: ClassVar[str] = "mlm"
    recipe: ClassVar[Recipe] = OWN_RECIPES["mlm"]
    reads: ClassVar[tuple[str, ...]] = ("text",)

    def __post_init__(self) -> None:
        if not is_finite(self.mask_ratio) or not 0 < self.mask_ratio < 1:
            raise OptionError(f"mask_ratio is {self.mask_ratio!r}; it must be a number above 0 and below 1")

    def __call__(self, base: Supervised) -> MaskedWords:
        """Return the objective of a run.

        Raises:
            OptionError: If the model gives no features of tokens, has no embeddings, or its tokenizer has no mask token.
        """
        model = base.model
        assert isinstance(model.inputs, Text), "others have been refused"
        tokenizer, embeddings = open_tokenizer(model.inputs), embeddings_of(model.backbone)
        token, special = getattr(tokenizer, "mask_token", None), getattr(tokenizer, "special_tokens", ())
        faults = []
        if token is None:
            faults.append("its tokenizer has no mask_token, as those of language models that write texts; take an encoder such as BERT")
        if model.spec.features.layout != "BND":
            faults.append(f"its features have the layout {model.spec.features.layout}, not one vector per token; take another pool")
        if embeddings is None:
            faults.append("it has no torch.nn.Embedding, whose rows are the tokens")
        if faults or embeddings is None or token is None:
            raise OptionError(fault_list(f"{model.spec.name} cannot learn to predict hidden words:", faults))
        masking = Masking(int(token), frozenset(map(int, special)), embeddings.num_embeddings, self.mask_ratio)
        return MaskedWords(base, masking, embeddings)


def embeddings_of(backbone: Any) -> nn.Embedding | None:
    """Return the embeddings of tokens: those that the backbone names as transformers does, else the ones with most rows."""
    named = getattr(backbone, "get_input_embeddings", None)
    if named is not None and isinstance(found := named(), nn.Embedding):
        return found
    every = [part for part in backbone.modules() if isinstance(part, nn.Embedding)]
    return max(every, key=lambda part: part.num_embeddings, default=None)
