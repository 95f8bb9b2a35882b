"""The flag or command that a mistyped one means: words that people use for it elsewhere, else the nearest name.

Data have the same flag in every command, by their role: ``--valid`` chooses or judges while something is made, ``--test`` measures what is
made and chooses nothing, and what a command is about stands without a flag.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from zoo.errors import nearest
from zoo.models.checks.misplaced import RENAMED

# Words that people type for commands of another name, whose spelling is not near.
NEAREST_COMMANDS = {
    **dict.fromkeys(("fit", "finetune", "fine-tune", "run"), "zoo train"),
    **dict.fromkeys(("test", "evaluate", "score", "validate"), "zoo eval"),
    **dict.fromkeys(("infer", "inference", "classify"), "zoo predict"),
    **dict.fromkeys(("features", "extract", "encode"), "zoo embed"),
    **dict.fromkeys(("search", "find", "models", "backbones", "ls"), "zoo list"),
    **dict.fromkeys(("info", "describe", "inspect", "summary"), "zoo show NAME"),
    **dict.fromkeys(("install", "fetch", "pull", "get"), "zoo download"),
    **dict.fromkeys(("check", "audit", "check-data"), "zoo data check"),
    **dict.fromkeys(("help", "commands"), "zoo --help"),
    "report": "zoo show RUN says how a run came about, zoo compare RUN OTHER what it reached, zoo eval RUN DATA measures it",
    "version": "zoo --version",
}
# Flags by the words that people type for them; the first that the command has is meant.
_FLAGS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        **dict.fromkeys(("on", "eval-data", "held-out", "holdout"), ("--test", "--valid")),
        **dict.fromkeys(("test-data", "test-set"), ("--test",)),
        **dict.fromkeys(("validation", "valid-data", "val-data", "dev", "data"), ("--valid", "--test")),
        **dict.fromkeys(("backbones", "backbone", "models", "names"), ("--candidates",)),
        **dict.fromkeys(("output", "o", "save", "save-to"), ("--out",)),
        **dict.fromkeys(("k", "n-folds", "n-splits"), ("--folds",)),
        **dict.fromkeys(("n-trials", "n"), ("--trials",)),
        **dict.fromkeys(("metric", "metrics"), ("--metric", "--metrics", "--set monitor=NAME")),
        **dict.fromkeys(("labels", "class-names"), ("--classes",)),
        **dict.fromkeys(("force", "f"), ("--overwrite",)),
        **dict.fromkeys(("silent", "q"), ("--quiet",)),
        **dict.fromkeys(("label", "target", "label-column", "target-column", "label-col"), ("--columns label=NAME",)),
        **dict.fromkeys(("text", "text-column", "text-col"), ("--columns text=NAME",)),
        **dict.fromkeys(("group-column", "patient", "groups"), ("--group", "--columns group=NAME")),
        **dict.fromkeys(("gpu", "cuda"), ("--device cuda", "--set device=cuda")),
        "cpu": ("--device cpu", "--set device=cpu"),
    }
)
# Parts of the usage of a command, in which they stand without a flag, by the words that people type for them.
_PLACES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        **dict.fromkeys(("test", "test-data", "on", "valid", "val", "eval-data"), ("MODEL DATA",)),
        **dict.fromkeys(("train", "train-data"), ("NAME DATA", "TRAIN")),
        **dict.fromkeys(("data", "dataset", "data-dir"), ("DATA", "INPUTS")),
        **dict.fromkeys(("input", "inputs", "file", "files", "image", "images", "text", "texts"), ("INPUTS",)),
        **dict.fromkeys(("model", "run", "runs", "checkpoint"), ("MODEL", "NAME", "RUN")),
        **dict.fromkeys(("backbone", "name", "arch"), ("NAME",)),
    }
)
_NO_TEST = "zoo eval MODEL DATA measures on test data"


def meant_flag(word: str, command: argparse.ArgumentParser) -> str:
    """Return what a flag that a command does not have may mean, in brackets; empty if nothing is like it.

    Args:
        word: The flag as typed, with its value where that is joined by ``=``.
        command: The parser of the command.
    """
    known, typed = command._option_string_actions, word.partition("=")[0]
    name = typed.lstrip("-").replace("_", "-")
    if place := _place(name, command):
        return f" (it stands without a flag: {place})"
    if found := _by_set(name, known) or _renamed(name, known):
        return f" (here: {found})"
    if name.startswith("test") and "--valid" in known:
        return f" ({_NO_TEST})"
    return near_flag(name, known)


def near_flag(word: str, known: Collection[str]) -> str:
    """Return the flag whose name is the nearest to a word as a hint, or nothing; the dashes, which all have, do not count."""
    near = nearest(word, [flag.lstrip("-") for flag in known], 1)
    return f" (did you mean '--{near[0]}'?)" if near else ""


def _by_set(name: str, known: Collection[str]) -> str:
    """Return how an option of ``fit`` without a flag of its own is given, or nothing."""
    if "--set" not in known:
        return ""
    from zoo.engine.options.config import OPTIONS  # here, as its library takes long to import

    option = name.replace("-", "_")
    return f"--set {option}=…" if option in OPTIONS else ""


def _renamed(name: str, known: Collection[str]) -> str:
    """Return the flag for a word of another library or of everyday use, or nothing."""
    if meant := next((flag for flag in _FLAGS.get(name, ()) if flag.partition(" ")[0] in known), ""):
        return meant
    option = RENAMED.get(name.replace("-", "_"), "")
    flag = f"--{option.replace('_', '-')}"
    return flag if option and flag in known else f"--set {option}=…" if option and "--set" in known else ""


def _place(name: str, command: argparse.ArgumentParser) -> str:
    """Return the usage of a command in which what is named so stands without a flag, or nothing."""
    usage = " ".join([command.prog, *(str(action.metavar) for action in command._get_positional_actions())])
    return usage if any(place in usage for place in _PLACES.get(name, ())) else ""
