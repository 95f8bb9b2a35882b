"""Errors for every mistake of a user, one class per kind, and helpers for their messages.

Each class but ``InterruptedRunError`` has a builtin second parent, so ``except ValueError`` and ``except ZooError`` both catch it.
The command line prints these without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import contains
from typing import Any, ParamSpec, TypeVar

Kind = TypeVar("Kind")
Given = ParamSpec("Given")
Result = TypeVar("Result")


_MAX_MESSAGE = 12_000  # characters of a message
_MAX_EXAMPLE = 400


# Control characters but tab and line feed, marks that reverse the direction of text, and bytes of a name that are not UTF-8.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}
_CONTROLS |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_CONTROLS |= {code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)}


def printable(text: str) -> str:
    """Return a text for a terminal, with control characters as escapes: names of files, classes and plugins may hold any."""
    return text if text.isprintable() else text.translate(_CONTROLS)


class ZooError(Exception):
    """A mistake of the user, a file or a plugin, with a remedy; never a bug of zoo."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message; of a very long one its beginning and its end, where the remedy is."""
        text = printable(super().__str__())
        if len(text) <= _MAX_MESSAGE:
            return text
        head, tail = _MAX_MESSAGE * 3 // 4, _MAX_MESSAGE // 5
        return f"{text[:head]} … ({len(text) - head - tail} more characters) … {text[-tail:]}"


class UnknownBackboneError(ZooError, LookupError):
    """No plugin and no registry file knows this backbone."""

    exit_code = 2


class AmbiguousNameError(ZooError, LookupError):
    """A name that matches more than one plugin or backbone."""

    exit_code = 2


class UnknownGroupError(ZooError, LookupError):
    """A layer group that the backbone does not have."""

    exit_code = 2


class DeclarationError(ZooError, ValueError):
    """A declaration (backbone, head, input, weights) that contradicts itself."""


class RegistryFileError(ZooError, ValueError):
    """A ``registry.toml`` that cannot be read or names things that do not exist."""


class PluginError(ZooError, RuntimeError):
    """A plugin that failed to load, or broke the contract of its hooks."""


class LayerGroupError(ZooError, ValueError):
    """Layer groups that are not a partition of the backbone."""


class WeightsError(ZooError, ValueError):
    """A weights file that is damaged, of an unsupported format, or different from its pin."""


class CoverageError(WeightsError):
    """Weights that do not fill the backbone they are loaded into."""


class WeightsNotFoundError(ZooError, FileNotFoundError):
    """Weights that are neither on disk nor can be downloaded."""


class OptionError(ZooError, ValueError):
    """An option that does not exist or is out of range."""

    exit_code = 2


class MissingExtraError(ZooError, ImportError):
    """A feature whose optional dependency is not installed."""


class DataError(ZooError, ValueError):
    """A dataset that cannot be used: empty, without labels, or with labels outside the classes."""


class HoldOutError(DataError):
    """Data of which no samples can be held out for validation.

    Attributes:
        fault: What is wrong, without the remedy, which differs where training without validation is no choice.
    """

    def __init__(self, fault: str, remedy: str = "") -> None:
        self.fault, self.remedy = fault, remedy
        super().__init__(f"{fault}; {remedy}" if remedy else fault)

    def add(self, fact: str) -> None:
        """Add a fact to the fault, in place."""
        self.__init__(f"{self.fault}; {fact}", self.remedy)  # type: ignore[misc]  # the text of an exception is that of its arguments


class LeakError(DataError):
    """Validation or test data that share samples or groups with the training data."""

    exit_code = 3


class CorruptInputError(ZooError, OSError):
    """A sample that cannot be decoded."""


class OwnPartError(OptionError, DataError):
    """A function or an object of the user's own (``on_epoch``, a metric, a loss, an augmentation, a tracker) that raises.

    Attributes:
        epoch: Epoch of a run that it was called for, counted from 1; None where it is the one that is running.
    """

    exit_code = 1
    epoch: int | None = None

    @classmethod
    def of(cls, part: str, error: Exception, note: str = "") -> OwnPartError:
        """Return the error of a part, such as ``on_epoch (stop)``, that raised another one."""
        return cls(f"{part} failed with {type(error).__name__}: {error}{note}")


class OutputExistsError(ZooError, FileExistsError):
    """An output that exists and would be overwritten."""


class OutputPermissionError(ZooError, PermissionError):
    """An output that cannot be written."""


class SavedModelError(ZooError, ValueError):
    """A saved model or checkpoint directory that is incomplete or was made for something else."""


class TrainingError(ZooError, RuntimeError):
    """A run that cannot go on, for example because its loss is not finite."""


class RankError(ZooError, RuntimeError):
    """A run of several ranks in which another rank failed or no longer responds."""


