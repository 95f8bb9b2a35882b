"""Stochastic depth: random skipping of blocks in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from zoo.errors import LISTED, LayerGroupError, OptionError, examples
from zoo.models.layers import LayerGroups
from zoo.tuning.blocks import residual_blocks


@contextmanager
def stochastic_depth(groups: LayerGroups, rate: float) -> Iterator[list[str]]:
    """Skip blocks at random, per sample, while the context is open (Huang et al. 2016).

    A block that maps ``x`` to ``y`` of the same shape gives ``x + m / (1 - p) * (y - x)``, where ``m`` is 0 with probability
    ``p`` and else 1, drawn for each sample from torch's generator. ``p`` rises linearly from ``rate / blocks`` at the first to
    ``rate`` at the last block. Blocks that change the shape always run, as do those in eval mode, thus a frozen prefix. Give
    all groups, so that ``p`` is the same in every phase.

    Args:
        groups: The groups of the backbone.
        rate: Probability to skip the last block, in [0, 1).

    Yields:
        Dotted names of the candidate blocks; those that change the shape are known after the first forward.

    Raises:
        OptionError: If the rate is out of range.
        LayerGroupError: If there are no blocks; or, in the first training forward, if none of them keeps the shape.
    """
    if not 0 <= rate < 1:
        raise OptionError(f"drop_path is {rate}; it must be in [0, 1)")
    found = residual_blocks(groups)
    if not found:
        raise LayerGroupError(f"the groups {examples(groups.names, LISTED) or '(none)'} have no block to skip; leave drop_path at 0")
    skippers = [_Skipper(rate * number / len(found)) for number in range(1, len(found) + 1)]
    handles = [block.register_forward_hook(skip, with_kwargs=True) for block, skip in zip(found.values(), skippers, strict=True)]
    handles.append(groups.model.register_forward_hook(_Proof(skippers, groups)))
    try:
        yield list(found)
    finally:
        for handle in handles:
            handle.remove()


class _Skipper:
    """The hook of one block."""

    def __init__(self, p: float) -> None:
        self.p = p
        self.fits = False  # whether an input and an output had the same shape

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        given = next(iter((*args, *kwargs.values())), None)
        leaves, tree = tree_flatten(output)
        at = next((i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), -1)
        if at < 0 or not isinstance(given, Tensor) or not given.is_floating_point() or given.shape != leaves[at].shape:
            return output
        self.fits = True
        if not module.training or not self.p:
            return output
        leaves[at] = _skipped(given, leaves[at], self.p)
        return tree_unflatten(leaves, tree)


class _Proof:
    """The hook of the backbone, which raises after the first forward if no block can be skipped."""

    def __init__(self, skippers: list[_Skipper], groups: LayerGroups) -> None:
        self.skippers, self.groups = skippers, groups

    def __call__(self, module: nn.Module, _args: Any, _output: Any) -> None:
        if module.training and not any(skipper.fits for skipper in self.skippers):
            raise LayerGroupError(
                f"no block of the groups {examples(self.groups.names, LISTED)} puts out the shape that it is given, "
                "so none can be skipped; "
                "leave drop_path at 0 for this backbone"
            )


def _skipped(x: Tensor, y: Tensor, p: float) -> Tensor:
    mask = x.new_empty((len(x), *(1 for _ in x.shape[1:])), dtype=y.dtype).bernoulli_(1 - p).div_(1 - p)
    return (x + mask * (y - x)).to(y.dtype)
