"""The result of a plan, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class GroupPlan:
    """One layer group, or the head, in one phase.

    Attributes:
        name: Name of the group.
        parameters: Number of its parameters, LoRA's included.
        trainable: Number of those that train in this phase.
        lr: Its highest learning rate in this phase, 0 if nothing trains, ``auto`` if a range test will find it.
        factor: Its learning rate relative to the head's.
        weight_decay: Of its matrices; vectors, such as biases and the parameters of norms, have none.
        mode: Whether it trains or is frozen, in words.
    """

    name: str
    parameters: int
    trainable: int
    lr: float | str
    factor: float
    weight_decay: float
    mode: str


@dataclass(frozen=True)
class PhasePlan:
    """One phase.

    Attributes:
        name: Its name.
        epochs: Its epochs.
        steps: Its optimizer steps; 0 where the head is solved.
        frozen: Length of the frozen prefix, in groups.
        augment: Whether images are augmented.
        schedule: Learning-rate schedule; ``solved`` where the head is solved instead of trained.
        lr: Highest learning rate of the head, ``auto`` if a range test will find it.
        cached: Outputs that are stored of the frozen prefix: ``features``, ``activations`` or nothing.
        reason: Why the frozen prefix is computed every epoch, if it is.
        cache: Size of the stored outputs in bytes, over all views and the validation data.
        cache_place: ``memory``, ``disk`` (a file in the run's folder) or nothing.
        micro_batch: Samples per forward; 0 where the head is solved.
        memory: Estimated peak in bytes, including memory from earlier phases.
        seconds: Estimated time.
        groups: Each layer group and the head, input side first.
    """

    name: str
    epochs: int
    steps: int
    frozen: int
    augment: bool
    schedule: str
    lr: float | str
    cached: str
    reason: str
    cache: int
    cache_place: str
    micro_batch: int
    memory: int
    seconds: float
    groups: tuple[GroupPlan, ...]


@dataclass(frozen=True)
class Preview:
    """The plan of a run.

    Attributes:
        backbone: Name of the backbone.
        recipe: Name of the recipe.
        task: The task.
        samples: Training samples.
        valid: Validation samples.
        batch_size: Samples per batch, ``auto`` if the largest micro-batch that fits will be found.
        lr: Learning rate of the head, or ``auto``.
        wise_ft: Share of the tuned values in the result; the rest is from before the last phase.
        refit_bias: Whether the biases of the head are fitted anew at the end.
        device: Device of the run.
        precision: ``fp32`` or ``bf16``.
        memory: Estimated peak of all phases, in bytes: of the GPU's memory, or on the CPU of what this process holds for the run.
        seconds: Estimated time of all phases.
        phases: The phases, in order.
    """

    backbone: str
    recipe: str
    task: str
    samples: int
    valid: int
    batch_size: int | str
    lr: float | str
    wise_ft: float
    refit_bias: bool
    device: str
    precision: str
    memory: int
    seconds: float
    phases: tuple[PhasePlan, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)
