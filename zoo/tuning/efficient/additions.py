"""Additions to blocks: subclasses that compute something beside a block, for updates that cannot be merged into weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from zoo.data.dataset import ModelInputs
from zoo.declare import Inputs, Text
from zoo.models.layers import LayerGroups
from zoo.tuning.blocks import first_tensor

TOKENS = 8  # of the texts of a trial


@dataclass(frozen=True)
class Shapes:
    """The shapes of the first tensor that enters a block and of the first that leaves it; None if there is none.

    Attributes:
        entered: The shape of the tensor that enters.
        left: The shape of the one that leaves.
        spread: Standard deviation of all values that enter, for inputs without content; 0 if there is no tensor.
    """

    entered: torch.Size | None
    left: torch.Size | None
    spread: float = 0.0


@dataclass(frozen=True)
class Addition:
    """An update beside blocks.

    Attributes:
        find: Returns the dotted names of the blocks of some groups that it fits, in forward order; raises ``LayerGroupError``.
        attach: Puts it at blocks of a backbone, in place: names, inputs, and its width or number of tokens.
        size: The option that is this number.
    """

    find: Callable[[LayerGroups, Inputs], list[str]]
    attach: Callable[[nn.Module, tuple[str, ...], Inputs, int], None]
    size: str


class Extended(nn.Module):
    """Base of the classes that ``extend`` puts in front of a block's own."""


def extend(block: nn.Module, kind: type[Extended]) -> None:
    """Make a block an instance of a subclass of its own class and ``kind``, in place; its parameters keep their names.

    A subclass, not a hook: a deep copy, compiled code and a forward that starts behind a frozen prefix then compute the same.
    """
    own = type(block)
    block.__class__ = type(own.__name__, (kind, own), {"__module__": own.__module__})


def extended(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the blocks with an addition and their dotted names."""
    for name, module in backbone.named_modules():
        if isinstance(module, Extended):
            yield name, module


def remove_additions(backbone: nn.Module, mark: str) -> None:
    """Restore the blocks of a backbone, in place.

    Args:
        backbone: The backbone.
        mark: Start of the names of the additions' modules and parameters in a block.
    """
    for _, block in [*extended(backbone)]:
        for name in [name for name in (*block._modules, *block._parameters, *vars(block)) if name.startswith(mark)]:
            delattr(block, name)
        block.__class__ = type(block).__bases__[1]


def with_first(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return an output with its first floating tensor changed."""
    leaves, tree = tree_flatten(output)
    at = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    leaves[at] = change(leaves[at])
    return tree_unflatten(leaves, tree)


def block_shapes(backbone: nn.Module, blocks: Mapping[str, nn.Module], inputs: Inputs) -> dict[str, Shapes]:
    """Return the shapes that blocks are given and give in a trial forward in eval mode; blocks that are not called are left out."""
    found: dict[str, Shapes] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            entered, left = first_tensor((args, kwargs)), first_tensor(output)
            spread = 0.0 if entered is None else float(entered.float().std())
            found.setdefault(name, Shapes(None if entered is None else entered.shape, None if left is None else left.shape, spread))

        return hook

    with ExitStack() as stack:
        for name, block in blocks.items():
            stack.callback(block.register_forward_hook(note(name), with_kwargs=True).remove)
        trial_output(backbone, inputs)
    return found


def trial_output(backbone: nn.Module, inputs: Inputs) -> Any:
    """Return the output of a backbone in eval mode for two inputs without content; nothing of it is changed."""
    device = next(backbone.parameters()).device
    with _evaluating(backbone), torch.random.fork_rng(devices=[]), torch.no_grad():
        return backbone(_trial_inputs(inputs, device))


def padding_changes(backbone: nn.Module, inputs: Inputs) -> float:
    """Return how much the output for a text differs where another one of its batch is padded; 0 where nothing is padded."""
    device = next(backbone.parameters()).device
    whole = _trial_inputs(inputs, device)
    if isinstance(whole, Tensor):
        return 0.0
    mask = whole["attention_mask"].clone()
    mask[1, mask.shape[1] // 2 :] = 0
    with _evaluating(backbone), torch.random.fork_rng(devices=[]), torch.no_grad():
        one, other = backbone(whole), backbone({**whole, "attention_mask": mask})
    return float((one[0] - other[0]).abs().max())


def _trial_inputs(inputs: Inputs, device: torch.device) -> ModelInputs:
    if isinstance(inputs, Text):
        ids = torch.ones(2, min(TOKENS, inputs.max_length), dtype=torch.int64, device=device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return torch.zeros(2, *inputs.shape, device=device)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(inner, inner.training) for inner in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for inner, mode in modes:
            inner.training = mode
