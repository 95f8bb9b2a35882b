"""Pooling: from a backbone's features of the declared layout to one vector per sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.declare import POOLS, Features
from zoo.errors import OptionError, did_you_mean


class Pool(nn.Module):
    """Reduce features to one vector per sample, ``(batch, dim)``.

    Args:
        features: Declared layout and width.
        how: ``avg``, ``max``, ``token`` (the class token), ``last`` (the last token that is not padding), ``none``; empty means the
            declared default.
        normalize: Whether the vectors are scaled to length 1; None means as declared with the declared pooling, and no with another.

    Raises:
        OptionError: If ``how`` does not fit the layout.
    """

    def __init__(self, features: Features, how: str = "", normalize: bool | None = None) -> None:
        super().__init__()
        known = POOLS[features.layout]
        self.how = how or features.pool
        if self.how not in known:
            remedy = f"{did_you_mean(self.how, known)}; it can be: {', '.join(known)}"
            raise OptionError(f"pool {self.how!r} does not fit features of layout {features.layout}{remedy}")
        if self.how == "token" and not features.prefix_tokens:
            raise OptionError("pool 'token' needs a class token, and this backbone declares none (prefix_tokens is 0); use 'avg' or 'max'")
        self.layout = features.layout
        self.prefix_tokens = features.prefix_tokens
        self.normalize = features.normalize and self.how == features.pool if normalize is None else normalize

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool ``x`` of the declared layout to ``(batch, dim)``; with ``none`` its shape stays.

        Args:
            x: Features.
            mask: For text, ``(batch, tokens)`` with 0 for padding. All other tokens count, including the class token, as in
                sentence embeddings (Reimers & Gurevych 2019).
        """
        pooled = self._pooled(x, mask)
        return functional.normalize(pooled, dim=-1) if self.normalize else pooled

    def _pooled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.how == "none":
            return x
        if self.how == "token":
            return x[:, 0]
        if self.how == "last":
            return _last_token(x, mask)
        if mask is not None:
            return _pool_masked(x, mask, self.how)
        if self.layout == "BND":
            x = x[:, self.prefix_tokens :]
        axes = tuple(range(2, x.ndim)) if self.layout in ("BCHW", "BCDHW") else tuple(range(1, x.ndim - 1))
        return x.mean(axes) if self.how == "avg" else x.amax(axes)

    def extra_repr(self) -> str:
        """Show the layout and the pooling."""
        return f"{self.layout}, {self.how}{', normalize' if self.normalize else ''}"


def pooling_of(head: nn.Module, features: Features) -> nn.Module:
    """Return the pooling of a head; of one from a plugin that does not expose it, the declared one."""
    own = getattr(head, "pool", None)
    return own if isinstance(own, nn.Module) else Pool(features)


def _pool_masked(x: Tensor, mask: Tensor, how: str) -> Tensor:
    valid = mask.to(torch.bool).unsqueeze(-1)
    if how == "max":
        return x.masked_fill(~valid, float("-inf")).amax(1)
    return (x * valid).sum(1) / valid.sum(1).clamp(min=1)


def _last_token(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the last token that is not padding, wherever the padding is."""
    if mask is None:
        return x[:, -1]
    places = torch.arange(x.shape[1], device=x.device)
    last = (places * mask.to(torch.bool)).argmax(1)
    return x[torch.arange(len(x), device=x.device), last]
