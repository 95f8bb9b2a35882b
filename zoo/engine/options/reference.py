"""The reference of all options, made from their declarations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from zoo.engine.options.config import DECLARED, Config

LARGE = 1_000_000  # larger upper bounds only catch typing errors and are not shown


def option_table(section: str) -> str:
    """Return the options of a section of docs/options.md as a table in Markdown."""
    lines = ["| option | meaning | values | default |", "|---|---|---|---|"]
    for name, option in DECLARED.items():
        if option.section == section:
            lines.append(f"| `{name}` | {option.help} | {_values(name)} | {option.default or _default(name)} |")
    return "\n".join(lines)


def short_help(name: str) -> str:
    """Return what an option means, for ``--help``: in one clause, without links."""
    text = DECLARED[name].help.partition(";")[0].partition(". ")[0].replace("`", "").replace("%", "%%")
    values = _values(name).replace("`", "") if DECLARED[name].flag != "-" else ""
    return text + (f" ({values})" if values else "")


def _values(name: str) -> str:
    """Return the values that an option takes: the words of a choice, the range of a number."""
    field = Config.model_fields[name]
    words = list(dict.fromkeys(_words(field.annotation)))
    bounds = {type(bound).__name__: _end(bound) for bound in (*field.metadata, *_bounds(field.annotation)) if _end(bound) is not None}
    low, high = bounds.get("Ge", bounds.get("Gt")), bounds.get("Le", bounds.get("Lt"))
    if low is not None and high is not None and high < LARGE:
        left, right = ("[" if "Ge" in bounds else "("), ("]" if "Le" in bounds else ")")
        words.append(f"in {left}{low}, {high}{right}")
    elif low is not None:
        words.append(f"{low} or more" if "Ge" in bounds else f"above {low}")
    return ", ".join(words)


def _words(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (f"`{word}`" for word in get_args(annotation))
    elif annotation is bool:
        yield "true or false"
    else:
        for part in get_args(annotation):
            yield from _words(part)


def _bounds(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield from _bounds(part)
        yield from getattr(part, "metadata", ())


def _end(bound: Any) -> Any:
    """Return the number of a bound; None if it is none."""
    return next((getattr(bound, name) for name in ("ge", "gt", "le", "lt") if hasattr(bound, name)), None)


def _default(name: str) -> str:
    value = Config.model_fields[name].get_default(call_default_factory=True)
    if value is None:
        return "none"
    return f"`{value}`" if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else f"{value:g}"
