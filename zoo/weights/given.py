"""Weights that a user names: a path, a URL, ``False`` for random values; anything else is refused with what is meant by it here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

from zoo.declare import Weights
from zoo.errors import OptionError, WeightsError, WeightsNotFoundError, owner_prefix
from zoo.weights.locate import CHECKPOINTS, URL, check_format, local_file
from zoo.weights.urls.download import checked_name

_RANDOM = {"none", "false", "no", "off", "random", "null", "scratch", "0"}
_PUBLISHED = {"true", "yes", "default", "pretrained", "imagenet", "1"}
_MEMBER = re.compile(r"((?P<type>\w+)_Weights\.)?(?P<member>DEFAULT|[A-Z]\w*_V\d+)")  # of an enumeration of torchvision
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # a backbone, or a repository of the Hub
_WAYS = "weights='FILE' (a file, a folder or an https URL), weights=False for random values, or no weights= for the declared ones"


def checked_kind(given: object, owner: str) -> bool | str | PathLike[str] | None:
    """Return the value of ``weights=`` where its type is one that is read; a bool of numpy as Python's.

    Raises:
        OptionError: If it is of another type, such as a state dict, with what to give instead.
    """
    if given is None or isinstance(given, bool | str | PathLike):
        return given
    kind = type(given)
    if kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"):
        return bool(given)
    raise OptionError(f"{owner_prefix(owner)}weights is of type {kind.__name__}; {_instead(given) or f'give {_WAYS}'}")


def given_weights(given: str | PathLike[str], owner: str) -> Weights:
    """Return the declaration of weights that a user names by a path or a URL; asks no server.

    Raises:
        WeightsNotFoundError: If there is no such file.
        WeightsError: If it is of a format that is not read, or the URL may not be fetched.
    """
    text = str(given)
    if not text:
        raise WeightsNotFoundError(f"{owner_prefix(owner)}weights is empty; give {_WAYS}")
    if not URL.match(text):
        return Weights(file=str(_local(text, owner)))
    if "://" not in text:
        raise WeightsError(f"{owner_prefix(owner)}{text!r} was a URL that lost a slash as a Path; give it as text")
    if not text.lower().startswith(("https://", "http://")):
        raise WeightsError(f"{owner_prefix(owner)}{text!r} is not fetched: give an https URL, or download the file and give its path")
    checked_name(text, owner)
    check_format(Path(urlsplit(text).path), owner)  # before gigabytes are fetched
    return Weights(url=text)


def _local(text: str, owner: str) -> Path:
    """Return the weights file at a path; for a word that is no path, the error says what is meant by it here."""
    try:
        return local_file(Path(text), owner)
    except WeightsNotFoundError as error:
        hint = "" if os.path.exists(text) else _meant(text, owner)  # noqa: PTH110
        raise WeightsNotFoundError(f"{error}; {hint}") if hint else error from None


def _meant(text: str, owner: str) -> str:
    """Return what is given here for a word that other libraries take for weights, or an empty string."""
    member, word = _MEMBER.fullmatch(text), text.lower()
    if member:
        name = _of_torchvision(member["type"].lower() if member["type"] else "NAME", member["member"])
        return f"{name}, see zoo list torchvision; no weights= takes the declared ones"
    if word in _RANDOM:
        return "weights=False (--weights none) starts from random values"
    if word in _PUBLISHED or word.startswith("imagenet"):
        return "the declared pretrained weights are taken without weights= (--weights); zoo list shows the names of others"
    if _NAME.fullmatch(text) and not word.endswith((".safetensors", *CHECKPOINTS)) and not Path(text).parent.is_dir():
        return f"a backbone with its weights is given as the name, zoo.get({text!r}), and a repository of the Hub as 'hf/{text}'"
    return ""


def _of_torchvision(architecture: str, member: str) -> str:
    """Return the name of a backbone with a member of an enumeration of torchvision as its weights, in a clause."""
    tag = "" if member == "DEFAULT" else f".{member.lower()}"
    return f"weights of torchvision are part of a name: zoo.get('torchvision/{architecture}{tag}')"


def _instead(given: object) -> str:
    """Return what to give instead of an object that holds, opens or declares weights, or an empty string."""
    kind = type(given)
    member = getattr(given, "name", None)
    if kind.__name__.endswith("_Weights") and isinstance(member, str):
        return _of_torchvision(kind.__name__.removesuffix("_Weights").lower(), member)
    if isinstance(given, Mapping) or callable(getattr(given, "state_dict", None)):
        state = "STATE" if isinstance(given, Mapping) else "MODULE.state_dict()"
        return f"save it, safetensors.torch.save_file({state}, 'FILE.safetensors'), and give weights='FILE.safetensors'"
    if isinstance(given, Weights):
        place = given.url or (given.file if not given.repo else "")
        return f"give weights={place!r}" if place else f"a repository of the Hub is given as the name: zoo.get('hf/{given.repo}')"
    spec = getattr(given, "spec", None)
    if spec is not None and hasattr(spec, "weights"):
        return f"a backbone is adapted as it is; to give it other weights: {_WAYS}"
    if hasattr(given, "read"):
        path = getattr(given, "name", None)
        return f"give the path of the file: weights={path!r}" if isinstance(path, str) else "give the path of its file"
    return ""
