"""Options of a pass over data, and the inputs that a model reads with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from zoo.data.table import Table
from zoo.data.unreadable_input import SKIPPED, Unreadable, UnreadableInputsError
from zoo.declare import Inputs, Text
from zoo.engine.loading.sources import channels_of, refuse_window
from zoo.engine.options.config import SHORTEST
from zoo.engine.runtime.input_changes import resized, shortened, with_overflow
from zoo.errors import CorruptInputError, DataError, OptionError, checked_fields, did_you_mean
from zoo.models.task_model import TaskModel
from zoo.util.numbers import is_whole, whole_of

BATCH_SIZE = 64
ON_ERROR = ("stop", "skip")


@checked_fields
@dataclass(frozen=True)
class InferenceOptions:
    """Options of a pass over data.

    Attributes:
        window: Centre and width through which scans are shown, where it differs from the model's.
        overflow: What becomes of texts that are too long, where it differs from the model's: ``truncate``, ``error`` or ``windows``.
        max_length: Most tokens of a text, where they differ from the model's.
        image_size: Height and width in pixels, where they differ from the model's; one number means a square.
        prompt_name: Name of a prompt of the backbone that is put before each text.
        batch_size: Samples per forward.
        workers: Loader processes; None chooses.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto`` (bf16 on GPUs that have it), ``fp32`` or ``bf16``.
        on_error: At an input that cannot be read, ``stop`` with an error, or ``skip`` it.
        quiet: Show no progress.
    """

    window: tuple[float, float] | None = None
    overflow: str | None = None
    max_length: int | None = None
    image_size: int | tuple[int, int] | None = None
    prompt_name: str | None = None
    batch_size: int = BATCH_SIZE
    workers: int | None = None
    device: str = "auto"
    precision: str = "auto"
    on_error: str = "stop"
    quiet: bool = True

    def __post_init__(self) -> None:
        for name in ("image_size", "batch_size", "workers", "max_length"):  # as fit() reads them
            object.__setattr__(self, name, whole_of(getattr(self, name)))
        if not is_whole(self.batch_size):
            raise OptionError(f"batch_size is {self.batch_size!r}; it must be a whole number")
        if self.batch_size < 1:
            raise OptionError(f"batch_size is {self.batch_size}; it must be at least 1")
        if self.max_length is not None and not (is_whole(self.max_length) and self.max_length >= SHORTEST):
            raise OptionError(f"max_length is {self.max_length!r}; it must be a whole number of tokens, {SHORTEST} or more")
        if self.workers is not None and not (is_whole(self.workers) and self.workers >= 0):
            raise OptionError(f"workers is {self.workers!r}; it must be a whole number, 0 or more")
        if self.on_error not in ON_ERROR:
            raise OptionError(f"on_error is {self.on_error!r}{did_you_mean(str(self.on_error), ON_ERROR)}; it can be: stop, skip")

    @property
    def skip(self) -> bool:
        """Whether inputs that cannot be read are skipped."""
        return self.on_error == "skip"

    @contextmanager
    def naming_skip(self, remedy: str = SKIPPED, *, opening: bool = False) -> Iterator[None]:
        """Add to an error of inputs that cannot be read that such inputs may be skipped.

        Args:
            remedy: How; of a run and what is made of runs, which have another option for that, ``zoo.engine.train.messages.SKIPPED``.
            opening: Whether a source is opened, not passed through a model: items of a torch dataset that raise are not skipped then.
        """
        try:
            yield
        except (CorruptInputError, UnreadableInputsError) as error:
            if opening and isinstance(error, CorruptInputError):
                raise
            if not self.skip:
                error.args = (f"{error}; {remedy}",)
            raise


def inputs_in_use(model: TaskModel, table: Table, options: InferenceOptions) -> Inputs:
    """Return the declared input of a model with the options of a pass over a table.

    Raises:
        DataError: If the table is empty.
        OptionError: If an option is not for such inputs.
    """
    if not len(table):
        raise DataError(f"{table.source} is empty")
    inputs = model.inputs
    if options.image_size is not None:
        inputs = resized(model, inputs, options.image_size)
    if options.max_length is not None:
        inputs = shortened(model, inputs, options.max_length)
    if options.overflow is not None:
        inputs = with_overflow(inputs, options.overflow, model.spec.modality)
    if options.window is None:
        return inputs
    if isinstance(inputs, Text):
        raise OptionError("window is for scans; the model reads texts")
    refuse_window(options.window, table, channels_of(model))
    return replace(inputs, window=options.window)


def prompted(model: TaskModel, table: Table, name: str | None) -> Table:
    """Return a table of texts with a prompt of the backbone before each; None for no prompt.

    Raises:
        OptionError: If the inputs are no single texts, or there is no such prompt.
    """
    if name is None:
        return table
    prompts = model.inputs.prompts if isinstance(model.inputs, Text) else {}
    if name not in prompts:
        raise OptionError(
            f"prompt_name is {name!r}{did_you_mean(name, prompts)}; {model.spec.name} has the prompts: {', '.join(prompts) or 'none'}"
        )
    texts = list(table.inputs)
    if not all(isinstance(text, str | Unreadable) for text in texts):
        raise OptionError("prompt_name is for single texts, not for pairs or words")
    return replace(table, inputs=[prompts[name] + text if isinstance(text, str) else text for text in texts])
