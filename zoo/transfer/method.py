"""The base of all methods: options as values, which make the objective of a run."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import OptionError

if TYPE_CHECKING:
    from zoo.declare import BackboneSpec
    from zoo.engine.objective.objective import Objective
    from zoo.engine.objective.supervised import Supervised
    from zoo.engine.options.config import Config
    from zoo.engine.options.recipe import Recipe
    from zoo.models.task_model import TaskModel

_LONG = 32  # items of a list, such as names of files, that a record names one by one


@dataclasses.dataclass(frozen=True)
class Method:
    """The options of a method, given as ``fit(objective=…)``.

    A method is a frozen dataclass whose fields are its options, under ``zoo.errors.checked_fields``; ``__post_init__`` checks their
    ranges. Called with the ``Supervised`` of a run, it returns the objective that the run minimises instead.

    Attributes:
        name: The name for ``zoo train --objective``, by which ``zoo.transfer.names`` finds the class.
        recipe: The recipe of runs that name none, one of ``zoo.transfer.recipes``; None for that of the task.
        reads: Modalities of the backbones that it trains; none for all.
    """

    name: ClassVar[str] = ""
    recipe: ClassVar[Recipe | None] = None
    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, base: Supervised) -> Objective:
        """Return the objective of a run.

        Args:
            base: The objective of the labels, with the model and the data.
        """
        raise TypeError(f"{type(self).__name__} makes no objective")

    def refuse(self, model: TaskModel, config: Config) -> None:
        """Raise for options of a run that contradict the method, before its data are opened.

        Args:
            model: The model.
            config: The configuration, as the options that were given make it.

        Raises:
            OptionError: Naming the option, or that the backbone reads something else.
        """
        self.check_reads(model.spec)

    def check_reads(self, spec: BackboneSpec) -> None:
        """Check that the method trains backbones that read such inputs.

        Raises:
            OptionError: With a method for what the backbone reads.
        """
        if self.reads and spec.modality not in self.reads:
            wanted = " and ".join(f"{kind}s" for kind in self.reads)
            other = "mlm" if spec.modality == "text" else "simclr"
            found = f"{self.name} is for {wanted}, and backbone {spec.name!r} reads {spec.modality}s"
            raise OptionError(f"{found}; take method={other!r} (--method)")

    def describe(self) -> dict[str, Any]:
        """Return the name and the options as plain data, for the record of a run; models and data by their type."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"name": self.name, **{name: _plain(value) for name, value in options.items()}}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        plain = [_plain(each) for each in value]
        return plain if len(plain) <= _LONG else {"length": len(plain), "sha256": hashlib.sha256(repr(plain).encode()).hexdigest()}
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return type(value).__name__
