"""Task heads: pool a backbone's features by their declared layout, then map them to logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from zoo.declare import Features
from zoo.errors import OptionError, did_you_mean, fault_message
from zoo.models.pooling import Pool
from zoo.util.numbers import in_units, is_finite, is_whole

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),  # its name in transformers
}
MAX_PARAMETERS = 2**32  # of one layer of a head: 16 GiB as float32


class PooledHead(nn.Module):
    """A head that pools features and maps one vector per sample to logits.

    Attributes:
        pool: The pooling.
    """

    pool: Pool

    @abstractmethod
    def logits(self, pooled: Tensor) -> Tensor:
        """Map pooled features ``(batch, dim)`` to ``(batch, num_classes)``."""

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map features of the declared layout to logits ``(batch, num_classes)``; ``mask`` as ``Pool`` takes it."""
        return self.logits(self.pool(features, mask))


class LinearHead(PooledHead):
    """Pooling, dropout and one linear layer.

    Args:
        features: Declared features of the backbone.
        num_classes: Number of logits.
        pool: See ``Pool``.
        dropout: Probability in [0, 1) of zeroing a pooled feature.
        bias: Whether the linear layer has a bias; classifiers on language models have none.
        normalize: See ``Pool``.
    """

    def __init__(
        self,
        features: Features,
        num_classes: int,
        *,
        pool: str = "",
        dropout: float = 0.0,
        bias: bool = True,
        normalize: bool | None = None,
    ) -> None:
        super().__init__()
        _check_options(dropout=dropout, bias=bias, normalize=normalize)
        self.pool = Pool(features, pool, normalize)
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(features.dim, num_classes, bias=bias)
        _initialise(self.linear)

    def logits(self, pooled: Tensor) -> Tensor:
        """Map pooled features ``(batch, dim)`` to ``(batch, num_classes)``."""
        scores: Tensor = self.linear(self.dropout(pooled))
        return scores


def has_biases(head: nn.Module) -> bool:
    """Return whether a head is one linear layer with biases, on pooled features."""
    return type(head) is LinearHead and head.linear.bias is not None


class MLPHead(PooledHead):
    """Pooling, a hidden layer with activation and dropout, and a linear layer, as usual in medical transfer learning.

    With ``hidden`` equal to the width of the features it is also the classification head of many text models: ``tanh`` for
    RoBERTa and MPNet, ``relu`` for DistilBERT, ``gelu`` for ELECTRA and DeBERTa, ``gelu_new`` for BigBird; ModernBERT's has
    ``gelu``, ``norm=True`` and ``bias=False``.

    Args:
        features: Declared features of the backbone.
        num_classes: Number of logits.
        pool: See ``Pool``.
        hidden: Width of the hidden layer.
        dropout: Probability in [0, 1) of zeroing a hidden unit.
        activation: ``relu``, ``tanh``, ``gelu`` or ``gelu_new`` (GELU by its tanh approximation).
        norm: Whether a layer norm follows the activation.
        bias: Whether the hidden layer and its norm have a bias.
        normalize: See ``Pool``.
    """

    def __init__(
        self,
        features: Features,
        num_classes: int,
        *,
        pool: str = "",
        hidden: int = 256,
        dropout: float = 0.5,
        activation: str = "relu",
        norm: bool = False,
        bias: bool = True,
        normalize: bool | None = None,
    ) -> None:
        super().__init__()
        _check_options(hidden=hidden, dropout=dropout, activation=activation, norm=norm, bias=bias, normalize=normalize)
        self.activation = ACTIVATIONS[activation]()
        self.pool = Pool(features, pool, normalize)
        self.hidden = _linear(features.dim, hidden, bias=bias, name="hidden")
        self.norm = nn.LayerNorm(hidden, bias=bias) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(hidden, num_classes)
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="tanh" if activation == "tanh" else "relu")
        if bias:
            nn.init.zeros_(self.hidden.bias)
        _initialise(self.linear)

    def hidden_units(self, pooled: Tensor) -> Tensor:
        """Map pooled features ``(batch, dim)`` to what the last layer reads, ``(batch, hidden)``."""
        units: Tensor = self.dropout(self.norm(self.activation(self.hidden(pooled))))
        return units

    def logits(self, pooled: Tensor) -> Tensor:
        """Map pooled features ``(batch, dim)`` to ``(batch, num_classes)``."""
        scores: Tensor = self.linear(self.hidden_units(pooled))
        return scores


