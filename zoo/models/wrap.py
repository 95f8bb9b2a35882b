"""The user's own networks as backbones, without a plugin."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo.declare import BackboneSpec, Features, Image, Inputs, Origin, Text
from zoo.errors import DeclarationError, OptionError, checked_arguments
from zoo.models.backbone import Backbone
from zoo.models.checks.wrapped import check_wrapped, copied, warn_of_network
from zoo.models.layers import LayerGroups, bind
from zoo.models.own_names import OWN_PREFIX

log = logging.getLogger("zoo")
Layers = Mapping[str, str | Sequence[str]]
# Names of the final layer in timm, torchvision and transformers.
CLASSIFIERS = ("fc", "classifier", "head", "heads", "logits", "score", "last_linear")

OWN_NETWORK = "zoo.models.wrap:own_network"  # builder of wrapped networks


@checked_arguments("zoo.wrap", "what the network reads is inputs=zoo.Image(size=…)")
def wrap(
    module: nn.Module,
    *,
    inputs: Inputs | int | None = None,
    layers: Layers | None = None,
    features: Features | None = None,
    name: str = "",
    pretrained: bool = True,
) -> Backbone:
    """Return any network as a backbone, with ``adapt``, ``fit`` and ``save``.

    ``adapt`` works on a copy, so the module is not changed. A model with it is saved with its values but without its code:
    ``zoo.load(folder, backbone=zoo.wrap(module, …))`` opens it.

    Args:
        module: Maps a batch of inputs to features: a feature map, tokens, or one vector per sample, but no logits.
        inputs: Its inputs, such as ``zoo.Image(size=224)``; a number is the size of images in pixels.
        layers: Its layer groups, see docs/layers.md; None makes each child a group.
        features: Its features; None finds their shape with one batch of zeros.
        name: Name for messages; the class if empty.
        pretrained: Whether its values were trained; recipes with ``freeze_bn`` then freeze its BatchNorm statistics.

    Raises:
        OptionError: If the module or an argument cannot be used.
        LayerGroupError: If the layer groups do not fit the module; all faults at once.
        DeclarationError: If the shape of the features cannot be found, with the remedy.
    """
    if not isinstance(module, nn.Module):
        raise OptionError(f"zoo.wrap takes a torch.nn.Module, not {type(module).__name__}")
    check_wrapped(module, inputs=inputs, layers=layers, features=features, name=name)
    declared = Image(size=inputs) if isinstance(inputs, int) else cast("Inputs", inputs)
    called = name or type(module).__name__.lower()
    features = features or _features_of(module, declared, called)
    _warn_of_classifier(module, features, called)
    warn_of_network(module, called)
    spec = BackboneSpec(
        name=OWN_PREFIX + called,
        build=OWN_NETWORK,
        layers=dict(layers) if layers is not None else child_groups(module),
        inputs=declared,
        features=features,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        description=f"A network of one's own, {type(module).__module__}.{type(module).__qualname__}.",
    )
    return WrappedBackbone(spec, module, pretrained=pretrained)


def _warn_of_classifier(module: nn.Module, features: Features, name: str) -> None:
    """Warn where the features seem to be the logits of a classifier that was left on the network."""
    last = [(place, part) for place, part in module.named_modules() if isinstance(part, nn.Linear)][-1:]
    if not last or features.layout != "BD":
        return
    (place, linear), named = last[0], last[0][0].split(".")[0]
    if named in CLASSIFIERS and linear.out_features == features.dim:
        log.warning(
            "%s: the features are the %d outputs of its classifier %r; if they are meant to be what comes before, replace it: "
            "model.%s = torch.nn.Identity(), or build the network without it (timm: num_classes=0)",
            *(name, features.dim, place, named),
        )


class WrappedBackbone(Backbone):
    """A backbone of the user's own network."""

    def __init__(self, spec: BackboneSpec, module: nn.Module, *, pretrained: bool, origins: Sequence[Origin] = ()) -> None:
        super().__init__(spec, weights=False)
        self._origins = tuple(origins) or (Origin(step="own", name=spec.name),)
        self.pretrained = pretrained
        self._module = module

    def fresh(self, **options: Any) -> LayerGroups:
        """Return the layer groups of a copy of the network.

        Raises:
            OptionError: If there are options, as an existing network has none, or if it cannot be copied.
        """
        if options:
            names = ", ".join(sorted(options))
            raise OptionError(f"{self.spec.name!r} is a network of your own and takes no {names}; change the network before zoo.wrap")
        return bind(copied(self._module, self.spec.name), self.spec.layers, name=self.spec.name)


def own_network() -> nn.Module:
    """Raise, because the code of a wrapped network is not saved.

    Raises:
        OptionError: Always, with the remedy.
    """
    raise OptionError("a network of your own cannot be built from its name; give it: zoo.load(folder, backbone=zoo.wrap(…))")


def child_groups(module: nn.Module) -> dict[str, str | list[str]]:
    """Return one group per child with parameters or buffers, in order; the module's own parameters belong to the first.

    Raises:
        OptionError: If there is no such child.
    """
    own = [name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))]
    # Not named_children(), which yields a module that has two names only once.
    children = [name for name, child in module._modules.items() if child is not None and next(iter(child.state_dict()), None) is not None]
    if not children:
        raise OptionError(f"{type(module).__name__} has no child with parameters; give its layer groups: layers={{'stem': [names]}}")
    groups: dict[str, str | list[str]] = {children[0]: [*own, children[0]]}
    return groups | {name: [name] for name in children[1:]}


def _features_of(module: nn.Module, inputs: Inputs, name: str) -> Features:
    """Return the features of a module, found with one batch of zeros."""
    remedy = "give features=zoo.Features(dim=…, layout='BCHW' | 'BND' | 'BD')"
    if isinstance(inputs, Text):
        raise DeclarationError(f"the features of {name!r} cannot be inferred for texts; {remedy}")
    training = [(part, part.training) for part in module.modules()]
    like = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), torch.empty(0, dtype=torch.float32))
    try:
        module.eval()
        with torch.no_grad():
            output = module(torch.zeros(1, *inputs.shape, device=like.device, dtype=like.dtype))
    except Exception as error:
        raise DeclarationError(
            f"{name!r} fails on a batch of shape {(1, *inputs.shape)} ({type(error).__name__}: {error}); correct inputs=, or {remedy}"
        ) from error
    finally:
        for part, mode in training:
            part.training = mode
    if not isinstance(output, Tensor):
        raise DeclarationError(f"{name!r} returns {type(output).__name__}, not one tensor of features; wrap what gives one")
    layouts = {2: ("BD", -1), 3: ("BND", -1), 4: ("BCHW", 1), 5: ("BCDHW", 1)}
    if output.ndim not in layouts:
        raise DeclarationError(f"{name!r} returns features of shape {tuple(output.shape)}; {remedy}")
    layout, axis = layouts[output.ndim]
    return Features(dim=int(output.shape[axis]), layout=layout, pool="avg" if layout == "BND" else "")
