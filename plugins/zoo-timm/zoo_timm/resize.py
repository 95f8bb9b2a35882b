"""Bringing a saved model to another image size: position embeddings and tables are resampled from the grid that they were made for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from zoo_timm.load import adapt_stem

Sides = tuple[int, ...]

# Absolute position embeddings, and where modules that have them keep the grid of their tokens.
POSITIONS = ("pos_embed", "patch_pos", "pos_embed_spatial")
GRIDS = ("patch_embed.grid_size", "pixel_embed.grid_size", "tokens_spatial_shape", "feat_size")


def resize(state: Mapping[str, Tensor], before: nn.Module, module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model for the image size and the input channels of another build of it.

    Grids decide, not shapes: 4 x 16 and 8 x 8 patches have equally many positions.

    Args:
        state: Tensors by the names of both modules.
        before: The model that they come from; its parameters may be without values.
        module: The model to fill; it may have further or fewer modules.

    Raises:
        ValueError: If a tensor of positions belongs to a grid that cannot be resampled.
    """
    resized, earlier = dict(state), dict(before.named_modules())
    for name, part in module.named_modules():
        if name not in earlier:
            continue
        _refuse_mixer(earlier[name], part)
        _resize_grid(resized, name, earlier[name], part)
        _resize_window(resized, name, earlier[name], part)
        _resize_offsets(resized, name, earlier[name], part)
    return adapt_stem(resized, module)


def _refuse_mixer(before: nn.Module, module: nn.Module) -> None:
    """Refuse another grid of an MLP over the tokens, which has a weight for each pair of places."""
    old, new = (_sides(_attribute(each, "stem.grid_size")) for each in (before, module))
    if old and new and old != new:
        raise ValueError(f"its layers mix the tokens of {_shown(old)} patches and cannot be resampled to {_shown(new)}")


def _resize_grid(state: dict[str, Tensor], name: str, before: nn.Module, module: nn.Module) -> None:
    """Resample absolute position embeddings, ``(1, tokens, width)`` or ``(tokens, width)``, row by row with prefix tokens first."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    earlier, own = _grids(before), dict(module.named_parameters(recurse=False))
    for position, new in _grids(module).items():
        key, old = f"{name}.{position}".removeprefix("."), earlier.get(position)
        value = state.get(key)
        if old is None or value is None or position not in own or old == new:
            continue
        if value.ndim == 4 and value.shape == own[position].shape:  # its shape tells the sides, or it is resampled at each forward
            continue
        prefix = value.shape[-2] - math.prod(old) if value.ndim < 4 and len(old) == len(new) == 2 else -1
        if prefix < 0:
            raise ValueError(f"its {key} of shape {tuple(value.shape)} is for {_shown(old)} patches and cannot be resampled")
        tokens = value if value.ndim == 3 else value[None]
        tokens = resample_abs_pos_embed(tokens, list(new), old_size=list(old), num_prefix_tokens=prefix)
        state[key] = tokens if value.ndim == 3 else tokens[0]


def _resize_window(state: dict[str, Tensor], name: str, before: nn.Module, module: nn.Module) -> None:
    """Resample the table of relative positions ``(positions, heads)`` of an attention in windows."""
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

    old, new = (_sides(getattr(each, "window_size", None)) for each in (before, module))
    key = f"{name}.relative_position_bias_table".removeprefix(".")
    value, table = state.get(key), getattr(module, "relative_position_bias_table", None)
    if value is None or table is None or old == new:
        return
    if not old or not new or old[0] != old[1]:
        raise ValueError(f"its {key} is for windows of {old} and cannot be resampled to {new}")
    state[key] = resize_rel_pos_bias_table(
        value, new_window_size=(new[0], new[1]), new_bias_shape=table.shape, old_window_size=(old[0], old[0])
    )


def _resize_offsets(state: dict[str, Tensor], name: str, before: nn.Module, module: nn.Module) -> None:
    """Resample the table ``(heads, positions)`` of an attention with a bias per offset (LeViT, TinyViT), between squares."""
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_levit

    old, new = (_sides(getattr(each, "resolution", None)) for each in (before, module))
    key = f"{name}.attention_biases".removeprefix(".")
    value, table = state.get(key), getattr(module, "attention_biases", None)
    if value is None or table is None or old == new:
        return
    if not old or not new or len({*old}) > 1 or len({*new}) > 1:
        raise ValueError(f"its {key} is for {_shown(old)} positions and cannot be resampled to {_shown(new)}: only squares are")
    state[key] = resize_rel_pos_bias_table_levit(value.T, table.shape[::-1]).T.contiguous()


def _grids(module: nn.Module) -> dict[str, Sides]:
    """Return the grid of each absolute position embedding that a module may have, by the embedding's name in it."""
    branches = getattr(module, "patch_embed", None)
    if isinstance(branches, nn.ModuleList):  # CrossViT has patches of several sizes
        sizes = [(_sides(getattr(each, "img_size", None)), _sides(getattr(each, "patch_size", None))) for each in branches]
        return {f"pos_embed_{i}": tuple(side // patch for side, patch in zip(*each, strict=True)) for i, each in enumerate(sizes)}
    grid = next(filter(None, (_sides(_attribute(module, path)) for path in GRIDS)), ())
    return dict.fromkeys(POSITIONS, grid) if grid else {}


def _attribute(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def _sides(value: Any) -> Sides:
    """Return a size as a tuple; a number is the side of a square, and what is not a size is empty."""
    if isinstance(value, int):
        return (value, value)
    return tuple(value) if isinstance(value, tuple | list) else ()


def _shown(sides: Sides) -> str:
    return " x ".join(map(str, sides))
