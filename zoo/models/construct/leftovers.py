"""Tensors of a weights file that a backbone has no place for: those that every file may have, and those of another network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

# Buffers that a network computes itself, and what profilers and normalisation of inputs leave.
_BUFFERS = {"attn_mask", "relative_position_index", "relative_coords_table", "position_ids", "token_type_ids", "inv_freq", "masked_bias"}
_BUFFERS |= {"num_batches_tracked", "total_ops", "total_params", "mean", "std", "pixel_mean", "pixel_std", "image_mean", "image_std"}
# Parts of names of what stands on or beside a backbone, each matched as a whole.
_BESIDE = re.compile(
    # heads, and the pooling before them
    r"fc\d*|(?!conv_)\w*heads?\d*(_\w+)?|\w*classif\w*|cls|last_linear|\w*logits?\w*|aux\w*|AuxLogits|pooler|\w*attn_?pool|b?n?neck|bottleneck|"
    r"score|qa_outputs|conv_seg|decode\w*|op_threshs|hidden_states_norms|"
    # projections, predictors and further parts of pretraining
    r"(\w*_)?proj(ect(or|ion)\w*)?|\w*predict\w*|pred_layer|prototypes\w*|queue\w*|center|mlm\w*|nsp\w*|sop\w*|vocab_\w+|"
    r"masked_\w+|mask_(token|embed)\w*|discriminator\w*|generator\w*|dist_token|distill\w*|"
    # towers of other inputs
    r"text_\w+|vision_\w+|visual\w*|language_\w+|audio_\w+|qformer|query_tokens|"
    # losses, averaged copies, and states of training
    r"\w*loss\w*|criterion\w*|(class|pos)_weights?|\w*metrics?|(\w+_)?ema(_\w+)?|shadow\w*|momentum_\w+|teacher\w*|student\w*|target_\w+|"
    r"optim\w*|exp_avg\w*|\w*sched\w*"
)
_NUMBERED = re.compile(r"(.*?)\d+")  # the name of a block, and what it shares with others of its kind
_MAX_HEAD = 8  # tensors of a head under a name of its user: four layers with biases


class Leftovers(NamedTuple):
    """Names of the tensors of a file that are not part of the backbone.

    Attributes:
        usual: Of heads, pretraining and training, buffers, and copies of the backbone.
        inner: Inside the backbone's blocks, or in further blocks of the same kind: the file is of a deeper or another network.
        other: All others.
    """

    usual: list[str]
    inner: list[str]
    other: list[str]


def sort_leftovers(unused: Mapping[str, Tensor], module: nn.Module, features: int | None) -> Leftovers:
    """Sort the tensors of a file that a backbone has no place for.

    Beside the known names, usual are: whole numbers and single values (counters, temperatures); a copy of the whole backbone below another
    prefix, such as averaged weights; and a part of at most eight tensors beside the backbone's own with a matrix that takes its features,
    which is a head under whatever name.

    Args:
        unused: The tensors by name.
        module: The backbone.
        features: Width of its features, if known.
    """
    inner = _inside_blocks(unused, module)
    fine = set(_copies(unused, module)) | set(_heads(unused, module, features))
    usual = [name for name, value in unused.items() if name not in inner and (name in fine or _is_usual(name, value))]
    return Leftovers(usual, inner, [name for name in unused if name not in {*inner, *usual}])


def _is_usual(name: str, value: Tensor) -> bool:
    parts = name.split(".")
    return _is_buffer(parts[-1], value) or any(map(_BESIDE.fullmatch, parts))


def _is_buffer(last: str, value: Tensor) -> bool:
    return last in _BUFFERS or not value.is_floating_point() or value.numel() == 1


def _copies(unused: Mapping[str, Tensor], module: nn.Module) -> Iterable[str]:
    """Return names below prefixes under which the file has every parameter of the backbone once more."""
    own = {name: parameter.shape for name, parameter in module.named_parameters(remove_duplicate=False)}
    first = next(iter(own), "")
    prefixes = [name.removesuffix(first) for name in unused if name.endswith(f".{first}")]
    whole = [one for one in prefixes if all(one + name in unused and unused[one + name].shape == shape for name, shape in own.items())]
    return (name for name in unused if name.startswith(tuple(whole)))


def _heads(unused: Mapping[str, Tensor], module: nn.Module, features: int | None) -> Iterable[str]:
    """Return names of small parts beside the backbone's own that take its features."""
    own = {name for name, _ in module.named_children()}
    parts: dict[str, list[str]] = {}
    for name in unused:
        parts.setdefault(name.partition(".")[0], []).append(name)
    for part, names in parts.items():
        takes_features = any(unused[name].ndim == 2 and unused[name].shape[1] == features for name in names)
        if part not in own and takes_features and len(names) <= _MAX_HEAD:
            yield from names


def _inside_blocks(unused: Mapping[str, Tensor], module: nn.Module) -> list[str]:
    """Return leftover parameters inside the numbered blocks of a backbone (``layer.3``, ``stage3``), or in further blocks of the same kind.

    They mean that the file is of another network, such as a deeper one. Heads, decoders and known buffers do not count.
    """
    modules = {name for name, _ in module.named_modules() if name}
    kinds = {match[1] for match in map(_NUMBERED.fullmatch, modules) if match}
    found = []
    for key, value in unused.items():
        *path, last = key.split(".")
        if last in _BUFFERS or not value.is_floating_point():  # a head inside a block would be of another network
            continue
        known = next((end for end in range(len(path), 0, -1) if ".".join(path[:end]) in modules), 0)
        block = any(map(_NUMBERED.fullmatch, path[:known]))
        further = known < len(path) and not _BESIDE.fullmatch(path[known]) and _NUMBERED.fullmatch(".".join(path[: known + 1]))
        if block or (further and further[1] in kinds):
            found.append(key)
    return found
