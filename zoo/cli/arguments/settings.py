"""The settings of ``zoo train``: flags, then a config file, then defaults, all checked before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import OptionError, count, did_you_mean, fault_list
from zoo.tasks.find import find_task
from zoo.util.toml_files import read_toml
from zoo.util.typed_words import plain_value, split_names

# Keys of a config file besides the options of the recipe. TABLES are tables there.
PLAIN = (
    "valid",
    "weights",
    "task",
    "classes",
    "head",
    "in_chans",
    "allow_partial",
    "recipe",
    "objective",
    "budget",
    "baselines",
    "out",
    "resume",
    "quiet",
)
SWITCHES = ("allow_partial", "baselines", "resume", "quiet")
TABLES = ("columns", "head_options", "model_options", "objective_options")


def merge(config: Path | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the config file, overridden by the given flags.

    Args:
        config: A TOML file, or None.
        flags: Settings by name; None and empty mappings count as not given.

    Returns:
        ``PLAIN`` and ``TABLES`` by name, the given options of ``fit`` under ``fit``, and their resolved configuration under
        ``config``. With the recipe ``auto`` the options of its candidates are under ``auto``, and the
        configuration is that of the default recipe.

    Raises:
        OptionError: Listing every unknown key, with its nearest, and every value out of range.
    """
    from zoo.engine.options.config import OPTIONS
    from zoo.engine.options.recipes import default_recipe
    from zoo.engine.options.resolve import resolve
    from zoo.transfer.recipes import OWN_RECIPES

    given = {key: value for key, value in flags.items() if value is not None and value != {}}
    options = dict(given.pop("options", {}))
    content = _read(config, OPTIONS) if config else {}
    own = _take_objective_options(content | given, options, OPTIONS)
    _refuse_flags(options, given)
    given = content | given | own
    settings: dict[str, Any] = {key: given.get(key) for key in PLAIN} | {key: dict(given.get(key) or {}) for key in TABLES}
    settings["fit"] = {key: value for key, value in given.items() if key not in settings} | options
    settings["task"] = settings["task"] or "single-label"
    find_task(settings["task"])
    chosen = settings["fit"] | {"columns": settings["columns"]}
    if settings["recipe"] == "auto":
        settings["auto"], settings["recipe"] = dict(chosen), None
        chosen = _checked_auto(chosen | {"objective": settings["objective"]}, settings["budget"], settings["task"])
    elif settings["budget"] is not None:
        raise OptionError("--budget is the time of --recipe auto; give both, or --epochs")
    recipe = settings["recipe"] or OWN_RECIPES.get(settings["objective"]) or default_recipe(settings["task"])
    settings["config"] = resolve(recipe, chosen, task=settings["task"], check_optimizer=_check_optimizer)
    return settings


