"""The layout in which ``load_state_dict`` of torchvision's own network opens a fine-tuned model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo_torchvision.build import family_of, sized
from zoo_torchvision.families import FAMILIES

if TYPE_CHECKING:
    import zoo

DEFAULT_POOLS = {"BCHW": "avg", "BND": "token"}


def export(model: zoo.TaskModel) -> dict[str, Any] | str:
    """Return torchvision's layout of a model, or the reason why torchvision cannot express it.

    Returns:
        ``keys``: prefix of ours -> prefix of torchvision's, for the state dict; ``config``: the arguments of
        ``torchvision.models.get_model``.
    """
    architecture = str(model.spec.options["architecture"])
    family = FAMILIES[family_of(architecture)]
    pool = getattr(getattr(model.head, "pool", None), "how", "")
    wanted = DEFAULT_POOLS.get(family.layout, pool)
    channels = model.inputs.channels  # type: ignore[union-attr]  # every model of torchvision reads images
    bias = bool(model.head_options.get("bias", True))
    reasons = [
        (family.no_head_reason, bool(family.no_head_reason)),
        (f"its head is {model.head_name!r}; torchvision's classifiers are one linear layer", model.head_name != "linear"),
        (
            f"its last layer has {'a' if bias else 'no'} bias, torchvision's {'no' if bias else 'a'} bias: adapt(…, bias={family.bias})",
            model.head_name == "linear" and bool(family.classifier) and bias != family.bias,
        ),
        (f"it pools by {pool!r}, torchvision by {wanted!r}", pool != wanted),
        (f"it reads {channels} channels, torchvision's networks read 3", channels != 3),
    ]
    misfits = [reason for reason, holds in reasons if holds]
    if misfits:
        return "; ".join(misfits)
    arguments = {key: value for key, value in model.spec.options.items() if key not in ("architecture", "in_chans") and value is not None}
    if family.size_option:
        arguments |= sized(family.size_option, model.inputs.size)  # type: ignore[union-attr]
        arguments.pop("img_size", None)
    if "transform_input" in family.options:
        arguments = {"aux_logits": False, "init_weights": False} | arguments
    config = {"architecture": architecture, "arguments": {"num_classes": model.num_classes, **arguments}}
    return {"keys": {"backbone": "", "head.linear": family.classifier}, "config": {"torchvision": config}}
