"""From a name that the catalogue does not list to a declaration: a family, a local folder, a repository of the Hub."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import zoo
from zoo_hf.catalogue import entry, table
from zoo_hf.declared_families import FAMILIES, families
from zoo_hf.describe import from_source, root
from zoo_hf.families import family_of
from zoo_hf.open_clip import ROOTS, from_open_clip, is_open_clip, roots
from zoo_hf.source import Folder, Repository, read_json

TEXT_TOWER = "/text"  # behind the repository of a dual encoder


def find(name: str) -> zoo.BackboneSpec | None:
    """Describe a backbone, or return None for a name of another plugin.

    Args:
        name: ``hf/MODEL_TYPE`` (random values, the family's default size), ``hf/owner/repository``, with ``@revision`` if wanted and
            without the owner where the catalogue knows it, with ``/text`` behind it for the text tower of a dual encoder, or the
            absolute path of a folder with a config.json of transformers.

    Raises:
        zoo.ZooError: If its family is none of ours, or its configuration cannot be had.
    """
    if Path(name).is_absolute():
        return _folder(Path(name))
    source, _, rest = name.partition("/")
    if source != "hf" or not rest:
        return None
    whole = rest.removesuffix(TEXT_TOWER)
    if whole != rest and ("/" in whole or whole.lower() in _listed()):
        return _text_tower(name)
    if rest in ROOTS:
        return roots()[rest]
    repo, _, revision = rest.partition("@")
    listed = _listed().get(repo.lower(), "")
    if rest in FAMILIES or (not listed and _is_model_type(rest)):
        return root(rest)
    if rest.startswith("local/"):
        raise zoo.ZooError(f"{name!r} is the id of a backbone from a local folder; give the folder's path instead")
    if listed and not revision:
        return entry(listed, table()[listed])
    if listed:
        repo, name = listed, f"hf/{listed}@{revision}"
    elif "/" not in repo:
        _refuse_nearly_listed(repo)
    repository = Repository(repo, revision)
    if is_open_clip(repository):
        return from_open_clip(name, repository)
    zoo.fetch(repo, "config.json", revision, owner=name)  # says why where there is none
    return from_source(name, repository)


def _text_tower(name: str) -> zoo.BackboneSpec:
    """Describe the text tower of a dual encoder.

    Raises:
        zoo.ZooError: If the repository has none.
    """
    whole_name = name.removesuffix(TEXT_TOWER)
    repo = whole_name.removeprefix("hf/")
    whole = entry(repo, table()[repo]) if repo in table() else find(whole_name)
    if whole is None or whole.pair is None:
        raise zoo.ZooError(f"{name!r}: {whole_name!r} is no dual encoder of images and texts, so it has no text tower")
    return whole.pair.text.replace(weights=whole.weights)


def _listed() -> dict[str, str]:
    """Return the repositories of the catalogue by their names without owner, in lower case; no two have one name."""
    return {full.partition("/")[2].lower(): full for full in table()}


def _refuse_nearly_listed(repo: str) -> None:
    """Check that a name without owner is not nearly one of the catalogue's.

    Raises:
        zoo.ZooError: With the full names.
    """
    listed = _listed()
    near = [f"hf/{listed[word]}" for word in difflib.get_close_matches(repo.lower(), listed)]
    if near:
        raise zoo.ZooError(
            f"no backbone 'hf/{repo}': repositories of the Hub are named with their owner (did you mean {' or '.join(map(repr, near))}?); "
            f"for another one give its owner: 'hf/OWNER/{repo}'"
        )


def _is_model_type(name: str) -> bool:
    """Tell whether a name without owner is a family that another package declares, or that the generic rule may take."""
    if "/" in name or "@" in name:
        return False
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return name in families() or (name in CONFIG_MAPPING and bool(family_of(name)))


def _folder(path: Path) -> zoo.BackboneSpec | None:
    folder = Folder(path)
    if is_open_clip(folder):
        return from_open_clip(_local_name(path), folder)
    if folder.find("config.json") is None and folder.find("modules.json") is None:
        return None
    if folder.find("modules.json") is None and "model_type" not in (read_json(folder, "config.json") or {}):
        return None  # of another library
    return from_source(_local_name(path), folder)


def _local_name(path: Path) -> str:
    return "hf/local/" + (re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name) or "folder")
