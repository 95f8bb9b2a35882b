"""The layout in which ``timm.create_model("local-dir:DIR", pretrained=True)`` opens a fine-tuned model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo_timm.build import restore_buffers

if TYPE_CHECKING:
    import zoo

POOLS = {"avg": "avg", "max": "max", "token": "token"}
TRAINING_ONLY = ("drop_rate", "drop_path_rate", "drop_block_rate")
TOLERANCE = 1e-3  # of the largest logit
KEPT = ("tag", "fixed_input_size", "first_conv", "classifier", "license", "min_input_size")  # of timm's own configuration


def export(model: zoo.TaskModel) -> dict[str, Any] | str:
    """Return timm's layout of a model, or the reason why timm cannot express it.

    The claim is proved first: timm's own model gets the tensors of this one, without a copy, and must give its logits.

    Returns:
        ``keys``: prefix of ours -> prefix of timm's, for the state dict; ``config``: what timm reads in config.json.
    """
    if model.head_name != "linear" or not isinstance(getattr(model.head, "linear", None), nn.Linear):
        return f"its head is {model.head_name!r}; timm's classifiers are one linear layer"
    arguments = _arguments(model)
    try:
        json.dumps(arguments)
    except TypeError as error:
        return f"an option cannot be written as JSON: {error}"
    architecture = str(model.spec.options["architecture"])
    try:
        twin = _twin(architecture, model, arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        return f"timm does not build it: {str(error).strip().splitlines()[0]}"
    if isinstance(twin, str):
        return twin
    classifier = twin.pretrained_cfg["classifier"]  # type: ignore[index]  # timm puts a dict there
    return {"keys": {"backbone": "", "head.linear": classifier}, "config": _config(architecture, model, twin, arguments)}


def _arguments(model: zoo.TaskModel) -> dict[str, Any]:
    """Return the arguments with which timm builds this model, beside the number of classes."""
    left = ("architecture", "unpooled", *TRAINING_ONLY)
    arguments = {key: value for key, value in model.spec.options.items() if key not in left and value is not None}
    pool: str = _part(model.head, "pool").how
    return arguments | ({"global_pool": POOLS[pool]} if pool in POOLS and pool != model.spec.features.pool else {})


def _twin(architecture: str, model: zoo.TaskModel, arguments: dict[str, Any]) -> nn.Module | str:
    """Return timm's model with the tensors of ours, or the reason why there is none with equal logits."""
    import timm

    with torch.device("meta"):
        twin: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=model.num_classes, **arguments)
    classifier = twin.pretrained_cfg.get("classifier")  # type: ignore[operator,union-attr]  # timm puts a dict there
    if not isinstance(classifier, str):
        return f"timm's {type(twin).__name__} has {len(classifier or ())} classifiers"
    linear = {f"{classifier}.{name}": tensor for name, tensor in _part(model.head, "linear").state_dict().items()}
    state = model.backbone.state_dict() | linear
    own = twin.state_dict()
    odd = [key for key in own.keys() | state.keys() if key not in own or key not in state or own[key].shape != state[key].shape]
    pooling = f" when it pools by {arguments['global_pool']!r}" if "global_pool" in arguments else ""
    if odd:
        return f"timm's {type(twin).__name__} holds other tensors{pooling}, for example {min(odd)}"
    restore_buffers(twin)
    twin.load_state_dict(state, assign=True)
    return twin if _agree(model, twin) else f"timm's {type(twin).__name__} gives other logits{pooling}"


def _part(head: nn.Module, name: str) -> Any:
    return getattr(head, name)


@torch.no_grad()
def _agree(model: zoo.TaskModel, twin: nn.Module) -> bool:
    """Tell whether both give the same logits for one random input."""
    device = next(model.head.parameters()).device
    twin.to(device).eval()
    inputs: Any = model.inputs  # every timm model reads images
    x = torch.randn(1, *inputs.shape, generator=torch.Generator().manual_seed(0)).to(device)
    training = model.training
    try:
        ours, theirs = model.eval()(x), twin(x)
    finally:
        model.train(training)
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= TOLERANCE * ours.abs().max() + 1e-6)


def _config(architecture: str, model: zoo.TaskModel, twin: nn.Module, arguments: dict[str, Any]) -> dict[str, Any]:
    declared: dict[str, Any] = twin.pretrained_cfg  # type: ignore[assignment]  # timm puts a dict there
    inputs: Any = model.inputs  # every timm model reads images
    kept = {key: declared[key] for key in KEPT if declared.get(key)}
    preparation = {
        "input_size": list(inputs.shape),
        "interpolation": inputs.interpolation,
        "crop_pct": inputs.crop,
        "crop_mode": "center",
        "mean": list(inputs.mean),
        "std": list(inputs.std),
        "num_classes": model.num_classes,
        "pool_size": None,
        "custom_load": False,
    }
    config = {
        "architecture": architecture.partition(".")[0],
        "num_classes": model.num_classes,
        "num_features": model.spec.features.dim,
        "pretrained_cfg": kept | preparation,
        "model_args": arguments,
    }
    return config | ({"label_names": list(model.labels)} if model.labels else {})
