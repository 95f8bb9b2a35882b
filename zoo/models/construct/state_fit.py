"""Match checkpoint tensors to a backbone: prefixes, key conversion, input channels, unused tensors."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from zoo.declare import BackboneSpec
from zoo.errors import CoverageError, ZooError, count, examples, fault_list, first_faults
from zoo.models.construct.leftovers import Leftovers, sort_leftovers
from zoo.models.construct.numbered import by_number, numbered_prefix
from zoo.plugins.loader import load_function

log = logging.getLogger("zoo")

State = dict[str, Tensor]
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and torch.compile; taken off without a log line where the module has no such part
PREFERRED = ("model", "teacher", "encoder_q", "online", "student", "encoder")  # of several copies of the same names
DEPTHS = {"depth", "depths", "num_layers", "num_hidden_layers", "n_layer", "n_layers"}  # options that leave out blocks on purpose
_MAX_PREFIXES = 8  # that are tried


class Fit(NamedTuple):
    """How a file fills a backbone.

    Attributes:
        tensors: The module's tensors by their own names.
        faults: One for each tensor that is not filled.
        unused: Tensors of the file that are not part of the backbone, such as those of its head.
        error: Why the plugin's function could not convert the keys, or None.
    """

    tensors: State
    faults: list[str]
    unused: State
    error: Exception | None = None


def fit_state(module: nn.Module, state: State, spec: BackboneSpec, *, allow_partial: bool = False) -> State:
    """Return the tensors of a file under the module's names, with its channels and dtypes.

    Checkpoints of training frameworks have the backbone below a prefix (``model.`` of Lightning, ``module.encoder_q.`` of MoCo,
    ``backbone.``). The prefix below which most names are the module's is taken off, with a log line.

    Args:
        module: The built backbone; its parameters may be without values.
        state: Tensors as published.
        spec: The declaration.
        allow_partial: Whether to warn instead of raising, unless no tensor is filled.

    Raises:
        CoverageError: If a parameter or buffer is not filled, with the coverage and the first names; or if the file has more left
            than ``sort_leftovers`` calls usual.
    """
    state = _unwrapped(state, module, spec)
    prefix, fit = "", _fit(module, state, spec)
    for candidate in _prefixes(state, module) if fit.faults else ():
        other = _fit(module, {key.removeprefix(candidate): value for key, value in state.items() if key.startswith(candidate)}, spec)
        if len(other.faults) < len(fit.faults) or (_refused(other) and not _refused(fit)):
            prefix, fit = candidate, other
    if fit.faults and not _refused(fit) and (renamed := by_number(state, module.state_dict())):
        other = _fit(module, renamed, spec.replace(convert=""))
        if not other.faults:
            prefix, fit = "", other
            line = "%s: the file has numbers for the parts of %s, as of nn.Sequential; they were replaced in order, and all %s fit"
            log.warning(line, spec.name, type(module).__name__, count(len(_named(fit.tensors)), "tensor"))
    filled = _named(fit.tensors)
    if fit.faults and not (allow_partial and filled):
        reason = f"{spec.name}: {_source(spec)} {fit.error}" if _refused(fit) else _coverage(spec, module, fit, state)
        raise CoverageError(reason) from fit.error
    if prefix:
        log.warning("%s: %s of the file lie below %r, which was taken off", spec.name, count(len(filled), "tensor"), prefix)
    if fit.faults:
        log.warning(_coverage(spec, module, fit, state))
    _check_leftovers(sort_leftovers(fit.unused, module, spec.features.dim), module, spec, allow_partial=allow_partial)
    return fit.tensors


def _check_leftovers(left: Leftovers, module: nn.Module, spec: BackboneSpec, *, allow_partial: bool) -> None:
    """Raise if a file that fills the backbone has more left than heads and known buffers; log what is left out.

    Raises:
        CoverageError: Unless ``allow_partial``, or an option of the backbone leaves out blocks on purpose.
    """
    if left.usual:
        log.info(
            "%s: %s of the weights are not part of the backbone: %s", spec.name, count(len(left.usual), "tensor"), examples(left.usual)
        )
    inner = f"{count(len(left.inner), 'tensor')} more inside its blocks: {examples(left.inner)}" if left.inner else ""
    other = f"{count(len(left.other), 'tensor')} more that belong to no head: {examples(left.other)}" if left.other else ""
    if not (inner or other):
        return
    message = (
        f"{spec.name}: {_source(spec)} fills {type(module).__name__}, and has {' and '.join(filter(None, (inner, other)))}. "
        "Is it the file of a deeper or another architecture?"
    )
    if not allow_partial and (other or not DEPTHS & spec.options.keys()):
        raise CoverageError(f"{message} If the backbone alone is wanted, allow_partial=True (--allow-partial) leaves them out.")
    log.warning("%s They are left out.", message)


def _fit(module: nn.Module, state: State, spec: BackboneSpec) -> Fit:
    """Convert a state to the module's keys, channels and dtypes."""
    target, failure = module.state_dict(), None
    if spec.convert and not _equal(state, target):
        try:
            state = load_function(spec.convert)(state, module)
        except Exception as error:  # of a plugin's function on a user's file: any, if it is of another network
            failure = error
    fitted: State = {}
    faults: list[str] = []
    for name, tensor in target.items():
        value = state.get(name)
        if value is not None and value.shape != tensor.shape:
            value = _adapt_channels(name, value, tensor, spec)
        if value is not None and tensor.is_floating_point() and not value.is_floating_point():
            faults.append(f"{name} is {value.dtype} in the file and {tensor.dtype} in the model")
        elif value is not None and value.shape == tensor.shape:
            fitted[name] = value.to(tensor.dtype)
        elif name in state:
            faults.append(f"{name} is {tuple(state[name].shape)} in the file and {tuple(tensor.shape)} in the model")
        elif name.endswith("num_batches_tracked"):
            fitted[name] = tensor.new_zeros((), device="cpu")
        else:
            faults.append(f"{name} {tuple(tensor.shape)} is not in the file")
    return Fit(fitted, faults, {key: value for key, value in state.items() if key not in target}, failure)