class TokenHead(nn.Module):
    """Dropout and one linear layer for each token, for token classification.

    Args:
        features: Declared features of the backbone, of layout BND.
        num_classes: Number of logits.
        dropout: Probability in [0, 1) of zeroing a feature.

    Raises:
        OptionError: If the features are not tokens.
    """

    def __init__(self, features: Features, num_classes: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        if features.layout != "BND":
            raise OptionError(f"a head for tokens needs features of layout BND, and the backbone gives {features.layout}")
        _check_options(dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(features.dim, num_classes)
        _initialise(self.linear)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map features ``(batch, tokens, dim)`` to logits ``(batch, tokens, num_classes)``, padding included."""
        scores: Tensor = self.linear(self.dropout(features))
        return scores


def _initialise(layer: nn.Linear) -> None:
    """Initialise near zero: large first logits would distort the features before the head has learned (Kumar et al. 2022)."""
    nn.init.trunc_normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _linear(inputs: int, outputs: int, *, bias: bool = True, name: str = "num_classes") -> nn.Linear:
    """Return a linear layer of a size that a machine can hold; ``name`` is the option that gives the number of outputs.

    Raises:
        OptionError: If it would have more than ``MAX_PARAMETERS``.
    """
    if inputs * outputs > MAX_PARAMETERS:
        size = f"a layer of {inputs} x {outputs} values, {in_units(4 * inputs * outputs)}"
        raise OptionError(f"{name} is {outputs}: that is {size}; take at most {MAX_PARAMETERS // inputs} here")
    return nn.Linear(inputs, outputs, bias=bias)


def _check_options(**given: Any) -> None:
    """Check the options of a head.

    Raises:
        OptionError: Listing all faults.
    """
    faults = []
    for name, value in given.items():
        if name == "hidden" and not (is_whole(value) and value >= 1):
            faults.append(f"hidden is {value!r}; it must be a whole number of units, at least 1")
        if name == "dropout" and not (is_finite(value) and 0 <= value < 1):
            faults.append(f"dropout is {value!r}; it must be in [0, 1)")
        if name == "activation" and not (isinstance(value, str) and value in ACTIVATIONS):
            faults.append(f"activation {value!r}{did_you_mean(str(value), ACTIVATIONS)} is none of: {', '.join(ACTIVATIONS)}")
        if name in ("bias", "norm", "normalize") and not isinstance(value, bool) and (name, value) != ("normalize", None):
            faults.append(f"{name} is {value!r}; it must be True or False")
    if faults:
        raise OptionError(fault_message("the head cannot have these options:", faults))


class OwnHead(PooledHead):
    """The user's own module on pooled features.

    Args:
        features: Declared features of the backbone.
        module: Maps pooled features ``(batch, dim)`` to logits ``(batch, num_classes)``.
        pool: See ``Pool``.
        normalize: See ``Pool``.
    """

    def __init__(self, features: Features, module: nn.Module, *, pool: str = "", normalize: bool | None = None) -> None:
        super().__init__()
        _check_options(normalize=normalize)
        self.pool, self.module = Pool(features, pool, normalize), module

    def logits(self, pooled: Tensor) -> Tensor:
        """Map pooled features ``(batch, dim)`` to ``(batch, num_classes)``."""
        scores: Tensor = self.module(pooled)
        return scores


def gives_features(head: nn.Module) -> bool:
    """Return whether the logits of a head are the pooled features: it is ``nn.Identity``, without values and code of the user's."""
    return isinstance(head, OwnHead) and isinstance(head.module, nn.Identity)


class OwnFeatureHead(nn.Module):
    """The user's own module on unpooled features, with the padding mask for text.

    Args:
        module: Maps features of the declared layout to logits ``(batch, num_classes)``.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits of features."""
        scores: Tensor = self.module(features) if mask is None else self.module(features, mask)
        return scores


def own_head(features: Features, module: nn.Module, *, pool: str = "", normalize: bool | None = None) -> nn.Module:
    """Return the user's own module as a head; with pool ``none`` it takes unpooled feature maps or tokens."""
    if pool == "none" and features.layout != "BD":
        return OwnFeatureHead(module)
    return OwnHead(features, module, pool=pool, normalize=normalize)
