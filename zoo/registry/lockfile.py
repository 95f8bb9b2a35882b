"""Pins of exact weights in a registry.toml, written by ``zoo lock`` and verified at every load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.declare import Weights
from zoo.errors import RegistryFileError, WeightsError, WeightsNotFoundError
from zoo.util.atomic_write import write_text
from zoo.util.file_digest import file_digest
from zoo.util.toml_files import parse_toml
from zoo.weights.hub import HubFileInfo, NotOnHubError, fetch, file_metadata
from zoo.weights.locate import file_names, locate
from zoo.weights.shards import INDEX_SUFFIX, SAFETENSORS_INDEX, listing_digest, model_digest, read_index
from zoo.weights.urls.download import first_download


def resolve(weights: Weights | None, owner: str) -> Weights:
    """Return the declaration with the commit, digest and size that the Hub or the URL gives now.

    Safetensors of the Hub are not downloaded for this. Checkpoints are, because the digest of what is made of them is pinned too.

    Raises:
        WeightsError: If the weights are neither on the Hub nor at a URL.
        WeightsNotFoundError: If the Hub or the server cannot be asked, or does not have them.
    """
    if weights is None or not (weights.repo or weights.url):
        where = f"in the package {weights.package!r}" if weights and weights.package else "not on the Hub"
        raise WeightsError(f"{owner}: its weights are {where}: there is no commit to pin")
    if weights.url:
        made = locate(weights, owner)
        source = first_download(weights.url)
        assert source is not None, "remembered by the download"
        return replace(weights, sha256=source.sha256, size=source.size, converted_sha256="" if made == source.path else model_digest(made))
    weights, remote = _published(weights, owner)
    sharded = weights.file.endswith(INDEX_SUFFIX)
    sha256 = _listing(weights, remote, owner) if sharded else _digest(weights.repo, weights.file, remote, owner)
    license = weights.license if weights.license != "unknown" else _license(weights.repo, remote.commit)
    pin = replace(weights, revision=remote.commit, sha256=sha256, size=0 if sharded else remote.size, license=license)
    if pin.file.endswith((".safetensors", SAFETENSORS_INDEX)):
        return pin
    return replace(pin, converted_sha256=model_digest(locate(pin, owner)))


def _published(weights: Weights, owner: str) -> tuple[Weights, HubFileInfo]:
    """Return the declaration of the first published file that ``locate`` would take, and what the Hub says of it."""
    names = file_names(weights)
    for number, name in enumerate(names, 1):
        try:
            return replace(weights, file=name), file_metadata(weights.repo, name, weights.revision, owner=owner)
        except NotOnHubError:
            if number == len(names):
                raise
    raise AssertionError("a declaration names a file")


def write(path: Path, name: str, pin: Weights) -> None:
    """Write the pin of a backbone into a registry file, replacing an older one; the rest of the file is not changed.

    Raises:
        RegistryFileError: If the file is not TOML, or its pins cannot be edited line by line.
    """
    text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    place = ("url",) if pin.url else ("repo", "revision", "file")
    block = [f'[pins."{name}"]'] + [f'{key} = "{getattr(pin, key)}"' for key in (*place, "sha256", "license")]
    block += [f'converted_sha256 = "{pin.converted_sha256}"'] if pin.converted_sha256 else []
    block += [f"size = {pin.size}"] if pin.size else []
    changed = (_without(text, name).rstrip() + "\n\n" + "\n".join(block) + "\n").lstrip()
    if _others(changed, name, path) != _others(text, name, path):
        raise RegistryFileError(f"{str(path)!r} writes its pins in another way; remove the pin of {name!r} by hand, then lock it again")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, changed)


def _digest(repo: str, file: str, remote: HubFileInfo, owner: str) -> str:
    return remote.sha256 or file_digest(fetch(repo, file, remote.commit, owner=owner))


def _listing(weights: Weights, remote: HubFileInfo, owner: str) -> str:
    index = fetch(weights.repo, weights.file, remote.commit, owner=owner)
    folder = weights.file.rpartition("/")[0]
    digests = {index.name: file_digest(index)}
    for name in read_index(index, owner).shards:
        file = f"{folder}/{name}".lstrip("/")
        digests[name] = _digest(weights.repo, file, file_metadata(weights.repo, file, remote.commit, owner=owner), owner)
    return listing_digest(digests)


def _license(repo: str, commit: str) -> str:
    import huggingface_hub

    try:
        card: Any = huggingface_hub.model_info(repo, revision=commit, timeout=10).card_data
    except Exception as error:  # as in zoo.weights.hub: the client raises errors of its HTTP library
        raise WeightsNotFoundError(f"the Hub does not give the licence of {repo}@{commit}: {error}") from error
    license = card.get("license") if card else None
    return license.lower() if isinstance(license, str) and re.fullmatch(r"[\w.+-]+", license) else "unknown"


def _without(text: str, name: str) -> str:
    """Return the text without the table of a pin; comments after its last key are kept."""
    head = re.compile(rf"\[pins\.(\"{re.escape(name)}\"|'{re.escape(name)}')\]")
    lines, comments, inside = list[str](), list[str](), False
    for line in text.splitlines(keepends=True):
        if line.startswith("["):
            lines, comments, inside = lines + comments, [], bool(head.match(line))
            if inside:
                continue
        if not inside:
            lines.append(line)
        elif line.startswith("#") or not line.strip():
            comments.append(line)  # belongs to the next table, unless another key of the pin follows
        else:
            comments = []
    return "".join(lines + comments)


def _others(text: str, name: str, path: Path) -> Mapping[str, Any]:
    """Return the content of a file without one pin."""
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise RegistryFileError(f"{path}: cannot be read: {error}") from error
    pins = document.get("pins", {})
    return document | {"pins": {key: value for key, value in pins.items() if key != name}}
