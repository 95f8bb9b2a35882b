"""Predictions as rows for printing: those of a source, or of one input per line of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.input_lines import line_input, line_name, reads_texts
from zoo.cli.output.wording import as_typed
from zoo.errors import CorruptInputError, DataError

if TYPE_CHECKING:
    from zoo.engine.inference.decoding.decoder import Decoder
    from zoo.models.task_model import TaskModel

SHOWN = 60  # characters of an input in a printed table


def predicted_rows(model: TaskModel, source: Any, decoder: Decoder, **options: Any) -> list[dict[str, Any]]:
    """Return a row per input: ``input``, ``label``, and ``probabilities`` where the task has them, or ``error``.

    Where a number of likeliest classes is wanted, ``top`` has their ``label`` and ``probability`` in place of ``probabilities``.
    Where the decoder gives them also ``set`` (of a regression ``interval``) and ``ood``.

    Args:
        model: The model.
        source: As for ``zoo.engine.inference.predict.predict_outputs``, and its ``options``.
        decoder: Of the model.
        **options: As for ``predict_outputs``.
    """
    from zoo.data.table import names_of
    from zoo.engine.inference.predict import predict_outputs

    found = predict_outputs(model, source, decoder.forward(model), **options)
    names, labels = names_of(found.table.inputs, range(len(found.table))), decoder.decode(found.values)
    rows: list[dict[str, Any]] = [{"input": name, "label": plain_label(label)} for name, label in zip(names, labels, strict=True)]
    if decoder.top is not None:
        for row, best in zip(rows, decoder.top_labels(found.values), strict=True):
            row["top"] = [{"label": plain_label(label), "probability": share} for label, share in best]
    elif decoder.has_probabilities and not decoder.task.per_token:
        for row, shares in zip(rows, decoder.probabilities(found.values), strict=True):
            known = zip(decoder.names, map(float, shares), decoder.of_classes, strict=True)
            row["probabilities"] = {name: share for name, share, of_class in known if of_class}
    if decoder.sets is not None:
        for row, members in zip(rows, decoder.set_labels(found.values), strict=True):
            row["set" if decoder.task.has_classes else "interval"] = plain_label(members)
    if decoder.ood:
        for row, score in zip(rows, decoder.ood_scores(found.values), strict=True):
            row["ood"] = float(score)
    for index, reason in found.errors.items():
        rows[index] = {"input": names[index], "label": None, "error": reason}
    return rows


def predict_lines(
    model: TaskModel, lines: Iterable[bytes], decoder: Decoder, *, on_error: str = "stop", **options: Any
) -> Iterator[dict[str, Any]]:
    """Yield a row per line, each before the next line is read; the model stays on its device until the last one.

    Args:
        model: The model.
        lines: Each a path, or a text where the model reads texts.
        decoder: Of the model.
        on_error: At a line that cannot be read, ``stop`` with an error, or ``skip`` it with a row that has the ``error``.
        **options: As for ``predicted_rows``.

    Raises:
        DataError: If a line is not an input of the model, unless it is skipped.
        CorruptInputError: If its file cannot be decoded, unless it is skipped.
    """
    from zoo.data.unreadable_input import SKIPPED
    from zoo.engine.runtime.device import choose_device, placed

    textual = reads_texts(model)
    options["workers"] = 0  # starting some for one input takes longer than reading it
    with placed(model, choose_device(options.get("device", "auto"))):
        for number, line in enumerate(lines, start=1):
            name = line_name(line)
            try:
                source = line_input(line, number, textual=textual)
                (row,) = predicted_rows(model, [source], decoder, **options)
            except (DataError, CorruptInputError) as error:
                if on_error == "stop":
                    raise
                row = {"label": None, "error": as_typed(str(error).removesuffix(f"; {SKIPPED}"))}
            yield {"input": name} | {key: value for key, value in row.items() if key != "input"}


def prediction_cells(row: dict[str, Any]) -> list[str]:
    """Return the input, the label or labels, their probabilities or the likeliest ones, set and score of an outlier; or input and error."""
    if "error" in row:
        return [row["input"], f"error: {row['error']}"]
    label, shares = row["label"], row.get("probabilities", {})
    if isinstance(label, dict):
        cells = [prediction_cells({"input": "", "label": one, "probabilities": _of_task(shares, name)})[1:3] for name, one in label.items()]
        return [
            row["input"],
            *(
                ", ".join(f"{name}={cell[place] or 'none'}" for name, cell in zip(label, cells, strict=True) if place == 0 or cell[1])
                for place in (0, 1)
            ),
        ]
    chosen = label if isinstance(label, list | tuple) else [label]
    probabilities = [f"{one['label']} {one['probability']:.3f}" for one in row.get("top", ())]
    probabilities = probabilities or [", ".join(f"{shares[one]:.3f}" for one in chosen if one in shares)]
    trust = [", ".join(map(_short, row[name])) or "none" for name in ("set", "interval") if name in row]
    trust += [f"{row['ood']:.2f}"] if "ood" in row else []
    return [row["input"], ", ".join(map(str, chosen)) or "none", *probabilities, *trust]


def _of_task(shares: dict[str, float], task: str) -> dict[str, float]:
    """Return the probabilities of one of several tasks by the names of its classes."""
    return {name.partition("/")[2]: share for name, share in shares.items() if name.startswith(f"{task}/")}


def more_names(decoder: Decoder) -> list[str]:
    """Return the names of the columns of a printed table behind the prediction."""
    shares = ["probability"] if decoder.top is None else [f"top_{place + 1}" for place in range(decoder.top)]
    sets = [] if decoder.sets is None else ["set" if decoder.task.has_classes else "interval"]
    return shares + sets + (["ood"] if decoder.ood else [])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table_cells(row: dict[str, Any], more: Sequence[str] = ("probability",)) -> list[str]:
    """Return the cells of a printed table: the beginning of the input, and no more than that it cannot be read.

    Args:
        row: Of ``predicted_rows``.
        more: The names of ``more_names``.
    """
    text, *rest = [row["input"], "cannot be read", *("" for _ in more)] if "error" in row else prediction_cells(row)
    return [text if len(text) <= SHOWN else text[: SHOWN - 1] + "…", *rest]


def plain_label(label: Any) -> Any:
    """Return a prediction for JSON and tables: a name as text, several as a list."""
    if isinstance(label, dict):
        return {name: plain_label(part) for name, part in label.items()}
    if isinstance(label, list | tuple):
        return [plain_label(part) for part in label]
    return label if isinstance(label, float | str) else str(label)
