"""The precision of an alignment in a run with autocast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.engine.rank_work import plain
from tests.transfer.domain.toy import SOURCE, TARGET
from zoo.data.open import open_data
from zoo.transfer.domain.alignments import Distance
from zoo.transfer.domain.objective import Adapted


def test_distances_between_domains_are_in_float32_in_a_run_in_bf16(tmp_path: Path) -> None:
    found: set[Any] = set()

    def distance(source: Any, target: Any) -> torch.Tensor:
        difference: torch.Tensor = (source["features"] @ target["features"].T).mean()
        found.update((difference.dtype, source["logits"].dtype))
        return difference

    def make(base: Any) -> Adapted:
        return Adapted(base, open_data(TARGET[0], labelled=False), Distance(distance), weight=0.1)

    how: dict[str, Any] = {"recipe": "full", "epochs": 1, "batch_size": 16, "augment": "none", "quiet": True, "precision": "bf16"}
    plain(2).fit(SOURCE, False, out=tmp_path, objective=make, **how)
    assert found == {torch.float32}
