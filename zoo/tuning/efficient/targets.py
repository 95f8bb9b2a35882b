"""LoRA targets: exact names of the layers that can take low-rank updates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

from zoo.errors import LISTED, LayerGroupError, OptionError, examples
from zoo.models.layers import LayerGroups
from zoo.tuning.blocks import NORMS
from zoo.tuning.efficient.kinds import KINDS, takes_layer

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# These read the weights of inner layers without calling them, the second in eval mode only.
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def lora_targets(groups: LayerGroups, kind: str = "lora") -> list[str]:
    """Return the dotted names of the linear layers and convolutions in a slice of groups, in forward order.

    Exact names, because a pattern that matches nothing would silently train nothing. Excluded are layers inside
    ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer``, whose weights are read without calling them, and layers that
    low-rank factors do not fit: grouped, depthwise and dilated convolutions, three-dimensional ones of one voxel, layers with their
    own forward, and layers whose weights are used in two places.

    Args:
        groups: The groups to adapt, such as ``model.groups[4:]``.
        kind: One of ``zoo.tuning.efficient.kinds.KINDS``; layers that it has no form for are left out too.

    Raises:
        LayerGroupError: If there is no such layer; excluded ones are named.
        OptionError: If the kind stands beside blocks instead of layers.
    """
    if not KINDS[kind].merges:
        raise OptionError(f"kind={kind!r} stands beside blocks and has no layers; zoo.tuning.attach_lora returns the blocks")
    shared = _shared(groups.model)
    refused: dict[str, list[str]] = {}
    targets = []
    norms = NORMS if not KINDS[kind].low_rank else ()
    for name, layer in _layers(groups, norms):
        if why := _refusal(layer, name, groups.model, shared, low_rank=KINDS[kind].low_rank) or _formless(layer, kind):
            refused.setdefault(why, []).append(name)
        else:
            targets.append(name)
    if not targets:
        reasons = "; ".join(f"{why} ({examples(names)})" for why, names in refused.items())
        raise LayerGroupError(
            f"no layer of the groups {examples(groups.names, LISTED) or '(none)'} can take "
            f"{KINDS[kind].title}{': ' if reasons else ''}{reasons}"
        )
    return targets


def _layers(groups: LayerGroups, norms: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    seen: set[int] = set()
    for group in groups:
        for name, outer in group.modules():
            for inner, module in _walk(outer, name, norms):
                if id(module) not in seen:
                    seen.add(id(module))
                    yield inner, module


def _walk(module: nn.Module, name: str, norms: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    affine = isinstance(module, norms) and getattr(module, "weight", None) is not None
    if affine or isinstance(module, (nn.Linear, *CONVOLUTIONS, *READERS)) or _is_transposed_linear(module):
        yield name, module
    else:
        for key, child in module.named_children():
            yield from _walk(child, f"{name}.{key}", norms)


def _refusal(layer: nn.Module, name: str, model: nn.Module, shared: set[int], *, low_rank: bool) -> str:
    """Return why a layer cannot take LoRA, or an empty string."""
    if isinstance(layer, READERS):
        return "what reads the weights of its layers without calling them takes none"
    if id(layer) in shared or id(layer.weight) in shared:
        return "weights that are used in two places take none"
    if low_rank and isinstance(layer, CONVOLUTIONS):
        if layer.groups > 1:
            return "grouped convolutions take none"
        # PEFT's own convolution has neither dilation nor another padding.
        if set(layer.dilation) != {1} or layer.padding_mode != "zeros":
            return "dilated convolutions, and padding with other than zeros, take none"
        if isinstance(layer, nn.Conv3d) and layer.kernel_size[:2] == (1, 1):  # it takes them for those of two dimensions, up to 0.21
            return "three-dimensional convolutions of one voxel take none, as PEFT cannot merge them"
    if not _computes_as_its_kind(layer):
        return "layers with a computation of their own take none"
    outer, _, last = name.rpartition(".")
    if last == "qkv" and getattr(model.get_submodule(outer), "q_bias", None) is not None:  # BEiT and EVA in timm
        return "attention that adds biases of its own reads the layer's weights without calling it"
    return ""


def _formless(layer: nn.Module, kind: str) -> str:
    """Return why a kind of update has no form for a layer that can take LoRA, or an empty string."""
    if takes_layer(kind, layer, transposed=_is_transposed_linear(layer)):
        return ""
    return f"{KINDS[kind].title} has no form for {type(layer).__name__}, and recipe='lora' has"


def _computes_as_its_kind(layer: nn.Module) -> bool:
    """Return whether a layer has the forward of torch's class, so that merging into its weight is right."""
    kinds = [kind for kind in (nn.Linear, *CONVOLUTIONS) if isinstance(layer, kind)]
    own = all(
        getattr(type(layer), call) is getattr(kind, call) for kind in kinds for call in ("forward", "_conv_forward") if hasattr(kind, call)
    )
    return own and "forward" not in vars(layer) and not getattr(layer, "parametrizations", None)


def _shared(model: nn.Module) -> set[int]:
    """Return the ids of modules and parameters that are used in more than one place."""
    modules = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    parameters = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return {key for key, times in (modules + parameters).items() if times > 1}


def _is_transposed_linear(module: nn.Module) -> bool:
    """Return whether it is the transposed linear layer of GPT-2, which transformers calls Conv1D."""
    kind = type(module)
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")