def _refused(fit: Fit) -> bool:
    """Return whether the plugin's function knows what the file is, and refuses it with a remedy."""
    return isinstance(fit.error, ZooError)


def _equal(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> bool:
    """Return whether a state has exactly the names and shapes of a module, as zoo's own saved models have."""
    return state.keys() == target.keys() and all(state[name].shape == tensor.shape for name, tensor in target.items())


def _prefixes(state: Mapping[str, Tensor], module: nn.Module) -> Iterator[str]:
    """Yield prefixes below which the backbone may lie: those with most of its names first, then those with most names."""
    target, own, all_names = module.state_dict(), Counter[str](), Counter[str]()
    for key in state:
        at = key.find(".")
        while at >= 0:
            all_names[key[: at + 1]] += 1
            own[key[: at + 1]] += key[at + 1 :] in target
            at = key.find(".", at + 1)
    rank = {name: number for number, name in enumerate(reversed(PREFERRED), 1)}

    def order(prefix: str) -> tuple[int, int, int]:
        return own[prefix], max(rank.get(part, 0) for part in prefix.split(".")), all_names[prefix]

    likely = [prefix for prefix in all_names if own[prefix] or 2 * all_names[prefix] > len(state)]
    yield from sorted(likely, key=order, reverse=True)[:_MAX_PREFIXES]


def _source(spec: BackboneSpec) -> str:
    return f"the file {(spec.weights.url or spec.weights.file)!r}" if spec.weights else "the state"


def _named(fitted: Mapping[str, Tensor]) -> list[str]:
    return [name for name in fitted if not name.endswith("num_batches_tracked")]


def _coverage(spec: BackboneSpec, module: nn.Module, fit: Fit, state: State) -> str:
    filled = len(_named(fit.tensors))
    total = filled + len(fit.faults)
    share = f"{filled} of {total} tensors of {type(module).__name__} ({100 * filled / total:.0f} %)"
    shown = first_faults(fit.faults)
    shown += [f"the file has: {examples(list(fit.unused))}"] if fit.unused else []
    shown += [f"{spec.convert} failed on its keys with {type(fit.error).__name__}: {fit.error}"] if fit.error else []
    remedy = "Is it the file of this architecture and these options?"
    if numbered_prefix(state) is not None and 2 * filled < total:
        remedy = (
            "The names of the file are numbered, as of nn.Sequential(*network.children()), and do not fit part by part: "
            "save the state_dict() of the network itself, or check that it is this architecture."
        )
    elif filled:
        remedy += " allow_partial=True (--allow-partial) keeps random values for the rest."
    return fault_list(f"{spec.name}: {_source(spec)} fills {share}", shown, remedy)


def _unwrapped(state: State, module: nn.Module, spec: BackboneSpec) -> State:
    """Take the prefixes of wrappers off names that the module does not have.

    Raises:
        CoverageError: If the file has a tensor both with such a prefix and without it.
    """
    target, before, twice = module.state_dict(), dict[str, str](), list[str]()
    for key in state:
        name = key
        while name not in target and name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        if name not in target:
            name = name.replace("._orig_mod.", ".")  # of submodules that were compiled by themselves
        if name in before:
            twice.append(f"{before[name]!r} and {key!r}")
        before[name] = key
    if twice:
        raise CoverageError(
            f"{spec.name}: {_source(spec)} has {count(len(twice), 'tensor')} twice: {examples(twice)}; "
            "save a file with the ones that are meant"
        )
    return {name: state[key] for name, key in before.items()}


def adapt_input(weight: Tensor, channels: int) -> Tensor:
    """Adapt the first layer's weight ``(out, in, …)`` to another number of input channels, keeping its response.

    To one channel the weights are summed; to more they are repeated in turn and scaled by ``in / channels``, so that a grey
    picture repeated over the channels gives the same output (Wightman, timm 2019).

    Returns:
        A tensor ``(out, channels, …)`` of the same dtype.
    """
    before = weight.shape[1]
    if channels < before and channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeats = [index % before for index in range(channels)]
    return weight[:, repeats] * (before / channels)


def _adapt_channels(name: str, value: Tensor, tensor: Tensor, spec: BackboneSpec) -> Tensor | None:
    """Adapt the input channels if the shapes differ in nothing else; return None for grouped or deeper layers."""
    same_rest = value.ndim == tensor.ndim >= 3 and value.shape[0] == tensor.shape[0] and value.shape[2:] == tensor.shape[2:]
    if not same_rest or tensor.shape[1] != spec.options.get("in_chans"):
        return None
    log.warning("%s: the pretrained %s was adapted from %d to %d input channels", spec.name, name, value.shape[1], tensor.shape[1])
    return adapt_input(value, tensor.shape[1])
