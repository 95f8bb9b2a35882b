"""Towers of open_clip's layout as modules: its own, of timm, of transformers, and projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

import zoo
from zoo_hf.build import convert as convert_encoder
from zoo_hf.build import text, text_with_pooler
from zoo_hf.families import family_of
from zoo_hf.open_clip_resnet import RESNET_LAYERS, OwnResNet
from zoo_hf.open_clip_text import OWN_TEXT_LAYERS, OwnTextTower
from zoo_hf.open_clip_timm import TAKEN, timm_layers, timm_tower
from zoo_hf.open_clip_vit import OWN_LAYERS, OwnImageTower


def image_tower(tower: Mapping[str, Any], projection: int = 0, **options: Any) -> nn.Module:
    """Build an image tower; position embeddings are interpolated for images of another size.

    Args:
        tower: ``model`` of timm, ``pool``, ``proj`` and ``proj_bias``, as open_clip's configuration has them; or what
            ``zoo_hf.open_clip_own.own_tower`` gives, and ``size``, for one of open_clip itself.
        projection: Width of the space of images and texts; 0 for the features before the projection.
        **options: Of the model of timm, such as ``drop_path_rate``.

    Raises:
        zoo.OptionError: If timm is missing, or has no such model or option.
    """
    if taken := [name for name in options if name in TAKEN]:
        raise zoo.OptionError(
            f"an image tower takes no {', '.join(taken)}: weights are chosen with zoo.get(…, weights=…), the rest is declared"
        )
    if "model" not in tower:
        if options:
            raise zoo.OptionError(f"an image tower of open_clip itself takes no {', '.join(options)}; leave it out")
        kind = OwnResNet if "stages" in tower else OwnImageTower
        return kind(tower, tuple(tower["size"]), projection)
    return timm_tower(tower, projection, **options)


def image_layers(module: Any) -> dict[str, Sequence[str]]:
    """Return the layer groups of an image tower: the embeddings or the first convolutions, and a group per block or stage."""
    if isinstance(module, OwnResNet):
        return dict(RESNET_LAYERS)
    if isinstance(module, OwnImageTower):
        return dict(OWN_LAYERS)
    return timm_layers(module.trunk)


class TextTower(nn.Module):
    """An encoder of transformers, its pooling and its projection, named as open_clip names them.

    Args:
        transformer: Gives tokens ``(batch, tokens, width)``, or with its own pooler one vector.
        pooler: One of ``POOLERS``.
        proj: The projection.
    """

    def __init__(self, transformer: nn.Module, pooler: str, proj: nn.Module) -> None:
        super().__init__()
        self.transformer, self.pooler, self.proj = transformer, pooler, proj

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map texts to embeddings ``(batch, dim)``."""
        found: Tensor = self.transformer(inputs)
        if self.pooler == "mean_pooler":
            mask = inputs["attention_mask"].unsqueeze(-1).to(found.dtype)
            found = (found * mask).sum(1) / mask.sum(1)
        elif self.pooler == "cls_last_hidden_state_pooler":
            found = found[:, 0]
        projected: Tensor = self.proj(found)
        return projected


def text_tower(tower: Mapping[str, Any], width: int, **options: Any) -> nn.Module:
    """Build a text tower.

    Args:
        tower: ``transformer``, the configuration of the encoder, ``pooler`` and ``proj``; or what ``zoo_hf.open_clip_own.own_text``
            gives, for one of open_clip itself.
        width: Width of the space of images and texts.
        **options: Fields of the configuration of the encoder to change.

    Raises:
        zoo.OptionError: If the configuration has no such field, or there is no projection and the widths differ.
    """
    if "transformer" not in tower:
        if options:
            raise zoo.OptionError(f"a text tower of open_clip itself takes no {', '.join(options)}; leave it out")
        return OwnTextTower(tower, width if tower["projected"] else 0)
    config, pooler, proj = tower["transformer"], tower["pooler"], tower.get("proj", "")
    if family_of(config["model_type"]).pooler:
        encoder = text_with_pooler(config, pooler == "cls_pooler", **options)
    else:
        encoder = text(config, **options)
    own = int(encoder.config.hidden_size)  # type: ignore[union-attr,arg-type]  # a model of transformers
    if not proj and own != width:
        raise zoo.OptionError(f"the text tower has no projection, and its width is {own}, not {width} as that of the images")
    return TextTower(encoder, pooler, _text_projection(proj, own, width))


def _text_projection(proj: str, own: int, width: int) -> nn.Module:
    if proj == "linear":
        return nn.Linear(own, width, bias=False)
    if proj == "mlp":
        hidden = (own + width) // 2
        return nn.Sequential(nn.Linear(own, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False))
    return nn.Identity()


def text_layers(module: Any) -> dict[str, Sequence[str]]:
    """Return the layer groups of a text tower: those of its encoder, the projection in the last."""
    if isinstance(module, OwnTextTower):
        return dict(OWN_TEXT_LAYERS)
    layers = family_of(module.transformer.config.model_type).layers
    assert not isinstance(layers, str), "the description has checked it"
    found: dict[str, Sequence[str]] = {
        name: [f"transformer.{member}" for member in ([members] if isinstance(members, str) else members)]
        for name, members in layers.items()
    }
    kept = {name: members for name, members in found.items() if name != "pooler" or getattr(module.transformer, "pooler", None) is not None}
    if any(True for _ in module.proj.parameters()):
        last = next(reversed(kept))
        kept[last] = [*kept[last], "proj"]
    return kept


def convert_image(state_dict: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of the image tower under the module's own names; others keep theirs where they cannot be the text tower's."""
    visual = {name.removeprefix("visual."): value for name, value in state_dict.items() if name.startswith("visual.")}
    if visual and not any(name.startswith("text.") for name in state_dict):  # as OpenAI's CLIP, whose texts have no prefix
        return visual
    return {name.removeprefix("visual."): value for name, value in state_dict.items() if not name.startswith("text.")}


def convert_text(state_dict: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    """Return the tensors of the text tower under the module's own names, those of its encoder by the rules of its family."""
    own = {name.removeprefix("text."): value for name, value in state_dict.items() if not name.startswith("visual.")}
    if isinstance(module, OwnTextTower):
        return {name: value for name, value in own.items() if not name.startswith("logit_")}
    below = {name.removeprefix("transformer."): value for name, value in own.items() if name.startswith("transformer.")}
    if "embed_tokens.weight" in below:  # of an encoder and decoder, of which open_clip has the encoder by itself, as of mT5
        below = {f"encoder.{name}": value for name, value in below.items()} | {"shared.weight": below["embed_tokens.weight"]}
    encoder = convert_encoder(below, module.transformer)
    return {name: value for name, value in own.items() if not name.startswith("transformer.")} | {
        f"transformer.{name}": value for name, value in encoder.items()
    }
