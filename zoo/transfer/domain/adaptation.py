"""The options of domain adaptation, which make the objective of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import OptionError, checked_fields, did_you_mean, fault_list, refusals
from zoo.tasks.find import find_task
from zoo.transfer.method import Method
from zoo.util.numbers import is_finite, is_whole

if TYPE_CHECKING:
    from zoo.engine.objective.objective import Objective
    from zoo.engine.objective.supervised import Supervised
    from zoo.engine.options.config import Config
    from zoo.models.task_model import TaskModel

log = logging.getLogger("zoo")
AUTO = "auto"
VALIDATORS = ("infomax", "entropy", "snd", "source")


@checked_fields
@dataclass(frozen=True)
class DomainAdaptation(Method):
    """Adapt a model from a labelled source domain to an unlabelled target domain, given as ``fit(source, objective=…)``.

    Attributes:
        target: Data of the target, as for ``zoo.open_data``; labels that it may have are not used.
        method: ``coral`` (Sun & Saenko 2016), ``dan`` (Long et al. 2015), ``jan`` (Long et al. 2017), ``dann`` (Ganin et al. 2016),
            ``cdan`` and ``cdan-e`` (Long et al. 2018), ``mcc`` (Jin et al. 2020), ``mdd`` (Zhang et al. 2019), ``adabn`` (Li et al.
            2017), ``pseudo-labels`` (Lee 2013), ``source-only``, or ``auto``, which compares several without labels of the target.
        weight: Of the alignment beside the loss of the labels; None for the method's own.
        spectral: Weight of the batch spectral penalty, which may be added to any method that aligns features (BSP, Chen et al. 2019);
            the paper's is 1e-4.
        validator: Chooses the epoch: ``infomax``, ``entropy`` or ``snd`` of the target's predictions, or ``source`` for the monitor on
            the source's validation data. ``source-only`` always takes the latter.
        temperature: Of MCC, above 0.
        margin: Of MDD, above 0.
        threshold: Least probability of a pseudo-label, in [0, 1].
        hidden: Width of the discriminator of DANN and CDAN and of the adversary of MDD, in units.
        candidates: Methods that ``auto`` compares, as a list or with commas; None for its own.
        budget: Time that ``auto`` may take, such as ``10min``; None for no limit.
    """

    name: ClassVar[str] = "domain-adaptation"

    target: Any
    method: str = AUTO
    weight: float | None = None
    spectral: float = 0.0
    validator: str = "infomax"
    temperature: float = 2.5
    margin: float = 4.0
    threshold: float = 0.9
    hidden: int = 256
    candidates: Any = None
    budget: Any = None

    def __post_init__(self) -> None:
        from zoo.transfer.domain.alignments import KINDS

        known = (*KINDS, AUTO)
        faults = []
        if self.method == "shot":
            remedy = "zoo.transfer.adapt_source_free(model, target), zoo adapt-domain RUN TARGET --source-free"
            faults.append(f"method 'shot' starts from a trained model, without the source: {remedy}")
        for name, value, allowed in (("method", self.method, known), ("validator", self.validator, VALIDATORS)):
            if value not in allowed and value != "shot":
                faults.append(f"{name} is {value!r}{did_you_mean(str(value), allowed)}; it is one of: {', '.join(allowed)}")
        for name in ("weight", "spectral"):
            value = getattr(self, name)
            if not ((name == "weight" and value is None) or (is_finite(value) and value >= 0)):
                faults.append(f"{name} is {value!r}; it must be a number of at least 0")
        for name in ("temperature", "margin"):
            value = getattr(self, name)
            if not (is_finite(value) and value > 0):
                faults.append(f"{name} is {value!r}; it must be a number above 0")
        if not (is_finite(self.threshold) and 0 <= self.threshold <= 1):
            faults.append(f"threshold is {self.threshold!r}; it must be a probability in [0, 1]")
        if not (is_whole(self.hidden) and self.hidden >= 1):
            faults.append(f"hidden is {self.hidden!r}; it must be a whole number of units, at least 1")
        faults += self._faults_of_choice()
        if faults:
            raise OptionError(fault_list("domain adaptation cannot have these options:", faults))

    def _faults_of_choice(self) -> list[str]:
        """Return the faults of the options of ``auto``."""
        from zoo.select.recipe_search.halving import seconds_of
        from zoo.transfer.domain.alignments import KINDS

        faults = refusals(seconds_of, self.budget)
        if not (self.candidates is None or isinstance(self.candidates, (str, list, tuple))):
            faults.append(f"candidates is {self.candidates!r}; it must be a list of names, or names with commas")
        elif self.candidates is not None:
            names = self.candidate_names()
            unknown = [name for name in names if name not in KINDS]
            faults += [f"candidates has {name!r}{did_you_mean(name, KINDS)}; they are: {', '.join(KINDS)}" for name in unknown]
        for name in ("candidates", "budget"):
            if self.method != AUTO and getattr(self, name) is not None:
                faults.append(f"{name} is for method='auto', and method is {self.method!r}; leave one of them out")
        return faults

    @property
    def compares_methods(self) -> bool:
        """Whether ``fit`` compares several methods, in runs of their own."""
        return self.method == AUTO

    def candidate_names(self) -> list[str]:
        """Return the names of ``candidates``."""
        given = self.candidates.split(",") if isinstance(self.candidates, str) else self.candidates or ()
        return [str(name).strip() for name in given]

    def _judged_by_source(self, model: TaskModel) -> bool:
        """Return whether the monitor of the labels chooses the epoch."""
        return self.validator == "source" or not find_task(model.task).exclusive or self.method == "source-only"

    def refuse(self, model: TaskModel, config: Config) -> None:
        """Raise for a monitor that would not be followed.

        Raises:
            OptionError: If a monitor was given and a validator of the target chooses the epoch.
        """
        if config.monitor is not None and not self._judged_by_source(model):
            found = f"monitor is {config.monitor!r}, and validator={self.validator!r} chooses the epoch by the target"
            raise OptionError(f"{found}; leave monitor out, or take validator='source'")

    def __call__(self, base: Supervised) -> Objective:
        """Return the objective of a run with one method.

        Raises:
            OptionError: If the method does not fit the task, the head or what trains; all faults at once.
            DataError: If the target cannot be opened, is the source, or has labels of other classes.
        """
        from zoo.transfer.domain.alignments import KINDS, Sizes
        from zoo.transfer.domain.fitting import aligned_width, faults_of
        from zoo.transfer.domain.objective import Adapted
        from zoo.transfer.domain.shift import named_differences
        from zoo.transfer.domain.target import check_other, open_target

        auto = ["'auto' compares several runs; take model.fit(source, objective=…) or zoo adapt-domain, or name a method"]
        if faults := auto if self.method == AUTO else faults_of(self.method, base, spectral=self.spectral):
            raise OptionError(fault_list(f"domain adaptation by {self.method!r} cannot train like this:", faults))
        model, kind = base.model, KINDS[self.method]
        target = open_target(model, self.target, base.sources["train"].table, base.config)
        source = base.sources["train"].table
        check_other(source, target)
        for line in named_differences(model, source.classes, self.target):
            log.warning("%s", line)
        sizes = Sizes(aligned_width(model), model.num_classes, self.hidden, self.temperature, self.margin, self.threshold)
        return Adapted(
            base,
            target,
            kind.make(sizes) if kind.make else None,
            weight=kind.weight if self.weight is None else self.weight,
            spectral=self.spectral,
            starts_slowly=kind.starts_slowly,
            statistics=self.method == "adabn",
            monitor=None if self._judged_by_source(model) else f"target_{self.validator}",
        )
