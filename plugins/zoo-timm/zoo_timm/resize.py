"""Bringing a saved model to another image size: position embeddings and tables are resampled from the grid that they were made for."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from zoo_timm.load import adapt_stem


def resize(state: Mapping[str, Tensor], before: nn.Module, module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model for the image size and the input channels of another build of it.

    Args:
        state: Tensors by the names of both modules.
        before: The model that they come from; its parameters may be without values.
        module: The model to fill.

    Raises:
        ValueError: If a tensor of positions belongs to windows that cannot be resampled.
    """
    resized = dict(state)
    for name, part in module.named_modules():
        earlier = before.get_submodule(name)
        _resize_grid(resized, name, earlier, part)
        _resize_window(resized, name, earlier, part)
        _resize_offsets(resized, name, part)
    return adapt_stem(resized, module)


def _resize_grid(state: dict[str, Tensor], name: str, before: nn.Module, module: nn.Module) -> None:
    """Resample absolute position embeddings ``(1, tokens, width)`` of a module with a patch embedding."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    old, new = (getattr(getattr(each, "patch_embed", None), "grid_size", None) for each in (before, module))
    key = f"{name}.pos_embed".removeprefix(".")
    value = state.get(key)
    if old is None or new is None or value is None or tuple(old) == tuple(new):
        return
    prefix = value.shape[1] - old[0] * old[1] if value.ndim == 3 else -1
    if prefix < 0:
        raise ValueError(f"its {key} of shape {tuple(value.shape)} is for {old[0]} x {old[1]} patches and cannot be resampled")
    state[key] = resample_abs_pos_embed(value, list(new), old_size=list(old), num_prefix_tokens=prefix)


def _resize_window(state: dict[str, Tensor], name: str, before: nn.Module, module: nn.Module) -> None:
    """Resample the table of relative positions ``(positions, heads)`` of an attention in windows."""
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

    old, new = (getattr(each, "window_size", None) for each in (before, module))
    key = f"{name}.relative_position_bias_table".removeprefix(".")
    value, table = state.get(key), getattr(module, "relative_position_bias_table", None)
    if value is None or table is None or old == new:
        return
    if old is None or new is None or old[0] != old[1]:  # the number of positions does not tell the sides of a rectangle
        raise ValueError(f"its {key} is for windows of {old} and cannot be resampled to {new}")
    state[key] = resize_rel_pos_bias_table(value, new_window_size=new, new_bias_shape=table.shape)


def _resize_offsets(state: dict[str, Tensor], name: str, module: nn.Module) -> None:
    """Resample the table ``(heads, positions)`` of an attention with a bias per offset (LeViT, TinyViT), whose windows are squares."""
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_levit

    key = f"{name}.attention_biases".removeprefix(".")
    value, table = state.get(key), getattr(module, "attention_biases", None)
    if value is None or not isinstance(table, Tensor) or value.shape == table.shape:
        return
    if any(math.isqrt(number) ** 2 != number for number in (value.shape[1], table.shape[1])):
        raise ValueError(f"its {key} of shape {tuple(value.shape)} is not for squares and cannot be resampled to {tuple(table.shape)}")
    state[key] = resize_rel_pos_bias_table_levit(value.T, table.shape[::-1]).T.contiguous()