class LoaderError(ZooError, RuntimeError):
    """A loader process that died or hangs."""


class DiskFullError(ZooError, OSError):
    """A file that cannot be written because the disk is full."""


class RunLockedError(ZooError, BlockingIOError):
    """A folder that another run is using."""


class InterruptedRunError(KeyboardInterrupt):
    """A run stopped by a signal, after its checkpoint was written.

    No ``Exception``, so that a sweep that goes on after errors of single runs ends here.

    Attributes:
        exit_code: That of the process.
        place: Where the run stopped, without how it goes on, for runs that are part of something larger; or nothing.
        out_of_time: Whether it was stopped because its share of a budget was over, and not by a signal.
    """

    exit_code = 130
    place = ""
    out_of_time = False


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """Return the candidates most similar to ``name``, best first, at most ``limit``."""
    pool = {candidate.lower(): candidate for candidate in candidates}
    return [pool[match] for match in _close_matches(name.lower(), pool, limit)]


def _close_matches(word: str, candidates: Collection[str], limit: int, cutoff: float = 0.6) -> list[str]:
    """Return what ``difflib.get_close_matches`` does, in a fraction of its time where there are 100,000 candidates.

    The ratio of two words is at most the share of letters that they have in common, whatever their order. It is computed for the
    candidates with the largest bounds only, until no further one can be among the best.
    """
    sizes = {size for size in set(map(len, candidates)) if size and 2.0 * min(size, len(word)) / (size + len(word)) >= cutoff}
    fitting = [candidate for candidate in candidates if len(candidate) in sizes]
    common = zip(_letters_in_common(word, fitting), fitting, strict=True)
    bounds = [(2.0 * number / (len(word) + len(candidate)), candidate) for number, candidate in common]
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(word)
    best: list[tuple[float, str]] = []
    for bound, candidate in sorted(((bound, one) for bound, one in bounds if bound >= cutoff), reverse=True):
        if len(best) == limit and (bound, candidate) < best[-1]:
            break
        matcher.set_seq1(candidate)
        ratio = matcher.ratio()
        if ratio >= cutoff:
            best = sorted([*best, (ratio, candidate)], reverse=True)[:limit]
    return [candidate for _, candidate in best]


def _letters_in_common(word: str, candidates: Sequence[str]) -> Iterator[int]:
    """Yield how many letters each candidate shares with a word, a column per letter: no loop in Python over the candidates."""
    columns = [
        map(contains, candidates, repeat(letter)) if number == 1 else map(min, map(str.count, candidates, repeat(letter)), repeat(number))
        for letter, number in Counter(word).items()
    ]
    return map(sum, zip(*columns, strict=True))


def did_you_mean(name: str, candidates: Iterable[str], limit: int = 1) -> str:
    """Return `` (did you mean 'x'?)`` with the nearest candidates, or an empty string."""
    matches = nearest(name, candidates, limit)
    return f" (did you mean {' or '.join(map(repr, matches))}?)" if matches else ""


LISTED = 12  # most names of columns, splits, classes or groups in a message that says what there is


def examples(items: Sequence[object], limit: int = 4) -> str:
    """Return at most ``limit`` items, comma separated, and the number of further ones; a very long item is cut."""
    shown = ", ".join(_cut(str(item)) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown}, … ({len(items) - limit} more)"


def first_faults(faults: Sequence[str], limit: int = 4) -> list[str]:
    """Return at most ``limit`` faults for ``fault_list``, and a line with the number of further ones."""
    return [*faults[:limit], *([f"… and {len(faults) - limit} more"] if len(faults) > limit else [])]


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_EXAMPLE else f"{text[:_MAX_EXAMPLE]}…"


class FaultList(str):
    """The message of ``fault_list``, with its parts for a longer list.

    Attributes:
        faults: The faults, each of which names its culprit.
        remedy: The last line, or nothing.
    """

    faults: Sequence[str] = ()
    remedy = ""


def fault_list(headline: str, faults: Sequence[str], remedy: str = "", *, culprit: str = "") -> FaultList:
    """Return one message for many faults: the headline, a line per fault, the remedy.

    Args:
        headline: The first line, which a longer list leaves out.
        faults: The faults.
        remedy: The last line, or nothing.
        culprit: What the faults are of, where only the headline names it: put before each in a longer list.
    """
    lines = [headline, *(f"  - {fault}" for fault in faults)]
    message = FaultList("\n".join([*lines, remedy] if remedy else lines))
    message.faults, message.remedy = [f"{culprit}: {fault}" if culprit else fault for fault in faults], remedy
    return message


def fault_message(headline: str, faults: Sequence[str]) -> str:
    """Return the only fault, or the ``fault_list`` of several."""
    return faults[0] if len(faults) == 1 else fault_list(headline, faults)


