"""``check_data``: look at data before a model is trained on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from zoo.declare import Inputs
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.rundir.run_folder import claim_own_folder, release_folder
from zoo.engine.runtime.progress import Progress
from zoo.engine.runtime.signals import StopFlag, Stopped, stop_signals
from zoo.errors import InterruptedRunError, OptionError, check_options, did_you_mean
from zoo.models.backbone import Backbone
from zoo.models.find import find_backbone
from zoo.select.audit.checking import Checking
from zoo.select.audit.findings.finding import Audit
from zoo.select.audit.reading.kept import Kept
from zoo.select.audit.reading.sources import open_for_check
from zoo.select.audit.sheet import contact_sheet
from zoo.util.atomic_write import write_json, write_text

NO_BACKBONE = "none"  # the word of the command line, as False in Python
PARTS = ("near-duplicates", "labels", "shortcuts", "drift")  # that can be skipped
RECORD, SHEET, CACHE = "check.json", "check.html", "cache"
_NONE: Mapping[str, str | Sequence[str]] = MappingProxyType({})


def check_data(
    train: Any,
    valid: Any = None,
    test: Any = None,
    *,
    task: str = "single-label",
    reads: str | None = None,
    backbone: str | Backbone | bool | None = None,
    columns: Mapping[str, str | Sequence[str]] = _NONE,
    label_columns: Sequence[str] = (),
    uncertain: str | None = None,
    root: str | PathLike[str] | None = None,
    skip: Sequence[str] = (),
    seed: int = 0,
    out: str | PathLike[str] | None = None,
    quiet: bool = False,
    **inference: Any,
) -> Audit:
    """Look for leaks, near duplicates, broken files, odd classes and values, wrong labels, shortcuts and drift in data.

    Args:
        train: A source as ``zoo.data.open.open_data`` takes it; all its splits are looked at.
        valid: Another source, or None.
        test: A further one, or None.
        task: The task that the labels are for.
        reads: Kind of the inputs: ``image``, ``volume``, ``text`` or ``words``; None goes by the backbone, the columns and the files.
        backbone: Name of a backbone, or folder of a saved model, whose features are used; None is ``zoo/glyphnet`` for images and none
            for others; False or ``none`` is none.
        columns: As in ``open_data``.
        label_columns: As in ``open_data``.
        uncertain: As in ``open_data``.
        root: As in ``open_data``.
        skip: Parts to leave out: ``near-duplicates``, ``labels``, ``shortcuts``, ``drift``.
        seed: Seed of folds and samples.
        out: Folder for ``check.json``, ``check.html`` and what a repeated or resumed check need not compute again; None writes nothing.
        quiet: Show no progress.
        **inference: ``batch_size``, ``image_size``, ``device``, ``precision``, ``workers`` and ``window`` of the pass of the backbone;
            DICOM images are read through the window throughout.

    Returns:
        What was found.

    Raises:
        OptionError: For options that do not exist or do not fit the data.
        DataError: If the data cannot be opened.
        OutputExistsError: If ``out`` holds something else.
        OutputPermissionError: If it cannot be written.
        RunLockedError: If another check is writing into it.
        InterruptedRunError: After Ctrl-C or SIGTERM; the same call with the same ``out`` goes on.
    """
    backbone = False if backbone == NO_BACKBONE else backbone
    _check_given(skip, backbone, inference)
    options: dict[str, Any] = {"columns": columns, "label_columns": label_columns, "uncertain": uncertain, "root": root}
    data = open_for_check(train, valid, test, task=task, reads=reads, inputs=_declared_inputs(backbone), **options)
    folder = None if out is None else Path(out)
    with Progress(quiet, "") as progress, stop_signals() as stop, nullcontext() if folder is None else _claimed(folder):
        checking = Checking(data, progress, stop, Kept(folder and folder / CACHE), seed, frozenset(skip))
        try:
            audit = checking.run(task, backbone, InferenceOptions(on_error="skip", **inference))
        except Stopped:
            raise _interrupted(stop, folder) from None
        if folder is not None:
            write_json(folder / RECORD, audit.to_dict())
            write_text(folder / SHEET, contact_sheet(audit, data.table))
    return audit


def _declared_inputs(backbone: str | Backbone | bool | None) -> Inputs | None:
    """Return what a backbone that is named or given reads; None for none, and for a saved model, whose folder is read later."""
    if isinstance(backbone, str) and not (Path(backbone) / "config.json").is_file():
        return find_backbone(backbone).spec.inputs
    return backbone.spec.inputs if isinstance(backbone, Backbone) else None


def _interrupted(stop: StopFlag, folder: Path | None) -> InterruptedRunError:
    """Return the error after a signal, saying how the check goes on."""
    remedy = f"the same command goes on with what is in {str(folder)!r}" if folder else "give out= (--out) to have it go on"
    error = InterruptedRunError(f"stopped by {stop.name}; {remedy}")
    error.exit_code = stop.exit_code
    return error


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Lock the folder of a check, which is empty or holds an earlier one."""
    claim_own_folder(folder, (RECORD, SHEET, CACHE))
    try:
        yield
    finally:
        release_folder(folder, record=RECORD)


def _check_given(skip: Sequence[str], backbone: Any, inference: Mapping[str, Any]) -> None:
    check_options(inference, ("batch_size", "image_size", "device", "precision", "workers", "window"), "check_data()")
    if not (backbone is None or backbone is False or isinstance(backbone, str | Backbone)):
        raise OptionError(f"backbone is {backbone!r}; give a name, a Backbone, False for no features, or None for the usual one")
    if unknown := [f"{name!r}{did_you_mean(name, PARTS)}" for name in skip if name not in PARTS]:
        raise OptionError(f"skip has {', '.join(unknown)}; the parts are: {', '.join(PARTS)}")
