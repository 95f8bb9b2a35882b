"""The patches of a ViT: where its blocks take them, and which of them stay visible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.declare import Image
from zoo.tuning.blocks import blocks

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel

MOST_PREFIXES = 16  # tokens before those of the patches, such as a class token and registers


def patchify(x: Tensor, side: int) -> Tensor:
    """Return the patches of images row by row, ``(n, patches, side * side * channels)``, the channel last (He et al. 2022).

    Args:
        x: Images ``(n, channels, height, width)``, both multiples of ``side``.
        side: Side of a patch in pixels.
    """
    n, channels, height, width = x.shape
    grid = x.reshape(n, channels, height // side, side, width // side, side)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, side * side * channels)


def shown_patches(count: int, share: float, keys: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the patches that stay visible of each image, ascending, ``(images, visible)``; a function of the keys.

    Args:
        count: Patches of an image.
        share: Share that is hidden, in (0, 1); at least one patch is hidden and one is not.
        keys: Of each image what its random numbers are drawn from.
    """
    visible = min(count - 1, max(1, int(count * (1 - share))))
    return torch.from_numpy(np.stack([np.sort(np.random.default_rng(key).permutation(count)[:visible]) for key in keys]))


@dataclass(frozen=True)
class Patches:
    """The tokens of a backbone.

    Attributes:
        entry: The first block that takes all tokens, ``(n, prefix + patches, dim)``.
        side: Side of a patch in pixels.
        grid: Rows and columns of patches.
        prefix: Tokens before those of the patches.
    """

    entry: nn.Module
    side: int
    grid: tuple[int, int]
    prefix: int

    @property
    def count(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]

    @contextmanager
    def only(self, shown: Tensor) -> Iterator[None]:
        """Let the blocks take the visible patches alone while the context is open.

        Args:
            shown: Visible patches of each image, ``(n, visible)``.
        """

        def select(_: nn.Module, values: tuple[Any, ...]) -> tuple[Any, ...]:
            tokens = values[0]
            rows = (shown + self.prefix)[..., None].expand(-1, -1, tokens.shape[-1])
            return (torch.cat([tokens[:, : self.prefix], tokens.gather(1, rows)], 1), *values[1:])

        handle = self.entry.register_forward_pre_hook(select)
        try:
            yield
        finally:
            handle.remove()


def patch_side(model: TaskModel) -> int | None:
    """Return the side in pixels of the square patches that one convolution of the first layer group cuts images into; None if none does."""
    parts = [part for _, outer in model.groups[0].modules() for part in outer.modules()]
    convolutions = [part for part in parts if isinstance(part, nn.Conv2d) and part.kernel_size == part.stride]
    sides = {size for part in convolutions for size in part.kernel_size if size > 1}
    return int(sides.pop()) if len(sides) == 1 else None


def find_patches(model: TaskModel) -> Patches | str:
    """Return the tokens of a backbone, or why it has none that can be left out."""
    inputs, remedy = model.inputs, "take another method: 'simclr' or 'dino'"
    if not isinstance(inputs, Image) or model.spec.features.layout != "BND":
        return f"it is no plain ViT, as its features have the layout {model.spec.features.layout} and not one vector per patch; {remedy}"
    side = patch_side(model)
    if side is None:
        return f"its first layer group cuts no image into square patches by one convolution; {remedy}"
    if inputs.height % side or inputs.width % side:
        nearest = " x ".join(str(side * max(1, round(each / side))) for each in dict.fromkeys((inputs.height, inputs.width)))
        return f"its images of {inputs.height} x {inputs.width} pixels are no whole patches of {side}; take image_size={nearest}"
    grid = (inputs.height // side, inputs.width // side)
    device = next(model.parameters()).device
    example = torch.zeros(2, *inputs.shape, device=device)
    found = None
    for block in [part for part in blocks(model.groups).values() if not isinstance(part, nn.Conv2d)]:
        prefix = _prefix_at(model, block, example, grid[0] * grid[1])
        if prefix is not None:
            found = Patches(block, side, grid, prefix)
            break
    if found is None:
        return f"no block of it takes one vector per patch; {remedy}"
    shown = torch.zeros(2, 1, dtype=torch.int64, device=device)
    mode = model.training
    try:
        with torch.no_grad(), found.only(shown):
            out = model.eval().backbone(example)
    except Exception as error:  # positions that are added in every block fit all patches only
        return f"its blocks do not take a part of the patches ({type(error).__name__}: {error}); {remedy}"
    finally:
        model.train(mode)
    if out.shape[1] != found.prefix + 1:
        return f"its blocks give {out.shape[1]} tokens for {found.prefix + 1}; {remedy}"
    return found


def _prefix_at(model: TaskModel, block: nn.Module, example: Tensor, patches: int) -> int | None:
    """Return how many tokens before those of the patches a block takes; None if it does not take and give one vector per patch."""
    shapes: list[torch.Size] = []

    def note(_: nn.Module, values: tuple[Any, ...], out: Any) -> None:
        out = out[0] if isinstance(out, tuple) else out
        shapes.extend(value.shape for value in (*values[:1], out) if isinstance(value, Tensor))

    handle = block.register_forward_hook(note)
    mode = model.training
    try:
        with torch.no_grad():
            model.eval()
            model.backbone(example)
    finally:
        handle.remove()
        model.train(mode)
    if len(shapes) != 2 or any(len(shape) != 3 for shape in shapes) or shapes[0] != shapes[1]:
        return None
    prefix = shapes[0][1] - patches
    return prefix if 0 <= prefix <= MOST_PREFIXES else None
