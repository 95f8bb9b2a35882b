"""Augmentation by the user's own function of a decoded image, such as torchvision's or albumentations'."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from zoo.data.images.bands import PICTURE_CHANNELS, read_bands
from zoo.data.images.decode import decode
from zoo.data.images.transforms import EvalTransform, LazyInput, Normalise, check_finite, check_tensor
from zoo.data.seeded_generators import seeded_generators
from zoo.declare import Image
from zoo.errors import CorruptInputError, DataError, OwnPartError

_ALBUMENTATIONS = ("albumentations", "albumentationsx")


@dataclass(frozen=True)
class OwnAugmentation:
    """Decode an image, call the user's function, then the evaluation transform.

    The function takes a PIL image (albumentations an array) and may return an image, an array or a tensor; a float tensor must
    have values in [0, 1], and is resized where it has another size, and normalised. Python's, numpy's and torch's random numbers
    in it depend on the run's seed, the epoch and the sample only.

    Attributes:
        inputs: The declared input.
        function: The user's function.
    """

    inputs: Image
    function: Callable[..., Any]

    def __call__(self, source: Any, rng: random.Random) -> torch.Tensor:
        """Return float32 ``(channels, height, width)``."""
        if isinstance(source, LazyInput):
            return check_tensor(source.tensor(self, rng), self.inputs)
        ready = isinstance(source, torch.Tensor) and source.is_floating_point()
        image = source if ready else self._decoded(source)
        name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        with seeded_generators(rng) as seed:
            try:
                changed = self._changed(image, seed)
            except DataError:
                raise
            except Exception as error:
                raise OwnPartError.of(f"the augmentation {name}", error) from error
        try:
            return self._input(changed, rng, ready=ready)
        except (DataError, CorruptInputError) as error:
            raise type(error)(f"what the augmentation {name} returned cannot be used: {error}") from error

    def _input(self, changed: Any, rng: random.Random, *, ready: bool) -> torch.Tensor:
        """Return the network's input of what the function returned; ``ready`` if the function was given a network's input."""
        if isinstance(changed, torch.Tensor) and changed.is_floating_point():
            if ready:
                return check_tensor(changed, self.inputs)
            check_finite(changed)
            if changed.numel() and not 0 <= float(changed.min()) <= float(changed.max()) <= 1:
                found = f"a float tensor with values in [{float(changed.min()):g}, {float(changed.max()):g}], not in [0, 1]"
                remedy = "scale them, as v2.ToDtype(torch.float32, scale=True) does, and leave out a normalisation"
                raise DataError(f"{found}; {remedy}, which the model does itself")
            if tuple(changed.shape) == self.inputs.shape:
                x = check_tensor(changed, self.inputs)
                return Normalise(self.inputs.mean, self.inputs.std).values(x.clone())  # the function may return a tensor that it keeps
            changed = changed.float()  # numpy has no bf16
        if isinstance(changed, torch.Tensor):
            changed = changed.permute(1, 2, 0).numpy() if changed.ndim == 3 else changed.numpy()
        # The window was applied before the function saw the image.
        return EvalTransform(replace(self.inputs, window=None))(changed, rng)

    def _decoded(self, source: Any) -> Any:
        """Return a PIL image; for other than 1 or 3 channels a float array ``(height, width, channels)`` in [0, 1]."""
        inputs = self.inputs
        if inputs.channels in PICTURE_CHANNELS:
            return decode(source, inputs.channels, window=inputs.window)
        return read_bands(source, inputs.channels, window=inputs.window).permute(1, 2, 0).numpy()

    def _changed(self, image: Any, seed: int) -> Any:
        if type(self.function).__module__.partition(".")[0] in _ALBUMENTATIONS:
            if hasattr(self.function, "set_random_seed"):
                self.function.set_random_seed(seed % 2**32)
            return self.function(image=np.asarray(image))["image"]
        changed = self.function(image)
        if changed is None:
            raise DataError("the augmentation returned nothing; it must return the image")
        return changed
