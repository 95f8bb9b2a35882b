"""Messages with the forms of the command line in place of Python's, for people who type commands.

The library's messages name a remedy as ``resume=True (--resume)``, or as ``image_size=64`` alone, since they are read in both places.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

_VALUE = r"\{[^{}]*\}|\([^()]*\)|\[[^\[\]]*\]|'[^'\n]*'|(?:[^\s,;:()'\[\]{}]*[^\s,;:.()'\[\]{}])?"
_OPTION = rf"(?P<name>[a-z][a-z_]*)=(?P<value>{_VALUE})"
_FLAG = r"--[a-z][a-z-]*[^()\n]*"
# Names in quotes, and whole calls such as zoo.get(NAME, weights=False), stay as they are.
_KEPT = rf"(?<![\w=])'[^'\n]*'(?!\w)|(?<!\w)[\w.]+\((?:[^()\n]|\([^()\n]*\))*\)(?: \((?P<for_call>{_FLAG}|zoo [a-z]+[^()\n]*)\))?"
_FORMS = re.compile(
    rf"{_KEPT}|(?<![\w/.=-]){_OPTION}(?: \((?P<flag>{_FLAG})\)|, on the command line (?P<words>--[a-z-]+ \S+))?"
    rf"|(?<![\w/.=-])(?P<word>[a-z][a-z_]*) \((?P<same>--(?P=word))\)|\((?P<also>[a-z]+), (?P<pair>--(?P=also))\)"
    r"|(?<![\w/.=-])(?P<fact>[a-z]+(?:_[a-z]+)+)(?= is )"
    r"|(?:^|(?<=- ))(?P<subject>[a-z]+)(?= is (?:for |['\d(\[-]))",  # of one word, which in the middle of a sentence may be any
    re.MULTILINE,
)
_WRITTEN = re.compile(r"'[^'\n]*'|-?\d[\d.e+-]*")  # values that are written in the same way on the command line
_SWITCHED = ("True", "False")
_MAPPING = re.compile(r"\{(?:'?[\w-]+'?: (?:'[^',]*'|\w+|…)(?:, )?)+\}")  # of names and columns, without what would need quotes
_PAIR = re.compile(r"'?([\w-]+)'?: '?([^',}]+)'?")
_GROUP_COLUMN = re.compile(r"--columns group=([^\s,;:()'\"]+)(?![^\s;:()])")  # alone: some commands have a flag for it
_LIST = re.compile(r"\['[^',]+'(?:, '[^',]+')*\]")


@dataclass
class _Flags:
    """The flags of the running command."""

    known: Collection[str] = field(default_factory=tuple)


_flags = _Flags()


def use_flags(known: Collection[str]) -> None:
    """Take the flags of the command that runs, such as ``--resume``."""
    _flags.known = known


def as_typed(text: str) -> str:
    """Return a message with ``--resume`` for ``resume=True (--resume)``, and ``--image-size 64`` for ``image_size=64``.

    The subject of ``batch_size is 0`` is named as its flag as well, and ``columns={'label': 'kind'}`` becomes ``--columns label=kind``,
    that of the groups alone ``--group patient`` where the command has this flag. An option of ``fit`` without a flag of its own in the
    running command becomes ``--set dropout=0.1`` where the command has that, and else stays as it is.
    """
    typed = _FORMS.sub(_form, text)
    return _GROUP_COLUMN.sub(r"--group \1", typed) if "--group" in _flags.known else typed


def _form(match: re.Match[str]) -> str:
    if match["pair"]:
        return f"({match['pair']})"
    if match["same"] or match["for_call"]:
        return match["same"] or match["for_call"]
    if fact := match["fact"] or match["subject"]:
        return _own_flag(fact, "") or match[0]
    if not match["name"]:
        return match[0]
    named, value = match["flag"] or match["words"], match["value"]
    if not named and (typed := _columns(match["name"], value)):
        return typed
    if not named and not (_WRITTEN.fullmatch(value) or value in _SWITCHED):
        return match[0]  # it may be a part of a name, and a value without its like on the command line would get lost
    flag = _of_fuse(match["name"], named, value) or named or _own_flag(match["name"], match["value"])
    if not flag:
        return f"--set {match['name']}={_plain(value)}" if _is_set(match["name"], value) else match[0]
    flag = flag.removesuffix(" on the command line")
    if " " in flag or not _WRITTEN.fullmatch(value):
        return flag
    return f"{flag} {value if ' ' in value else value.strip(chr(39))}"


def _of_fuse(name: str, named: str | None, value: str) -> str:
    """Return an option as zoo fuse takes it, which has weights for each part, and its training's run beside --out; else nothing."""
    if named == "--weights none" and "--weights" not in _flags.known:
        return " or ".join(f"{flag} none" for flag in sorted(_flags.known) if flag.endswith("-weights"))
    of_run = named == "--resume" or (name == "out" and not named)
    is_fuse = "--set" in _flags.known and "--resume" not in _flags.known
    return f"--set {name}={_plain(value)}" if of_run and is_fuse else ""


def _columns(name: str, value: str) -> str:
    """Return a mapping of columns or a list of names as a flag of the running command takes them; empty where it cannot."""
    flag = _own_flag(name, value)
    if not flag or not (_MAPPING.fullmatch(value) or _LIST.fullmatch(value)):
        return ""
    words = ["=".join(pair) for pair in _PAIR.findall(value)] if value[0] == "{" else re.findall(r"'([^']+)'", value)
    typed = ",".join(words)
    return f"{flag} {f'{typed!r}' if ' ' in typed else typed}"


def _is_set(name: str, value: str) -> bool:
    """Return whether an option of ``fit`` is given by ``--set`` in the running command."""
    if "--set" not in _flags.known or " " in value:
        return False
    from zoo.engine.options.config import OPTIONS  # here, as few messages need it

    return name in OPTIONS


def _plain(value: str) -> str:
    """Return a value as it is typed, and as TOML has it: without quotes, ``true`` and ``false`` in lower case."""
    return value.lower() if value in _SWITCHED else value.strip("'")


def _own_flag(name: str, value: str) -> str:
    """Return the flag of an option in the running command; empty if it has none."""
    flag = f"--{'no-' * (value == 'False')}{name.replace('_', '-')}"
    return flag if flag in _flags.known else ""
