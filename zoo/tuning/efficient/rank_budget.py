"""Rank budget of AdaLoRA (Zhang et al. 2023): the ranks of all layers, cut down to a mean by importance while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

WARM, FINAL = 0.1, 0.5  # shares of the steps with all ranks, and with the last ranks; the paper has 0.09 to 0.15 and 0.46 to 0.58
CUTS = 100  # at most so often are ranks chosen
SMOOTHING = 0.85  # of sensitivity and of its uncertainty, as in the paper
ORTHOGONAL = 0.5  # weight of the penalty on factors that are not orthogonal, as in PEFT
PARTS = ("lora_A", "lora_B", "lora_E")


def first_rank(rank: int) -> int:
    """Return the rank at the start for a mean rank at the end: half as much again (Zhang et al. 2023)."""
    return -(-3 * rank // 2)


class RankBudget:
    """What AdaLoRA does at each optimizer step: its penalty before it, its choice of ranks after it.

    An update is ``B diag(E) A``. The importance of a rank is the smoothed sensitivity ``|value * gradient|`` times its smoothed
    uncertainty, of its entry of ``E`` plus the means over its row of ``A`` and its column of ``B``. The least important ranks of
    all layers have their ``E`` set to zero. The number that is kept falls along a cubic curve between the first tenth and the
    middle of the steps, from 1.5 times the mean rank to the mean rank.

    Args:
        backbone: The backbone with AdaLoRA.
        rank: Mean rank of a layer at the end.
        steps: Optimizer steps in which it trains.

    Attributes:
        step: Optimizer steps so far.
        kept: The ranks that are left, by layer, once the last are chosen.
    """

    def __init__(self, backbone: nn.Module, rank: int, steps: int) -> None:
        self._layers: dict[str, Any] = {name: layer for name, layer in backbone.named_modules() if hasattr(layer, "ranknum")}
        self._rank, self._steps = rank, steps
        self._warm = int(WARM * steps)
        self._last = max(self._warm + 1, steps - int(FINAL * steps))
        self._every = max(1, (self._last - self._warm) // CUTS)
        self._sensitivity: dict[str, Tensor] = {}
        self._uncertainty: dict[str, Tensor] = {}
        self.step, self.kept = 0, dict[str, list[bool]]()

    def budget(self, step: int) -> int:
        """Return how many ranks all layers that train have together after a step, counted from 1."""
        layers = self._training()
        first, last = sum(len(_part(layer, "lora_E")) for layer in layers.values()), self._rank * len(layers)
        if step <= self._warm or last >= first:
            return first
        left = max(0.0, 1 - (step - self._warm) / (self._last - self._warm))
        return int(last + (first - last) * left**3)

    @torch.no_grad()
    def before_step(self) -> None:
        """Add the gradient of the penalty ``|A A' - 1| + |B' B - 1|``, a mean over the matrices."""
        matrices = [(_part(layer, name), name) for layer in self._training().values() for name in ("lora_A", "lora_B")]
        for matrix, name in matrices:
            rows = matrix if name == "lora_A" else matrix.T
            odd = rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
            slope = 2 * odd @ rows / odd.norm().clamp_min(1e-12) * (ORTHOGONAL / len(matrices))
            assert matrix.grad is not None, "it trains"
            matrix.grad += slope if name == "lora_A" else slope.T

    @torch.no_grad()
    def after_step(self) -> None:
        """Measure the importance of each rank, and set those to zero that the budget has no place for."""
        layers = self._training()
        if not layers:  # as in a phase that trains the head alone, whose steps the schedule does not count
            return
        self.step += 1
        if self.kept:
            self._cut(layers)
            return
        for name, layer in layers.items():
            self._measure(name, layer)
        if self.step >= self._last or (self.step > self._warm and self.step % self._every == 0):
            chosen = self._chosen(layers, self.budget(self.step))
            for name, keeps in chosen.items():
                _part(layers[name], "lora_E").masked_fill_(~keeps[:, None], 0.0)
            if self.step >= self._last:
                self.kept = {name: keeps.tolist() for name, keeps in chosen.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the importances so far and the ranks that are left."""
        measured = {f"{name}.sensitivity": value for name, value in self._sensitivity.items()}
        measured |= {f"{name}.uncertainty": value for name, value in self._uncertainty.items()}
        return {**measured, "step": self.step, "kept": self.kept}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over what ``state_dict`` returned, in place."""
        self.step, self.kept = int(state.get("step", 0)), dict(state.get("kept", {}))
        for end, values in (("sensitivity", self._sensitivity), ("uncertainty", self._uncertainty)):
            values.clear()
            for key, value in state.items():
                if key.endswith(f".{end}"):
                    name = key.removesuffix(f".{end}")
                    layer, _, part = name.rpartition(".")
                    values[name] = value.to(_part(self._layers[layer], part).device)

    def _training(self) -> dict[str, Any]:
        """Return the layers that got gradients in this step."""
        return {name: layer for name, layer in self._layers.items() if all(_part(layer, part).grad is not None for part in PARTS)}

    def _measure(self, name: str, layer: Any) -> None:
        for part in PARTS:
            value, key = _part(layer, part), f"{name}.{part}"
            assert value.grad is not None, "it trains"
            now = (value * value.grad).abs()
            before = self._sensitivity.get(key, torch.zeros_like(now))
            self._sensitivity[key] = SMOOTHING * before + (1 - SMOOTHING) * now
            spread = (now - self._sensitivity[key]).abs()
            self._uncertainty[key] = SMOOTHING * self._uncertainty.get(key, torch.zeros_like(now)) + (1 - SMOOTHING) * spread

    def _chosen(self, layers: Mapping[str, Any], budget: int) -> dict[str, Tensor]:
        """Return a mask of the ranks to keep, by layer."""
        scores = {name: self._score(name) for name in layers}
        dropped = sum(map(len, scores.values())) - budget
        if dropped <= 0:
            return {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
        least = torch.cat(list(scores.values())).kthvalue(dropped).values
        return {name: score > least for name, score in scores.items()}

    def _score(self, name: str) -> Tensor:
        """Return the importance of each rank of a layer, ``(rank,)``."""
        a, b, e = (self._sensitivity[key] * self._uncertainty[key] for key in (f"{name}.{part}" for part in PARTS))
        return e[:, 0] + a.mean(1) + b.mean(0)

    def _cut(self, layers: Mapping[str, Any]) -> None:
        """Set the ranks that are not left to zero again, as the optimizer's momentum moves them."""
        for name, layer in layers.items():
            if name in self.kept:
                value = _part(layer, "lora_E")
                value.masked_fill_(~torch.tensor(self.kept[name], device=value.device)[:, None], 0.0)


def _part(layer: Any, name: str) -> nn.Parameter:
    (value,) = getattr(layer, name).values()  # of the one update that a model has
    return value  # type: ignore[no-any-return]  # PEFT's dictionaries are of any type
