"""An argparse parser that suggests the nearest name for every mistake.

Not typer, whose import alone takes longer than a listing may.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, TypeVar

from zoo.cli.arguments.meant import NEAREST_COMMANDS, meant_flag, near_flag
from zoo.errors import did_you_mean
from zoo.util.typed_words import join_names

T = TypeVar("T")
_SIZES = "give one such as 224, or height and width such as 224,320"
Commands = Any  # argparse keeps the class of its subparsers private


class Parser(argparse.ArgumentParser):
    """A parser that takes options by their full names only and suggests the nearest one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the options; exit with code 2 and a usage message if they are wrong."""
        options, unknown = self.parse_known_args(list(arguments))
        if unknown:
            command = self._command(options.command)
            known = command._option_string_actions
            # The values of unknown options are left over as well, and are not named.
            culprits = [word for word in unknown if word.startswith("-")] or unknown
            names = [f"{word!r}{meant_flag(word, command) if word.startswith('-') else near_flag(word, known)}" for word in culprits]
            hint = "" if any(word.startswith("-") for word in unknown) else getattr(options, "surplus", "")
            hint = command.joined_values(arguments, unknown) or hint
            command.error(f"zoo {options.command} does not know {', '.join(names)}{hint}")
        return options

    def joined_values(self, arguments: Sequence[str], unknown: Sequence[str]) -> str:
        """Return a hint where unknown words follow the value of an option whose values are joined by commas, else nothing."""
        words = list(arguments)
        for flag, action in self._option_string_actions.items():
            if flag in words and "," in str(action.metavar or ""):
                at = words.index(flag) + 1
                end = next((index for index in range(at, len(words)) if words[index].startswith("-")), len(words))
                if set(unknown) & set(words[at + 1 : end]):
                    return f"; the values of {flag} are joined by commas, without blanks: {flag} {shlex.quote(join_names(words[at:end]))}"
        return ""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and exit with code 2."""
        choice = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        if choice:
            names = list(self._commands())
            near = f" (nearest: {NEAREST_COMMANDS[choice[1]]})" if choice[1] in NEAREST_COMMANDS else did_you_mean(choice[1], names)
            message = f"there is no command {choice[1]!r}{near}; the commands are: {', '.join(names)}"
        if message.endswith("arguments are required: COMMAND"):
            message = f"name a command: {', '.join(self._commands())}"
        self.exit(2, f"error: {_plain(message)}\n{self.prog} --help lists its options\n")

    def _commands(self) -> dict[str, Parser]:
        groups = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return dict(groups[0].choices) if groups else {}

    def flags(self, command: str) -> Collection[str]:
        """Return the flags of a command."""
        return self._command(command)._option_string_actions.keys()

    def _command(self, name: str) -> Parser:
        return self._commands().get(name, self)


def _plain(message: str) -> str:
    """Return argparse's message of a wrong value in words, with the nearest choice."""
    if found := re.fullmatch(r"argument (.*): invalid (int|float) value: ('.*')", message, re.DOTALL):
        return f"argument {found[1]}: {found[3]} is no {'whole number' if found[2] == 'int' else 'number'}"
    if found := re.fullmatch(r"argument (.*): invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL):
        choices = [choice.strip("' ") for choice in found[3].split(",")]
        if len(choices) == 1 and not found[1].startswith("-"):  # a word that stands before the data, as in zoo data check DATA
            near = did_you_mean(found[2], choices)
            return f"there is no word {found[2]!r} here{near}" if near else f"the word {choices[0]!r} is missing before {found[2]!r}"
        return f"argument {found[1]}: it is {found[2]!r}{did_you_mean(found[2], choices)}; it can be: {', '.join(choices)}"
    return message


def whole_or_auto(word: str) -> int | str:
    """Read a whole number, or the word auto."""
    return "auto" if word.lower() == "auto" else _read(int, word, "neither a whole number nor auto")


def number_or_auto(word: str) -> float | str:
    """Read a number, or the word auto."""
    return "auto" if word.lower() == "auto" else _read(float, word, "neither a number nor auto")


def pixels(word: str) -> int | tuple[int, ...]:
    """Read the size of images: ``224``, or ``224,320`` for height and width."""
    sides = [_read(int, side, f"no number of pixels; {_SIZES}") for side in word.split(",")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{word!r} has {len(sides)} numbers; {_SIZES}")
    return tuple(sides) if len(sides) == 2 else sides[0]


def _read(kind: Callable[[str], T], word: str, fault: str) -> T:
    try:
        return kind(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is {fault}") from None


def global_options(parser: argparse.ArgumentParser, *, front: bool) -> None:
    """Add the options that every command takes, before its name (``front``) or after it."""
    group = parser.add_argument_group("global options, before or after the command")
    # The parser of a command overwrites values of the main parser, unless its defaults are suppressed.
    unset = False if front else argparse.SUPPRESS
    where = "registry_before" if front else "registry"
    group.add_argument(
        "--registry", metavar="FILE", dest=where, action="append", default=[], help="a registry.toml to merge over the others"
    )
    for option, text in (("block", "a plugin that is not imported"), ("allow", "import only the plugins named so")):
        where = f"{option}_before" if front else option
        group.add_argument(f"--{option}", metavar="NAME", dest=where, action="append", default=[], help=f"{text}; may be repeated")
    group.add_argument("--no-plugins", action="store_true", default=unset, help="import no plugin but zoo's own")
    group.add_argument("--strict-plugins", action="store_true", default=unset, help="fail if any plugin has a fault")
    group.add_argument("--debug", action="store_true", default=unset, help="show the traceback of an error")
