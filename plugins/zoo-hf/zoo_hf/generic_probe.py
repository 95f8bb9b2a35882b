"""Proof by running a model whose groups nobody declared: the order of its modules, and that nothing but its input decides its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo_hf.family import Family
from zoo_hf.image_inputs import native_size

TOKENS = 8  # of the texts that are run
Refuse = Callable[[str], Exception]


def first_runs(module: Any, family: Family, names: Sequence[str], ancestors: Sequence[str], refuse: Refuse) -> list[str]:
    """Return modules in the order in which they first run, after checks that a group can freeze all of them.

    Args:
        module: The built model.
        family: Its family, which says what it reads.
        names: Its layers, and what is beside them.
        ancestors: Modules that hold the list of layers, which no group can put into eval mode.
        refuse: Makes the error of a reason.

    Raises:
        zoo.ZooError: If the model cannot be run, has dropout outside its modules, or lets a sample change what another one gives.
    """
    order: list[str] = []
    handles = []
    modules = dict(module.named_modules())
    for name in names:

        def note(_module: nn.Module, _args: object, name: str = name) -> None:
            if name not in order:
                order.append(name)

        handles += [part.register_forward_pre_hook(note) for part in (modules[name].modules() if name in modules else ())]
    training = module.training
    try:
        with torch.no_grad():
            batches = samples(module, family)
            outputs = [module.eval()(batch) for batch in batches]
            for name in ancestors:
                module.get_submodule(name).training = True
            same = module(batches[0])
    except Exception as error:  # of many classes
        raise refuse(f"it fails on two short samples: {type(error).__name__}: {error}") from error
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    if not torch.equal(outputs[0], same):
        raise refuse("it applies dropout outside its layers, which cannot be frozen; disable it by an option of zoo.get")
    if reason := (_misfit_of_images if family.reads == "image" else _misfit_of_texts)(outputs, module.config, family):
        raise refuse(reason)
    return order


@torch.no_grad()
def changes_nothing(module: Any, family: Family, name: str) -> bool:
    """Return whether the features are the same whatever a module of the model returns, such as the norm of a pooling that is not used."""
    batch, training = samples(module, family)[0], module.training
    before = module.eval()(batch)
    handle = module.get_submodule(name).register_forward_hook(lambda _module, _args, output: torch.zeros_like(output))
    try:
        return torch.equal(module(batch), before)
    finally:
        handle.remove()
        module.train(training)


def samples(module: Any, family: Family) -> list[Any]:
    """Return batches that show whether a sample changes what another one gives: two samples first, the second one alone last."""
    config, device = module.config, next(module.parameters()).device
    if family.reads == "text":
        return [{key: value.to(device) for key, value in batch.items()} for batch in _texts(config)]
    channels = int(getattr(config, "num_channels", None) or 3)
    images = torch.randn(2, channels, *native_size(config), generator=torch.Generator().manual_seed(0)).to(device)
    return [images, images[1:]]


def _texts(config: Any) -> list[Mapping[str, Tensor]]:
    """Return two short texts, the same with another padding, and the shorter one alone without any."""
    ids = torch.arange(2 * TOKENS).view(2, TOKENS) % max(2, min(config.vocab_size - 2, 20)) + 1
    mask = torch.ones_like(ids)
    mask[1, TOKENS // 2 :] = 0
    padded = [{"input_ids": torch.where(mask.bool(), ids, padding), "attention_mask": mask} for padding in (0, 1)]
    return [*padded, {"input_ids": ids[1:, : TOKENS // 2], "attention_mask": mask[1:, : TOKENS // 2]}]


def _misfit_of_texts(outputs: Sequence[Any], config: Any, family: Family) -> str:
    one, other, alone = outputs
    if not isinstance(one, Tensor) or one.ndim != 3 or one.shape[1] != TOKENS:
        return "it does not return one vector per token"
    short, scale = one[1, : TOKENS // 2], float(one.abs().max())
    content = torch.allclose(short, other[1, : TOKENS // 2], rtol=1e-5, atol=1e-6 * scale)
    return "" if content and _same(short, alone[0], scale) else "padding changes what a text gives"


def _misfit_of_images(outputs: Sequence[Any], config: Any, family: Family) -> str:
    both, alone = outputs
    extra = leading_tokens(both, config)
    wanted = family.class_tokens + int(getattr(config, "num_register_tokens", None) or 0)
    if extra != wanted:
        return f"it does not return one vector per patch after {wanted} others"
    return "" if _same(both[1], alone[0], float(both.abs().max())) else "the other images of a batch change what an image gives"


def leading_tokens(features: Any, config: Any) -> int:
    """Return how many tokens stand before those of the patches of an image; -1 where the features are not tokens of patches."""
    if not isinstance(features, Tensor) or features.ndim != 3 or features.shape[2] != config.hidden_size:
        return -1
    patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
    height, width = native_size(config)
    return max(-1, features.shape[1] - (height // patch) * (width // patch))


def _same(one: Tensor, other: Tensor, scale: float) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * scale)  # another size, another order of sums