def _take_objective_options(given: Mapping[str, Any], options: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Remove what ``--set`` gives for the objective, in place: all but the options of a run; a flag's name where it has such an option.

    Returns:
        ``objective_options`` with them; empty without an objective.

    Raises:
        OptionError: If there is no such objective, or its options are given without one.
    """
    from zoo.transfer.names import check_name, option_names

    objective, table = given.get("objective"), dict(given.get("objective_options") or {})
    if objective is None:
        if table:
            raise OptionError('[objective_options] are given without an objective; name one as objective = "NAME", or --objective NAME')
        return {}
    check_name(objective)
    flags = {*PLAIN, *TABLES}
    if not flags.isdisjoint(options):
        flags -= set(option_names(objective))
    own = [name for name in options if name not in set(known) | flags]
    return {"objective_options": table | {name: options.pop(name) for name in own}}


def _checked_auto(options: Mapping[str, Any], budget: Any, task: str) -> dict[str, Any]:
    """Check the options of ``--recipe auto``, and return those of its default recipe."""
    from zoo.engine.options.recipes import default_recipe
    from zoo.select.recipe_search.candidates import check_auto, options_for
    from zoo.select.recipe_search.halving import seconds_of

    check_auto(options)
    seconds_of(budget)
    return options_for(default_recipe(task), options)


def flagged() -> list[str]:
    """Return the options of a run that have a flag of their own."""
    from zoo.engine.options.config import DECLARED

    return [name for name, option in DECLARED.items() if option.flag and name not in TABLES]


def _check_optimizer(name: str, options: Mapping[str, Any]) -> None:
    from zoo.engine.optim.optimizer import check_optimizer  # imports torch, which known names do not need

    check_optimizer(name, options)


def _refuse_flags(options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise for ``--set`` with a setting that is not an option of the recipe, or whose flag was given too."""
    faults = []
    for name in options:
        flag = {"head_options": "--head-set", "model_options": "--model-set", "objective_options": "--set KEY=VALUE"}.get(
            name, f"--{name.replace('_', '-')}"
        )
        if name in (*PLAIN, *TABLES):
            faults.append(f"--set {name}: give it as {flag}")
        elif name in given:
            faults.append(f"--set {name}: {flag} is given as well; leave one of them out")
    if faults:
        raise OptionError("; ".join(faults))


def pairs(
    words: Iterable[str] | None, flag: str, *, parse: Callable[[str], Any] = plain_value, last: bool = False, form: str = "key=value"
) -> dict[str, Any]:
    """Parse ``key=value`` arguments.

    Args:
        words: The arguments.
        flag: Their flag, for messages.
        parse: Parses a value.
        last: Whether the last ``=`` divides, for keys that may have one.
        form: What an argument looks like, for messages.

    Raises:
        OptionError: If an argument has no ``=``.
    """
    parsed: dict[str, Any] = {}
    for word in words or ():
        key, sign, value = word.rpartition("=") if last else word.partition("=")
        if not (sign and key.strip()):
            raise OptionError(f"{flag} {word!r} is not of the form {form}")
        parsed[key.strip()] = parse(value)
    return parsed


def columns(words: str | None) -> dict[str, str]:
    """Parse ``file_name=file,group=patient_id``."""
    return pairs(split_names(words, "--columns") if words else (), "--columns", parse=str.strip, form="ROLE=COLUMN, such as label=kind")


def window(words: str | None) -> tuple[float, float] | None:
    """Parse ``40,400``, the centre and width of a window; None if nothing is given.

    Raises:
        OptionError: If they are not two numbers.
    """
    if words is None:
        return None
    try:
        centre, width = map(float, words.split(","))
    except ValueError as error:
        raise OptionError(f"--window {words!r} is not of the form CENTRE,WIDTH, such as 40,400") from error
    return centre, width


def thresholds(words: str | None) -> float | dict[str, Any] | None:
    """Parse ``0.5``, or ``cat=0.3,dog=0.7``; None if nothing is given."""
    if words is None:
        return None
    try:
        return float(words)
    except ValueError:
        return pairs(split_names(words, "--thresholds"), "--thresholds", last=True)


def names(words: str | None, flag: str = "--classes") -> list[str] | None:
    """Parse ``Pneumonia,No_findings``, a name with a comma as ``"Pneumonia, viral",No_findings``; None if nothing is given.

    Raises:
        OptionError: If a name is empty, or a quotation mark is left open.
    """
    parsed = None if words is None else split_names(words, flag)
    if parsed is not None and not all(parsed):
        raise OptionError(f"{flag} {words!r} is not of the form A,B: a name is empty")
    return parsed


def _read(path: Path, options: Iterable[str]) -> dict[str, Any]:
    try:
        content = read_toml(path)
    except (OSError, ValueError) as error:
        raise OptionError(f"the config {str(path)!r} cannot be read: {error}") from error
    known = list(dict.fromkeys([*PLAIN, *TABLES, *options]))
    faults = [f"there is no key {key!r}{did_you_mean(key, known)}" for key in content if key not in known]
    faults += [f"{key} is {content[key]!r}; it must be a table" for key in TABLES if not isinstance(content.get(key, {}), dict)]
    faults += [_fault(key, content[key]) for key in PLAIN if key in content]
    faults = list(filter(None, faults))
    if faults:
        culprit = f"the config {str(path)!r}"
        headline = f"{culprit} has {count(len(faults), 'fault')}"
        raise OptionError(fault_list(headline, faults, f"The keys are: {', '.join(known)}", culprit=culprit))
    return content


def _fault(key: str, value: Any) -> str:
    """Return the fault of one plain value; empty if there is none."""
    if key in SWITCHES:
        good, kind = isinstance(value, bool), "true or false"
    elif key == "in_chans":
        good, kind = type(value) is int and value > 0, "a number, 1 or more"
    elif key == "valid":
        good, kind = isinstance(value, str) or value is False, "text, or false for none"
    elif key == "classes":
        good, kind = isinstance(value, list) and all(isinstance(name, str) for name in value), "a list of names"
    else:
        good, kind = isinstance(value, str) or (key == "weights" and value is False), "text"
    return "" if good else f"{key} is {value!r}; it must be {kind}"
