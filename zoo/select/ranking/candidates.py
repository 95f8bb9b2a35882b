"""The backbones that are ranked: named ones, or a short prior list for the kind of data. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from zoo.errors import OptionError, UnknownBackboneError, fault_list
from zoo.models.backbone import Backbone, find_backbone
from zoo.registry.registry import default_registry
from zoo.util.toml_files import read_toml

PRIORS = Path(__file__).with_name("priors.toml")
MODALITIES = ("image", "text", "volume")  # the order in which data are tried
_SIGNS = "*?["


def named(wanted: str | Backbone | Iterable[str | Backbone]) -> list[Backbone]:
    """Return the backbones that names, globs and folders of saved models mean, each once, in this order.

    Raises:
        UnknownBackboneError: If one matches nothing, with the nearest names; all of them at once.
    """
    found: dict[str, Backbone] = {}
    faults = []
    for one in [wanted] if isinstance(wanted, str | Backbone) else wanted:
        try:
            matches = [one] if isinstance(one, Backbone) else _matches(str(one))
        except UnknownBackboneError as error:
            faults.append(str(error))
            continue
        found |= {backbone.spec.name: backbone for backbone in matches if backbone.spec.name not in found}
    if faults:
        raise UnknownBackboneError(faults[0] if len(faults) == 1 else fault_list("candidates that nothing provides:", faults))
    if not found:
        raise OptionError("candidates is empty; name some, such as 'timm/resnet*', or leave it out for a prior list")
    return list(found.values())


def _matches(name: str) -> list[Backbone]:
    if not any(sign in name for sign in _SIGNS):
        return [find_backbone(name)]
    names = dict.fromkeys(entry.spec.name for entry in default_registry().search(name))
    return [find_backbone(one) for one in names]


def priors(modality: str) -> list[Backbone]:
    """Return the prior list for a kind of data, as far as it is installed, the most promising first.

    Raises:
        UnknownBackboneError: If nothing of it is installed, with the plugin that provides it.
    """
    names: Sequence[str] = read_toml(PRIORS)[modality]
    found, errors = [], []
    for name in names:
        try:
            found.append(find_backbone(name))
        except UnknownBackboneError as error:
            errors.append(error)
    if not found:
        raise UnknownBackboneError(f"nothing of the prior list for {modality}s is installed; name candidates, or: {errors[0]}")
    return found
