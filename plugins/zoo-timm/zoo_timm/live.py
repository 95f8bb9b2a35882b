"""Names that the installed timm knows and the catalogue does not: newer than it, or registered by the user's own code."""

from __future__ import annotations

from typing import Any

import torch

import zoo
from zoo_timm.build import create
from zoo_timm.catalogue import COMMON, backbones, image, options, weights


def find(name: str) -> zoo.BackboneSpec | None:
    """Describe an architecture or tag as the installed timm has it, or return None where timm does not know it.

    A new tag of a catalogued architecture has that architecture's features. Of a new architecture nothing is proved, so
    timm itself pools its features: that is right whatever stands between its features and its classifier.
    """
    import timm

    tagged = name.removeprefix("timm/")
    architecture, _, tag = tagged.partition(".")
    if not timm.is_model(architecture):
        return None
    known = timm.models.get_arch_pretrained_cfgs(architecture)
    config = timm.get_pretrained_cfg(architecture) if not tag else known.get(tagged)
    if tag and config is None:
        return None
    config = config or timm.models.PretrainedCfg()
    catalogued = next((spec for spec in backbones() if spec.name == f"timm/{architecture}"), None)
    features, parameters = _measured(architecture, config) if catalogued is None else (catalogued.features, catalogued.parameters)
    return zoo.BackboneSpec(
        name=name,
        inputs=inputs_of(config),
        features=features,
        weights=weights_of(config, tagged),
        options=options(tagged, bool(catalogued and catalogued.options.get("unpooled"))),
        parameters=parameters,
        **COMMON,
    )


def inputs_of(config: Any) -> zoo.Image:
    """Return the input that a timm configuration describes."""
    return image(
        config.input_size[1:], config.mean, config.std, config.interpolation, min(1.0, config.crop_pct), bool(config.fixed_input_size)
    )


def weights_of(config: Any, name: str) -> zoo.Weights | None:
    """Return where the weights of a timm configuration are."""
    url = config.url[0] if isinstance(config.url, tuple | list) else config.url
    source = config.hf_hub_id or url
    return weights(name, source, (config.license or "unknown").lower()) if source else None


@torch.no_grad()
def _measured(architecture: str, config: Any) -> tuple[zoo.Features, int]:
    with torch.device("meta"):
        model = create(architecture)
        shape = model.eval()(torch.zeros(1, *config.input_size)).shape
    return zoo.Features(dim=shape[-1], layout="BD"), sum(parameter.numel() for parameter in model.parameters())
