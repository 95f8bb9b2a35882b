"""The backbones that are ranked: named ones, or a short prior list for the kind of data. No torch here."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import OptionError, UnknownBackboneError, check_options, check_together, fault_list, fault_message
from zoo.models.backbone import Backbone
from zoo.models.find import find_backbone
from zoo.registry.registry import default_registry
from zoo.select.ranking.limits import Limits
from zoo.select.recipe_search.halving import seconds_of
from zoo.tasks.find import find_task
from zoo.tasks.several import SeveralTasks
from zoo.util.toml_files import read_toml

PRIORS = Path(__file__).with_name("priors.toml")
# Options of a run that mean something here.
OPTIONS = (
    *("columns", "valid_split", "seed", "allow_leak", "drop_other_classes", "label_columns", "uncertain", "root"),
    *("on_corrupt", "max_corrupt", "image_size", "max_length", "window", "batch_size", "device", "precision", "workers", "monitor"),
)
MODALITIES = ("image", "text", "volume")  # the order in which data are tried
_SIGNS = "*?["
_SIGN = re.compile(r"[^A-Za-z0-9_.-]+")


def checked_candidates(
    candidates: Any,
    task: Any,
    options: Collection[str],
    *,
    limits: Mapping[str, Any],
    budget: Any,
    top: Any,
    more: Sequence[Callable[[], object]] = (),
) -> list[Backbone] | None:
    """Check the arguments of a ranking, which needs neither torch nor data, and return the named candidates, None for the prior list.

    Args:
        candidates: As for ``rank``.
        task: Name of the task.
        options: Names of the given options of a run.
        limits: The fields of ``Limits``.
        budget: A duration, or None.
        top: How many candidates may be fine-tuned.
        more: Further checks, which raise a ``ZooError``.

    Raises:
        ZooError: The only mistake, or an ``OptionError`` with all of them.
    """
    found: list[Backbone] | None
    *_, found = check_together(
        "a ranking cannot run with these:",
        *more,
        lambda: check_options(options, OPTIONS, "rank() (zoo rank)"),
        lambda: _check_task(task),
        lambda: _check_top(top),
        lambda: Limits(**limits),
        lambda: seconds_of(budget),
        lambda: None if candidates is None else named(candidates),
    )
    return found


def _check_task(task: Any) -> None:
    kind = find_task(task)
    if kind.per_token:
        raise OptionError(f"task {task!r}: rank scores one vector per sample, and this task has one per word")
    if isinstance(kind, SeveralTasks):
        raise OptionError(f"rank orders backbones by one task, and there are several; name one of them: {', '.join(kind.names)}")


def _check_top(top: Any) -> None:
    if isinstance(top, bool) or not isinstance(top, int) or top < 0:
        raise OptionError(f"top (--top) is {top!r}; it is how many candidates may be fine-tuned, 0 or more")


def named(wanted: str | Backbone | Iterable[str | Backbone]) -> list[Backbone]:
    """Return the backbones that names, globs and folders of saved models mean, each once, in this order.

    Saved models in folders of one name are called by the folders above as well, so that no two candidates have one name.

    Raises:
        UnknownBackboneError: If one matches nothing, with the nearest names; all of them at once.
        OptionError: If there is none, or two different ones have one name.
    """
    found: list[Backbone] = []
    faults = []
    for one in [wanted] if isinstance(wanted, str | Backbone) else wanted:
        try:
            matches = [one] if isinstance(one, Backbone) else _matches(str(one))
        except UnknownBackboneError as error:
            faults.append(str(error))
            continue
        found += [backbone for backbone in matches if not any(_is_same(backbone, other) for other in found)]
    if faults:
        raise UnknownBackboneError(fault_message("candidates that nothing provides:", faults))
    if not found:
        raise OptionError("candidates is empty; name some, such as 'timm/resnet*', or leave it out for a prior list")
    return _named_apart(found)


def _is_same(one: Backbone, other: Backbone) -> bool:
    if one is other:
        return True
    if one.folder and other.folder and one.folder.resolve() != other.folder.resolve():
        return False
    values = [(each.spec, each.pretrained, each.is_saved) for each in (one, other)]
    return type(one) is type(other) is Backbone and values[0] == values[1]


def _named_apart(backbones: Sequence[Backbone]) -> list[Backbone]:
    """Return the backbones, those of saved models with as many folders in their names as tell them apart.

    Raises:
        OptionError: If two others have one name.
    """
    found, faults = list(backbones), []
    for name in dict.fromkeys(one.spec.name for one in backbones):
        places = [place for place, one in enumerate(backbones) if one.spec.name == name]
        folders = {place: backbones[place].folder for place in places if backbones[place].folder is not None}
        if len(places) > 1 and len(folders) < len(places):
            faults.append(f"{len(places)} different candidates are called {name!r}")
        elif len(places) > 1:
            parts = {place: folder.resolve().parts for place, folder in folders.items()}  # type: ignore[union-attr]  # none is None
            depth = next(count for count in range(2, 999) if len({parts[place][-count:] for place in places}) == len(places))
            for place in places:
                found[place] = copy.copy(backbones[place])
                found[place].spec = backbones[place].spec.replace(name="saved/" + _SIGN.sub("-", "-".join(parts[place][-depth:])))
    if faults:
        remedy = "Rank them in calls of their own; networks of yours have names by zoo.wrap(…, name=…)"
        raise OptionError(fault_list("candidates cannot be told apart:", faults, remedy))
    return found


def _matches(name: str) -> list[Backbone]:
    if not any(sign in name for sign in _SIGNS):
        return [find_backbone(name)]
    names = dict.fromkeys(entry.spec.name for entry in default_registry().search(name))
    return [find_backbone(one) for one in names]


def priors(modality: str) -> list[Backbone]:
    """Return the prior list for a kind of data, as far as it is installed, the most promising first.

    Raises:
        UnknownBackboneError: If nothing of it is installed, with the plugin that provides it.
    """
    names: Sequence[str] = read_toml(PRIORS)[modality]
    found, errors = [], []
    for name in names:
        try:
            found.append(find_backbone(name))
        except UnknownBackboneError as error:
            errors.append(error)
    if not found:
        raise UnknownBackboneError(f"nothing of the prior list for {modality}s is installed; name candidates, or: {errors[0]}")
    return found
