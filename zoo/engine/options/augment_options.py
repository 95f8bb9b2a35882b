"""Augmentation options, by name or by field, checked before torch is imported."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from zoo.engine.options.option_types import Alpha, Float, Int, Share, pair_of, validation_faults
from zoo.errors import did_you_mean

# Named augmentations, as fields of zoo.data.images.augment.Augment; None means the evaluation transform.
AUGMENTS: Mapping[str, Mapping[str, Any] | None] = MappingProxyType(
    {
        "none": None,
        "auto": MappingProxyType({}),  # light, unless the solved head is worse with augmented views
        "light": MappingProxyType({}),
        "strong": MappingProxyType({"rand_augment": 9, "erase": 0.25, "mixup": 0.2, "cutmix": 1.0}),
    }
)
# The fields of zoo.data.images.augment.Augment.none(), which is not imported here because its module needs torch.
_NOTHING: Mapping[str, Any] = MappingProxyType({"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0, "jitter": 0.0})


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("must be (low, high), the smaller number first")
    return pair


Area = Annotated[Float, Field(gt=0, le=1)]
Ratio = Annotated[Float, Field(gt=0)]


class AugmentFields(BaseModel):
    """The fields of ``zoo.data.images.augment.Augment`` with their ranges; only the given ones are used."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: Annotated[tuple[Area, Area], BeforeValidator(pair_of("low, high")), AfterValidator(_ordered)] = (1, 1)
    ratio: Annotated[tuple[Ratio, Ratio], BeforeValidator(pair_of("low, high")), AfterValidator(_ordered)] = (1, 1)
    flip: Share = 0
    jitter: Share = 0
    rand_augment: Int = Field(default=0, ge=0, le=30)
    erase: Share = 0
    mixup: Alpha = 0
    cutmix: Alpha = 0


AUGMENT_FIELDS = tuple(AugmentFields.model_fields)
ON_BATCHES = ("mixup", "cutmix")  # these mix the samples of a batch, whatever they were made of


def resolve_augment(value: Any, switches: dict[str, Any], faults: list[str]) -> dict[str, Any] | None:
    """Return the fields of Augment that differ from its defaults, or None for no augmentation.

    A switch beside ``none`` starts from no augmentation, so ``mixup`` with ``none`` is mixup alone.

    Args:
        value: A name of ``AUGMENTS``, a mapping of fields, or a ``zoo.data.images.augment.Augment``.
        switches: Fields that were given as options of their own.
        faults: List to which faults are appended.
    """
    fields = _fields(value)
    if isinstance(fields, str):
        faults.append(fields)
        fields = {}
    nothing = fields is None and not any(switches.values())
    fields = dict(_NOTHING if fields is None else fields)
    known = {name: fields[name] for name in fields if name in AUGMENT_FIELDS}
    faults += [f"augment has no field {name!r}{did_you_mean(str(name), AUGMENT_FIELDS)}" for name in fields if name not in known]
    try:
        checked = AugmentFields(**known | switches)
    except ValidationError as error:
        faults += validation_faults(error, dict.fromkeys(switches, ""), "augment.")
        return None
    return None if nothing else checked.model_dump(exclude_unset=True)


def _fields(value: Any) -> Mapping[str, Any] | str | None:
    """Return the fields of an augmentation, None for none, or a fault as text."""
    if isinstance(value, str) and value in AUGMENTS:
        return AUGMENTS[value]
    if is_dataclass(value) and not inspect.isclass(value):
        return asdict(value)
    if isinstance(value, Mapping):
        return value
    nearest = did_you_mean(value, AUGMENTS) if isinstance(value, str) else ""
    return f"augment is {value!r}{nearest}; it is one of {', '.join(AUGMENTS)}, or a mapping"
