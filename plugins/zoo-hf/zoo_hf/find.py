"""From a name that the catalogue does not list to a declaration: a family, a local folder, a repository of the Hub."""

from __future__ import annotations

import re
from pathlib import Path

import zoo
from zoo_hf.describe import from_source, root
from zoo_hf.families import FAMILIES, families, family_of
from zoo_hf.source import Folder, Repository, read_json


def find(name: str) -> zoo.BackboneSpec | None:
    """Describe a backbone, or return None for a name of another plugin.

    Args:
        name: ``hf/MODEL_TYPE`` (random values, the family's default size), ``hf/owner/repository``, with ``@revision`` if wanted,
            or the absolute path of a folder with a config.json of transformers.

    Raises:
        zoo.ZooError: If its family is none of ours, or its configuration cannot be had.
    """
    if Path(name).is_absolute():
        return _folder(Path(name))
    source, _, rest = name.partition("/")
    if source != "hf" or not rest:
        return None
    if rest in FAMILIES or _is_model_type(rest):
        return root(rest)
    if rest.startswith("local/"):
        raise zoo.ZooError(f"{name!r} is the id of a backbone from a local folder; give the folder's path instead")
    repo, _, revision = rest.partition("@")
    zoo.fetch(repo, "config.json", revision, owner=name)  # says why where there is none
    return from_source(name, Repository(repo, revision))


def _is_model_type(name: str) -> bool:
    """Tell whether a name without owner is a family that another package declares, or that the generic rule may take."""
    if "/" in name or "@" in name:
        return False
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return name in families() or (name in CONFIG_MAPPING and bool(family_of(name)))


def _folder(path: Path) -> zoo.BackboneSpec | None:
    folder = Folder(path)
    if folder.find("config.json") is None and folder.find("modules.json") is None:
        return None
    if folder.find("modules.json") is None and "model_type" not in (read_json(folder, "config.json") or {}):
        return None  # of another library
    return from_source("hf/local/" + (re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name) or "folder"), folder)
