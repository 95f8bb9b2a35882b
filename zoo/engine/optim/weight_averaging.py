"""Averages of a model's values: over steps, over epochs, and between two points of a run.

Values are parameters and buffers as ``state_dict`` names them. Floating-point values are averaged, in float32 if
they are narrower; others, such as counters, are the model's current ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.dataset import ModelInputs
from zoo.errors import SavedModelError, examples
from zoo.tuning.statistics import moving_norms

UPDATES = "updates"  # key of the counter beside the values, whose names have a prefix
PREFIX = "value."


class Ema:
    """An exponential moving average of a model's values (Polyak & Juditsky 1992; as timm and Tan & Le 2019 use it).

    The decay of update ``n`` is ``min(decay, (1 + n) / (10 + n))``, so that early values soon lose their weight.

    Args:
        model: The model, on the device it trains on; the average starts from its values.
        decay: Share of the old average that an update keeps, in [0, 1).

    Attributes:
        updates: Updates so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        assert 0 <= decay < 1, f"the configuration let a decay of {decay} through"
        self._model, self.decay, self.updates = model, decay, 0
        self._frozen: frozenset[str] = frozenset()
        self._values = _copies(model)

    def update(self) -> None:
        """Average in the model's current values."""
        self.updates += 1
        self._move(1 - min(self.decay, (1 + self.updates) / (10 + self.updates)))

    def freeze(self, names: Iterable[str]) -> None:
        """Copy the current values of these names, which are frozen from now on, and skip them until the next call."""
        self._frozen = frozenset(names)
        now = self._model.state_dict()
        with torch.no_grad():
            for name in self._frozen & self._values.keys():
                self._values[name].copy_(now[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged values and the number of updates."""
        values = {PREFIX + name: value for name, value in self._values.items()}
        return {**values, UPDATES: torch.tensor(self.updates)}

    def load_state_dict(self, saved: Mapping[str, Tensor], /) -> None:
        """Take over what ``state_dict`` returned, in place.

        Raises:
            SavedModelError: If it is the average of another network.
        """
        values = {name.removeprefix(PREFIX): value for name, value in saved.items() if name.startswith(PREFIX)}
        _check_same_names(values, self._values)
        for name, value in self._values.items():
            value.copy_(values[name])
        self.updates = int(saved[UPDATES])

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged values while the context is open, in place; its own are restored bit for bit."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        try:
            self.copy_to(model)
            yield
        finally:
            _copy(own, model)

    def copy_to(self, model: nn.Module) -> None:
        """Give the model the averaged values for good, in place."""
        _copy(self._values, model)

    def _move(self, share: float) -> None:
        """Move the average toward the model: by ``share`` of the way."""
        now = self._model.state_dict()
        moving = [name for name in self._values if name not in self._frozen]
        floats = [name for name in moving if self._values[name].is_floating_point()]
        others = [name for name in moving if not self._values[name].is_floating_point()]
        with torch.no_grad():
            means = [self._values[name] for name in floats]
            torch._foreach_lerp_(means, [now[name].detach().to(mean.dtype) for name, mean in zip(floats, means, strict=True)], share)
            if others:
                torch._foreach_copy_([self._values[name] for name in others], [now[name] for name in others])


class Average(Ema):
    """The mean of a model's values at several moments, all with equal weight (stochastic weight averaging, Izmailov et al. 2018).

    It holds the model's values until the first update.

    Args:
        model: The model, on the device it trains on.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, 0.0)

    def update(self) -> None:
        """Average in the model's current values."""
        self.updates += 1
        self._move(1 / self.updates)


def interpolate(model: nn.Module, start: Mapping[str, Tensor], share: float) -> None:
    """Move a model's values back toward ``start``, in place: ``start + share * (now - start)`` (WiSE-FT, Wortsman et al. 2022).

    Args:
        model: The model.
        start: Values of the same model before, as its ``state_dict`` gave them; on any device.
        share: Share of the values as they are now, in [0, 1]; 1 changes nothing.

    Raises:
        SavedModelError: If ``start`` are the values of another network.
    """
    now = model.state_dict()
    _check_same_names(start, now)
    with torch.no_grad():
        for name, value in now.items():
            if value.is_floating_point():
                before = start[name].to(value.device, torch.promote_types(value.dtype, torch.float32))
                value.copy_(torch.lerp(before, value.to(before.dtype), share))


def refresh_statistics(model: nn.Module, batches: Iterable[ModelInputs], forward: Callable[[Any], Any] | None = None) -> int:
    """Estimate the statistics of BatchNorm anew, in place, because they do not fit averaged values (Izmailov et al. 2018).

    Only norms whose statistics move in training are touched, none in a frozen prefix or under ``freeze_bn``; if there are none,
    no batch is loaded. Everything else is in eval mode. Each sample has the same weight in batches of any size. If loading a
    batch fails, the statistics are as before.

    Args:
        model: The model; its mode is left as it was.
        batches: Inputs of training batches, on the model's device.
        forward: Runs them, for example under autocast; None calls the model.

    Returns:
        How many norms were refreshed.
    """
    mode, seen = model.training, 0
    norms = _open_norms(model)
    before = {norm: ({name: value.clone() for name, value in norm.named_buffers(recurse=False)}, norm.momentum) for norm in norms}
    try:
        for x in batches if norms else ():
            size = _size(x)
            seen += size
            for norm in norms:
                norm.momentum = size / seen  # the running mean is then the mean over all samples so far
            with torch.no_grad():
                (forward or model)(x)
    except BaseException:
        for norm, (buffers, _) in before.items():
            _copy(buffers, norm)
        raise
    finally:
        for norm, (_, momentum) in before.items():
            norm.momentum = momentum
        model.train(mode)
    return len(norms) if seen else 0


def _open_norms(model: nn.Module) -> list[Any]:
    """Put norms whose statistics move into training mode and everything else into eval mode; return the norms."""
    model.train()  # a TaskModel keeps its frozen prefix in eval mode
    norms = [norm for norm in moving_norms(model) if hasattr(norm, "momentum")]
    model.eval()
    for norm in norms:
        norm.training = True  # the layer alone, as some norms contain dropout
    return norms


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to(_average_type(value), copy=True) for name, value in model.state_dict().items()}


def _average_type(value: Tensor) -> torch.dtype:
    """Return float32 for narrower types, in which small updates would vanish."""
    return torch.promote_types(value.dtype, torch.float32) if value.is_floating_point() else value.dtype


def _copy(values: Mapping[str, Tensor], model: nn.Module) -> None:
    with torch.no_grad():
        own = model.state_dict()
        for name, value in values.items():
            own[name].copy_(value)


def _check_same_names(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    mismatched = sorted(given.keys() ^ own.keys()) + sorted(
        name for name in given.keys() & own.keys() if given[name].shape != own[name].shape
    )
    if mismatched:
        raise SavedModelError(
            f"these are the values of another network; they differ in {examples(mismatched)}; give the network that was saved"
        )


def _size(x: ModelInputs) -> int:
    return len(next(iter(x.values())) if isinstance(x, Mapping) else x)
