"""Augmentation of texts by deleting and swapping words, drawn anew in each epoch (EDA, Wei & Zou 2019)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch

from zoo.data.table import Table
from zoo.data.texts.encode import TextWindow
from zoo.data.texts.token_ids import TextSamples
from zoo.data.texts.tokenizers import Encoding, open_tokenizer
from zoo.declare import Text
from zoo.errors import OptionError, checked_fields, fault_list
from zoo.util.numbers import is_finite


@checked_fields
@dataclass(frozen=True, kw_only=True)
class TextAugment:
    """Augmentation of texts. Words are what stands between blanks; a text of one word stays as it is.

    Attributes:
        delete: Probability that a word is deleted, in [0, 1); one word is always left.
        swap: Swaps of two words, as a share of the words, in [0, 1]; above 0 there is one at least.
    """

    delete: float = 0.0
    swap: float = 0.0

    def __post_init__(self) -> None:
        faults = []
        if not (is_finite(self.delete) and 0 <= self.delete < 1):
            faults.append(f"delete is {self.delete!r}; it must be a probability in [0, 1)")
        if not (is_finite(self.swap) and 0 <= self.swap <= 1):
            faults.append(f"swap is {self.swap!r}; it must be a share in [0, 1]")
        if faults:
            raise OptionError(fault_list("texts cannot be augmented so:", faults))

    @property
    def changes(self) -> bool:
        """Whether texts are changed at all."""
        return bool(self.delete or self.swap)

    def __call__(self, text: str | tuple[str, str], rng: random.Random) -> str | tuple[str, str]:
        """Return a text with other words, or a pair of texts, each with its own."""
        if isinstance(text, str):
            return " ".join(self._changed(text.split(), rng)) or text
        first, second = (" ".join(self._changed(part.split(), rng)) or part for part in text)
        return first, second

    def _changed(self, words: list[str], rng: random.Random) -> list[str]:
        if len(words) < 2:
            return words
        for _ in range(max(1, int(self.swap * len(words))) if self.swap else 0):
            first, second = rng.sample(range(len(words)), 2)
            words[first], words[second] = words[second], words[first]
        if not self.delete:
            return words
        kept = [word for word in words if rng.random() >= self.delete]
        return kept or [rng.choice(words)]


class AugmentedTexts(TextSamples):
    """Texts that are changed and encoded when a sample is asked for; sample i of epoch e depends on (seed, e, i) only.

    Args:
        table: Texts or pairs of texts.
        inputs: The declared input.
        augment: How they are changed.
        seed: Seed of all randomness.

    Raises:
        OptionError: If the samples are sentences given as words, or windows of texts.
    """

    def __init__(self, table: Table, inputs: Text, augment: TextAugment, seed: int = 0) -> None:
        if table.reads == "words" or (len(table) and isinstance(table.inputs[0], TextWindow)):
            kind = "words with a label each" if table.reads == "words" else "texts in windows (overflow='windows')"
            raise OptionError(f"{table.source}: {kind} are not augmented; give whole texts, with overflow='truncate', or no views of them")
        super().__init__(table, inputs, quiet=True)  # which the samples as they are have told
        self._inputs, self._augment, self._seed = inputs, augment, seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]  # torch has no types here

    def set_epoch(self, epoch: int) -> None:
        """Use the random numbers of another epoch; call it before the loader is iterated."""
        self._epoch[0] = epoch

    def __getitem__(self, index: int) -> tuple[Encoding, Any, int]:
        """Return the encoding of the changed text, the target and the index."""
        encoding, target, row = super().__getitem__(index)
        if not self._augment.changes:
            return encoding, target, row
        text = self._augment(self.table.inputs[index], random.Random(f"{self._seed}/{int(self._epoch[0])}/{index}"))
        # Opened here, as it may not be picklable; each process has it once.
        return open_tokenizer(self._inputs).encode([text], self._inputs.max_length)[0], target, row
