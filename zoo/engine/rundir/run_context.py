"""Configuration, device, ranks and folder of one run, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo.data.images.pixel_store import PixelStore
from zoo.engine.distributed.ranks import Ranks
from zoo.engine.options.config import Config
from zoo.engine.options.own_parts import OwnParts
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import StopFlag


@dataclass(frozen=True)
class RunContext:
    """The conditions of a run, shared by all its parts.

    Attributes:
        config: The resolved configuration.
        accelerator: Accelerate's device and precision.
        ranks: The processes that train together.
        folder: The folder of the run.
        layout: Memory format of images on the device.
        progress: Shows steps and long passes.
        stop: Set by a signal; polled after every step and every batch of a pass.
        own: The user's own parts.
        pixels: Decoded pixels that other models read too, or None.
        advises: Whether options that do not suit the recipe are told.
    """

    config: Config
    accelerator: Any
    ranks: Ranks
    folder: Path
    layout: torch.memory_format
    progress: Progress
    stop: StopFlag
    own: OwnParts = field(default_factory=OwnParts)
    pixels: PixelStore | None = None
    advises: bool = True

    @property
    def device(self) -> torch.device:
        """The device that this process computes on."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def half(self) -> bool:
        """Whether forward passes compute in bf16."""
        return bool(self.accelerator.mixed_precision != "no")

    def poll(self) -> None:
        """Raise if a signal came, or another rank failed."""
        self.stop.poll()
        self.ranks.raise_if_another_rank_failed()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which forward passes have the run's precision."""
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def cast(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that runs under ``autocast``."""

        def forward(*args: Any) -> Any:
            with self.autocast():
                return function(*args)

        return forward
