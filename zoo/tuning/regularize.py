"""Penalties for fine-tuning: L2-SP, DELTA and batch spectral shrinkage."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from zoo.data.dataset import ModelInputs
from zoo.errors import LayerGroupError, OptionError, SavedModelError, examples
from zoo.models.layers import LayerGroups
from zoo.tuning.blocks import Tuned, listen
from zoo.tuning.penalties import mean_square, smallest_singular_values, squared_distance


class Regularizers:
    """The penalties of one run; a weight of 0 switches one off.

    Frozen groups have no penalty, and with the whole backbone frozen there is none at all. Build it while the model has its
    pretrained values, after LoRA is attached.

    * L2-SP (Li et al. 2018): half the squared distance of the backbone's trained parameters to their values at the start, and
      half the squared norm of the head's.
    * DELTA (Li et al. 2019): the squared distance of the output of each trained group to that of the backbone at the start for
      the same inputs, in eval mode; mean over samples, channels and positions (so all channels weigh the same, where
      the paper also learns weights), sum over groups. Padding of texts does not count.
    * BSS (Chen et al. 2019): the square of the smallest singular value of the batch's pooled features; for token
      classification of the features of all tokens that are not padding.

    Args:
        model: The model, on the device it trains on.
        l2_sp: Weight of L2-SP.
        delta: Weight of DELTA. It costs a second network in memory and one forward of it per batch.
        bss: Weight of BSS.

    Attributes:
        needs_inputs: Whether ``penalty`` needs the inputs of the network; else its argument is not read.

    Raises:
        OptionError: If a weight is negative or not finite.
    """

    def __init__(self, model: Tuned, *, l2_sp: float = 0.0, delta: float = 0.0, bss: float = 0.0) -> None:
        _check({"l2_sp": l2_sp, "delta": delta, "bss": bss})
        self._model, self._l2_sp, self._delta, self._bss = model, l2_sp, delta, bss
        self.needs_inputs = delta > 0
        self._before = _frozen_copy(model.groups) if delta else None
        self._start: dict[str, Tensor] = {}
        if l2_sp:  # the tensors of the copy, if there is one
            named = model.groups.named_parameters() if self._before is None else self._before.named_parameters()
            self._start = {name: p.detach().clone() if self._before is None else p.detach() for name, p in named}
        self._outputs: dict[str, Any] = {}
        self._pooled: Tensor | None = None
        self._watched = False
        self._autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record what ``penalty`` needs of each forward with gradients; to be opened once the frozen prefix of a phase is set."""
        handles = self._watch()
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._forget()

    def penalty(self, x: ModelInputs) -> Tensor | None:
        """Return the weighted sum of the penalties after a training forward of ``x``, or None if none applies.

        To be called once per forward, with the autocast of that forward. Draws no random numbers.

        Raises:
            LayerGroupError: If none of the trained groups has an output that DELTA can compare.
        """
        outputs, pooled = self._outputs, self._pooled
        self._forget()
        parts = [self._distance_to_start(), self._feature_distance(outputs, x), self._small_singular_values(pooled)]
        terms = [part for part in parts if part is not None]
        return torch.stack(terms).sum() if terms else None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the stored start values; empty if none are needed."""
        return dict(self._start) if self._before is None else dict(self._before.model.state_dict())

    def load_state_dict(self, saved: Mapping[str, Tensor], /) -> None:
        """Take over what ``state_dict`` returned, in place.

        Raises:
            SavedModelError: If it was made for another model or for other penalties.
        """
        own = self.state_dict()
        strange = sorted(own.keys() ^ saved.keys()) + [name for name in own.keys() & saved.keys() if own[name].shape != saved[name].shape]
        if strange:
            raise SavedModelError(f"the values of the start are those of another network; they differ in {examples(strange)}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(saved[name])

    def _distance_to_start(self) -> Tensor | None:
        if not self._l2_sp or not self._trained():
            return None
        named = [(name, p) for name, p in self._trained().named_parameters() if p.requires_grad and name in self._start]
        if not named:
            return None
        moved = squared_distance([parameter for _, parameter in named], [self._start[name] for name, _ in named])
        norms = [parameter.float().square().sum() for parameter in self._model.head.parameters() if parameter.requires_grad]
        return 0.5 * self._l2_sp * torch.stack([moved, *norms]).sum()

    def _feature_distance(self, outputs: Mapping[str, Any], x: ModelInputs) -> Tensor | None:
        trained = self._trained()
        if self._before is None or not trained:
            return None
        before: dict[str, Any] = {}
        handles = _record(self._before[self._model.frozen :], before)
        try:
            with torch.no_grad(), self._autocast():
                self._before.model(x)
        finally:
            for handle in handles:
                handle.remove()
        mask = x.get("attention_mask") if isinstance(x, Mapping) else None
        found = [mean_square(outputs.get(name), before.get(name), mask, name) for name in trained.names]
        distances = [distance for distance in found if distance is not None]
        if not distances:
            names = examples(trained.names)
            raise LayerGroupError(f"delta compares the outputs of layer groups, and no training forward gave one of: {names}")
        return self._delta * torch.stack(distances).sum()

    def _small_singular_values(self, pooled: Tensor | None) -> Tensor | None:
        # The only singular value of one sample is the norm of its features, which must not shrink.
        if pooled is None or not pooled.requires_grad or len(pooled) < 2 or not self._trained():
            return None
        if not bool(pooled.isfinite().all()):  # no singular values; the guard checks the gradients
            return self._bss * pooled.square().sum()
        return self._bss * smallest_singular_values(pooled.float())

    def _trained(self) -> LayerGroups:
        return self._model.groups[self._model.frozen :]

    def _forget(self) -> None:
        self._outputs, self._pooled, self._watched = {}, None, False

    def _watch(self) -> list[RemovableHandle]:
        """Install the hooks of the penalties."""
        backbone, handles = self._model.groups.model, []
        if self._delta:
            handles += [handle for group in self._trained() for handle in listen(group, self._receiver(group.name))]
        if self._delta or self._bss:
            # Blocks that are recomputed in the backward pass call their hooks again, outside the network's forward.
            handles.append(backbone.register_forward_pre_hook(lambda *_: self._open()))
            handles.append(backbone.register_forward_hook(lambda *_: self._close()))
        if self._bss:
            pool = getattr(self._model.head, "pool", None)
            if isinstance(pool, nn.Module):
                handles.append(pool.register_forward_hook(lambda _module, _args, pooled: self._keep_pooled(pooled)))
            else:
                handles.append(self._model.head.register_forward_pre_hook(lambda _module, args: self._keep_pooled(_rows(*args))))
        return handles

    def _receiver(self, name: str) -> Any:
        def receive(output: Any) -> None:
            if self._watched:
                self._outputs[name] = output

        return receive

    def _open(self) -> None:
        self._forget()  # also after a forward that raised
        self._watched = torch.is_grad_enabled()
        kind = next(self._model.groups.model.parameters()).device.type
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        self._autocast = partial(torch.autocast, kind, dtype=dtype, enabled=enabled)

    def _close(self) -> None:
        self._watched = False

    def _keep_pooled(self, pooled: Tensor) -> None:
        self._pooled = pooled if torch.is_grad_enabled() else None


def _frozen_copy(groups: LayerGroups) -> LayerGroups:
    """Return the groups of a frozen copy of their network."""
    twin = copy.deepcopy(groups.model).requires_grad_(False).eval()
    return LayerGroups([dataclasses.replace(group, model=twin) for group in groups], twin)


def _record(groups: LayerGroups, outputs: dict[str, Any]) -> list[RemovableHandle]:
    def receiver(name: str) -> Any:
        return lambda output: outputs.update({name: output})

    return [handle for group in groups for handle in listen(group, receiver(group.name))]


def _rows(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return features as rows of a matrix, for heads without a separate pooling: tokens, or flattened samples."""
    return features[mask.bool()] if mask is not None and features.ndim == 3 else features.flatten(1)


def _check(weights: Mapping[str, float]) -> None:
    faults = [
        f"{name} is {weight}; it must be 0 (off) or a positive number" for name, weight in weights.items() if not 0 <= weight < math.inf
    ]
    if faults:
        raise OptionError("; ".join(faults))
