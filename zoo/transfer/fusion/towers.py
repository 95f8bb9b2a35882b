"""The backbones of a fusion as one module: a packed row of all inputs -> the features of every part beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.texts.tokenizers import open_tokenizer
from zoo.declare import Text
from zoo.errors import OptionError
from zoo.models.pooling import pooling_of
from zoo.models.task_model import TaskModel

ROW = 1024  # values of a line of packed inputs


@dataclass(frozen=True)
class Packing:
    """Places of the inputs of a row: a flag per part that is 1 where it is missing, the numbers, pixels, tokens.

    Attributes:
        kinds: Backbones, ``image``, ``text`` or both, in this order.
        numbers: Columns of numbers; each is a part of its own.
        shape: Of an image, ``(channels, height, width)``; empty without images.
        names: Inputs of the text backbone, such as ``input_ids``, with the value that pads them.
        tokens: Tokens of a text, to which all are padded or cut.
    """

    kinds: tuple[str, ...]
    numbers: int
    shape: tuple[int, ...] = ()
    names: tuple[tuple[str, int], ...] = ()
    tokens: int = 0

    @classmethod
    def of(cls, models: Mapping[str, TaskModel], numbers: int, tokens: int) -> Packing:
        """Return the places for models, and for texts of so many tokens."""
        image, text = models.get("image"), models.get("text")
        shape = () if image is None else tuple(image.inputs.shape)  # type: ignore[union-attr]  # an image
        names: tuple[tuple[str, int], ...] = ()
        if text is not None:
            assert isinstance(text.inputs, Text), "fuse() has checked it"
            names = tuple(open_tokenizer(text.inputs).padding.items())
        return cls(tuple(models), numbers, shape, names, tokens if names else 0)

    @property
    def parts(self) -> int:
        """Number of parts."""
        return len(self.kinds) + self.numbers

    @property
    def sizes(self) -> list[int]:
        """Values of the flags, of the numbers, of the pixels, and of each input of the text backbone."""
        pixels = torch.Size(self.shape).numel() if self.shape else 0
        return [self.parts, self.numbers, pixels, *(self.tokens for _ in self.names)]

    @property
    def lines(self) -> int:
        """Lines of ``ROW`` values."""
        return -(-sum(self.sizes) // ROW)

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Return the flags ``(batch, parts)`` as bool, the numbers ``(batch, numbers)``, and the inputs of each backbone."""
        flat = x.flatten(1)[:, : sum(self.sizes)]
        flags, numbers, pixels, *columns = torch.split(flat, self.sizes, 1)
        inputs: dict[str, Any] = {}
        if self.shape:
            inputs["image"] = pixels.reshape(len(x), *self.shape)
        if self.names:  # float32 holds whole numbers up to 2**24
            inputs["text"] = {name: values.long() for (name, _), values in zip(self.names, columns, strict=True)}
        return flags > 0.5, numbers, inputs


class Towers(nn.Module):
    """Backbones that run beside each other on packed rows.

    The output has, per row, the flags of missing parts, the numbers, the padding mask of the text where tokens are wanted, and the
    features of each backbone, flat.

    Args:
        models: The models of the parts; the modules are used, not copied.
        packing: Places of the inputs.
        per_token: Whether the features are those of each token or place, not pooled.
    """

    def __init__(self, models: Mapping[str, TaskModel], packing: Packing, *, per_token: bool) -> None:
        super().__init__()
        self.packing, self.per_token = packing, per_token
        self.backbones = nn.ModuleDict({name: model.backbone for name, model in models.items()})
        self.pools = nn.ModuleDict({name: pooling_of(model.head, model.spec.features) for name, model in models.items()})
        self.layouts = {name: model.spec.features.layout for name, model in models.items()}
        self.dims = {name: model.spec.features.dim for name, model in models.items()}
        self.tokens = {name: self._tokens_of(name) for name in models}

    @torch.no_grad()
    def _tokens_of(self, name: str) -> int:
        """Return the vectors that a backbone gives per input; of images found with a picture of zeros."""
        if not self.per_token or self.layouts[name] == "BD":
            return 1
        if name == "text":
            return self.packing.tokens
        backbone = self.backbones[name]
        training, like = backbone.training, next(backbone.parameters())
        found = self._vectors(name, backbone.eval()(torch.zeros(1, *self.packing.shape, device=like.device)))
        backbone.train(training)
        return found.shape[1]

    def _vectors(self, name: str, features: Tensor) -> Tensor:
        """Return features of any layout as ``(batch, vectors, dim)``."""
        if self.layouts[name] in ("BCHW", "BCDHW"):
            return features.flatten(2).transpose(1, 2)
        return features.flatten(1, -2) if features.ndim > 2 else features[:, None]

    @property
    def sizes(self) -> list[int]:
        """Values of the flags, the numbers, the mask of the text, and of each backbone's features."""
        mask = self.tokens["text"] if self.tokens.get("text", 1) > 1 else 0
        return [self.packing.parts, self.packing.numbers, mask, *(self.tokens[name] * dim for name, dim in self.dims.items())]

    def forward(self, x: Tensor) -> Tensor:
        """Map packed rows ``(batch, 1, lines, ROW)`` to ``(batch, values)``; the features of a missing part are zero."""
        flags, numbers, inputs = self.packing.unpack(x)
        parts = [flags.float(), numbers]
        if self.sizes[2]:
            parts.append(inputs["text"]["attention_mask"].float())
        parts += [self._features(name, inputs[name], flags[:, place]) for place, name in enumerate(self.backbones)]
        return torch.cat(parts, 1)

    def _features(self, name: str, x: Any, missing: Tensor) -> Tensor:
        """Return the features of one backbone, flat."""
        backbone = self.backbones[name]
        # While it trains, inputs that are not there must not enter the statistics of a BatchNorm.
        trains = any(parameter.requires_grad for parameter in backbone.parameters()) and bool(missing.any())
        rows = (~missing).nonzero().flatten() if trains else torch.arange(len(missing), device=missing.device)
        found = torch.zeros(len(missing), self.tokens[name] * self.dims[name], device=missing.device)
        if not len(rows):
            return found
        given = {key: values[rows] for key, values in x.items()} if isinstance(x, Mapping) else x[rows]
        found = found.index_copy(0, rows, self._passed(name, given).float())
        return found.masked_fill(missing[:, None], 0.0)

    def _passed(self, name: str, x: Any) -> Tensor:
        """Return the features of a backbone for its inputs, flat; texts of all batches have the same tokens, so that shapes are known."""
        mask = x["attention_mask"] if isinstance(x, Mapping) else None
        features = self.backbones[name](x)
        if not self.per_token or self.layouts[name] == "BD":
            pooled: Tensor = self.pools[name](features, *(() if mask is None else (mask,)))
            return pooled
        vectors = self._vectors(name, features)
        return nn.functional.pad(vectors, (0, 0, 0, self.tokens[name] - vectors.shape[1])).flatten(1)


def check_one_vector(models: Mapping[str, TaskModel]) -> None:
    """Check that the pooling of every model gives one vector per input.

    Raises:
        OptionError: Naming each that does not.
    """
    odd = [name for name, model in models.items() if getattr(pooling_of(model.head, model.spec.features), "how", "") == "none"]
    if odd := [name for name in odd if models[name].spec.features.layout != "BD"]:
        raise OptionError(f"{', '.join(odd)}: the model's head does not pool its features to one vector; give the backbone instead")
