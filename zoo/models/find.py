"""The backbone of a name: one that a plugin or a registry file declares, or that a folder holds."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from zoo.errors import OptionError
from zoo.models.backbone import Backbone, configured
from zoo.models.pairs.towers import TOWERS
from zoo.registry.lookup import foreign_folder
from zoo.registry.registry import default_registry
from zoo.util.atomic_write import is_file

SAVED = ("config.json", "ensemble.json", "fusion.json")  # of a folder of our own, from which a backbone is taken or refused by name


def get(
    name: str | PathLike[str], weights: bool | str | PathLike[str] | None = None, *, allow_partial: bool = False, **options: Any
) -> Backbone:
    """Return a handle of a backbone that a plugin or ``registry.toml`` declares, or that a folder holds.

    Args:
        name: ``source/name``, an alias, the unambiguous part after the source, or a folder of a saved model or in a format
            that a plugin reads; of a dual encoder's with ``/text`` or ``/image`` behind it for that tower.
        weights: None for the declared pretrained weights, False for random initialisation, or a file or folder of safetensors or
            of a checkpoint of ``torch.save``, or the https URL of such a file, which is fetched once.
        allow_partial: Whether weights may leave tensors of the backbone unfilled, which stay random.
        **options: Options of the architecture, such as ``pad_type="same"``, ``drop_path_rate=0.1``, ``img_size=160``; of a dual encoder
            such as CLIP also ``tower="text"`` or ``"image"``, whose features are embeddings in one space.

    Raises:
        UnknownBackboneError: If there is no such backbone, with the nearest names.
        AmbiguousNameError: If several backbones match the name.
        WeightsNotFoundError: If ``weights`` names no file.
        WeightsError: If ``weights`` is of a format that is not read, or a URL that may not be fetched.
        OptionError: If the backbone has no such option, or ``weights`` is of another type, such as a state dict.
    """
    if not isinstance(name, str | PathLike):
        told = "is built already" if isinstance(name, Backbone) else "a network of your own is zoo.wrap(module, inputs=…)"
        raise OptionError(f"zoo.get takes the name of a backbone or a folder, not {type(name).__name__}; {told}")
    return configured(find_backbone(name), weights=weights, allow_partial=allow_partial, options=options)


def find_backbone(name: str | PathLike[str]) -> Backbone:
    """Return a backbone as declared; see ``get``."""
    if any(is_file(Path(name) / file) for file in SAVED) and foreign_folder(str(name)) is None:
        from zoo.saved.load import open_backbone

        return open_backbone(Path(name))
    if (whole := _of_tower(Path(name))) is not None:
        return configured(find_backbone(whole), weights=None, allow_partial=False, options={"tower": Path(name).name})
    entry = default_registry().resolve(str(name))
    plugin = f"{entry.plugin.distribution} {entry.plugin.version}".strip() if entry.plugin else ""
    return Backbone(entry.spec, plugin=plugin)


def _of_tower(path: Path) -> Path | None:
    """Return the folder of a dual encoder whose tower a path names, as ``FOLDER/text``; None for others."""
    if path.name not in TOWERS or path.exists():
        return None
    folder = path.parent
    return folder if any(is_file(folder / file) for file in SAVED) or foreign_folder(str(folder)) is not None else None
