"""Learned tokens beside those of the input: at the first block, or at every one.

At the first block alone they are prompt tuning (Lester et al. 2021; VPT-shallow, Jia et al. 2022). At every block, where they take
part in attention and their outputs are dropped, they are VPT-deep; in the attention of a block they are then keys and values that
depend on no input, as in prefix tuning (Li and Liang 2021), computed by the block's own projections.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map

from zoo.declare import Inputs
from zoo.errors import LayerGroupError
from zoo.models.layers import LayerGroups
from zoo.tuning.blocks import CONTAINERS, first_tensor, residual_blocks
from zoo.tuning.efficient.additions import (
    Addition,
    Extended,
    Shapes,
    block_shapes,
    extend,
    padding_changes,
    remove_additions,
    trial_output,
    with_first,
)

NAME = "zoo_prompt"
PADDING = 0.1  # share of the change by further tokens that padding may make, which is rounding where they are attended to alike
SPREAD = 0.02  # least of the values at the start, as of position embeddings


@dataclass(frozen=True)
class Place:
    """The place of a block among those that see learned tokens.

    Attributes:
        count: Number of the tokens.
        first: Whether the block adds them to its input.
        last: Whether it drops them from its output.
    """

    count: int
    first: bool
    last: bool


class _Prompted(Extended):
    """A block among whose tokens are learned ones, at the end of the sequence."""

    zoo_prompt_place: Place

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        (args, kwargs), length = self._longer((args, kwargs))
        output = super().forward(*args, **kwargs)
        return with_first(output, lambda y: y[:, :length]) if self.zoo_prompt_place.last else output

    def _longer(self, given: Any) -> tuple[Any, int]:
        """Return the arguments with the learned tokens, masks included, and the length of the sequence without them."""
        tokens, place = first_tensor(given), self.zoo_prompt_place
        assert tokens is not None, "the block was chosen for its input"
        length = tokens.shape[1] - (0 if place.first else place.count)
        prompt = self._parameters.get(NAME)

        def longer(value: Any) -> Any:
            if value is tokens and prompt is not None:
                return torch.cat([tokens, prompt.to(tokens.dtype).expand(len(tokens), -1, -1)], 1)
            if value is tokens or not isinstance(value, Tensor):
                return value
            return _padded(value, length, place.count)

        return tree_map(longer, given), length


def _padded(mask: Tensor, length: int, count: int) -> Tensor:
    """Return a mask of attention that lets everything attend to further tokens, and these to what other tokens may."""
    if mask.ndim < 2 or mask.shape[-1] != length:
        return mask
    value = 0.0 if mask.is_floating_point() else 1.0  # one is added to scores, the other marks what is attended to
    rows = count if mask.ndim > 2 and mask.shape[-2] == length else 0
    if not rows:
        return functional.pad(mask, (0, count), value=value)
    longer = functional.pad(mask, (0, count), value=value)
    return torch.cat([longer, longer[..., :1, :].expand(*longer.shape[:-2], rows, -1)], -2)


def _blocks(groups: LayerGroups, inputs: Inputs, title: str) -> list[str]:
    """Return the blocks from tokens to tokens."""
    found = {name: block for name, block in residual_blocks(groups).items() if not isinstance(block, CONTAINERS)}
    shapes = block_shapes(groups.model, found, inputs)
    fitting = [name for name in found if name in shapes and _keeps_tokens(shapes[name])]
    if not fitting or len({shapes[name].left for name in fitting}) > 1:
        raise LayerGroupError(
            f"the groups {', '.join(groups.names) or '(none)'} of {type(groups.model).__name__} pass no sequence of tokens from block to "
            f"block, to which {title} could be added; recipe='lora', 'ssf' or 'adapter' needs none"
        )
    return fitting


def _keeps_tokens(shapes: Shapes) -> bool:
    return shapes.left is not None and len(shapes.left) == 3 and shapes.entered == shapes.left


def _attach(backbone: nn.Module, names: tuple[str, ...], inputs: Inputs, count: int, *, deep: bool) -> None:
    blocks = {name: backbone.get_submodule(name) for name in names}
    shapes = block_shapes(backbone, blocks, inputs)
    left = shapes[names[0]].left
    before = trial_output(backbone, inputs)
    assert left is not None, "the blocks were chosen for their tokens"
    for name, block in blocks.items():
        like = next(block.parameters())
        if deep or name == names[0]:
            # As large as the tokens that they stand beside: layer norms blow up small ones to noise that the others attend to.
            spread = max(SPREAD, shapes[name].spread)
            block.register_parameter(NAME, nn.Parameter(torch.empty(count, left[-1]).normal_(std=spread).to(like)))
        extend(block, _Prompted)
        block.zoo_prompt_place = Place(count, deep or name == names[0], deep or name == names[-1])  # type: ignore[assignment]  # no tensor
    try:
        after = trial_output(backbone, inputs)
        reason = "" if after.shape == before.shape else f"its output is {tuple(after.shape)} instead of {tuple(before.shape)}"
        change = float((after - before).abs().max()) if not reason else 0.0
        # A decoder's tokens attend to none behind them, unless a mask for padding takes the place of the causal one.
        if not reason and (change == 0.0 or padding_changes(backbone, inputs) > PADDING * change):
            reason = "its tokens do not attend to those behind them, or only where a text of the batch is padded"
    except Exception as error:  # of a network that counts its tokens: any
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    if reason:
        remove_additions(backbone, NAME)
        raise LayerGroupError(
            f"{type(backbone).__name__} cannot compute with further tokens ({reason}); recipe='lora', 'ssf' or 'adapter' needs none"
        )


SHALLOW = Addition(partial(_blocks, title="prompt tokens"), partial(_attach, deep=False), "tokens")
DEEP = Addition(partial(_blocks, title="prefix tokens"), partial(_attach, deep=True), "tokens")