def faults_of(error: ZooError) -> tuple[list[str], str]:
    """Return the faults that an error lists, or its message as the only one, and the remedy of the list, or nothing."""
    message = error.args[0] if error.args else ""
    return ([*message.faults], message.remedy) if isinstance(message, FaultList) else ([str(error)], "")


def refusals(check: Callable[..., object], *arguments: object) -> list[str]:
    """Return the faults of the ``OptionError`` that a check raises, the last one with the remedy; empty if it passes."""
    try:
        check(*arguments)
    except OptionError as error:
        faults, remedy = faults_of(error)
        return [*faults[:-1], f"{faults[-1]}. {remedy}" if remedy else faults[-1]]
    return []


def check_together(headline: str, *checks: Callable[[], Any]) -> list[Any]:
    """Run checks and return their results, or raise the error of the one that fails, or an ``OptionError`` with the faults of all that do.

    Args:
        headline: The first line of the list, in place of those of the lists that checks raise.
        *checks: Functions that raise a ``ZooError`` where something is wrong.

    Raises:
        ZooError: The only error, as it is.
        OptionError: For two and more.
    """
    results, errors = list[Any](), list[ZooError]()
    for check in checks:
        try:
            results.append(check())
        except ZooError as error:
            errors.append(error)
    if len(errors) > 1:
        lists = [faults_of(error) for error in errors]
        faults = dict.fromkeys(fault.replace("\n", "\n  ") for found, _ in lists for fault in found)
        raise OptionError(fault_list(headline, list(faults), "\n".join(filter(None, (remedy for _, remedy in lists))))) from errors[0]
    if errors:
        raise errors[0]
    return results


def owner_prefix(owner: str) -> str:
    """Return the beginning of a message that names its owner, ``owner: ``, or an empty string."""
    return f"{owner}: " if owner else ""


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 file``, ``3 files``, ``2 classes``, ``2 queries``."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"


def checked_fields(kind: type[Kind]) -> type[Kind]:
    """Make a dataclass raise ``OptionError`` for an unknown or missing field, with the nearest one, not ``TypeError``."""
    setattr(kind, "__init__", checked_arguments(kind.__name__)(kind.__init__))  # noqa: B010 - mypy takes no assignment to a method
    return kind


def checked_arguments(called: str, remedy: str = "") -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Return a decorator with which a call with arguments that a function does not have, or without those it needs, is an ``OptionError``.

    Args:
        called: Name of the function for the user.
        remedy: What to do where too many arguments are given without a name.
    """

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        @functools.wraps(function)
        def checked(*values: Given.args, **given: Given.kwargs) -> Result:
            try:
                return function(*values, **given)
            except TypeError:  # of this call, or of one in the function, which stays what it is
                _check_call(function, called, remedy, values, given)
                raise

        return checked

    return decorate


def _check_call(function: Callable[..., Any], called: str, remedy: str, values: Sequence[Any], given: Mapping[str, Any]) -> None:
    signature = inspect.signature(function)
    known = {name: one for name, one in signature.parameters.items() if name != "self"}
    if not any(one.kind is one.VAR_KEYWORD for one in known.values()):
        check_options(given, known, called)
    try:
        signature.bind(*values, **given)
    except TypeError as error:
        hint = f"; {remedy}" if remedy and "too many" in str(error) else ""
        named = [name if one.default is one.empty and one.kind is not one.KEYWORD_ONLY else f"{name}=…" for name, one in known.items()]
        raise OptionError(f"{called}: {error}; its arguments are: {', '.join(named)}{hint}") from None


def check_options(
    given: Iterable[str], known: Iterable[str], owner: str, *, beside: Iterable[str] = (), remedies: Mapping[str, str] | None = None
) -> None:
    """Check that ``owner`` has all the given options.

    Args:
        given: Names of the given options.
        known: Names of the options that it has.
        owner: Name of the owner of the options, for the message.
        beside: Named arguments of the function, also suggested for a misspelt option.
        remedies: What to do instead of options that many expect and ``owner`` does not have; told in place of the nearest name.

    Raises:
        OptionError: Naming each unknown option with its remedy or its nearest known one.
    """
    known, beside, told = sorted(known), list(beside), remedies or {}
    unknown = [
        f"{name!r} ({told[name]})" if name in told else f"{name!r}{did_you_mean(name, [*known, *beside])}"
        for name in given
        if name not in known
    ]
    if unknown:
        told_all = all(name in told for name in given if name not in known)
        listed = "" if told_all else f"; it has: {', '.join(known) or 'none'}"
        raise OptionError(f"{owner} has no option {', '.join(unknown)}{listed}")
