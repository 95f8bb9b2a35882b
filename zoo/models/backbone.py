"""The backbone handle of ``zoo.get``, which builds the module and imports torch lazily."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from zoo.declare import BackboneSpec, Origin
from zoo.errors import OptionError
from zoo.models.build_options import WITHOUT_EFFECT_ON_WIDTH, with_options
from zoo.models.pairs.towers import tower_spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.models.layers import LayerGroups
    from zoo.models.task_model import TaskModel
    from zoo.transfer.method import Method

log = logging.getLogger("zoo")
_OF_MODELS = ("fit", "plan", "predict", "predict_proba", "embed", "evaluate", "calibrate", "freeze", "save")


def configured(
    declared: Backbone, *, weights: bool | str | PathLike[str] | None, allow_partial: bool, options: Mapping[str, Any]
) -> Backbone:
    """Return a declared backbone with the weights and options of ``zoo.get``."""
    spec, options = tower_spec(declared.spec, options)
    return Backbone(
        spec,
        plugin=declared.plugin,
        weights=weights,
        allow_partial=allow_partial,
        options=options,
        state=declared._state,
        origins=declared._origins,
        folder=declared.folder,
    )


class Backbone:
    """A declared backbone that can be inspected, built, and adapted to a task.

    Attributes:
        spec: The declaration, with the given options, weights and input size; once built, with the width that options gave it.
        plugin: Distribution and version of the plugin that declared it.
        pretrained: Whether it is built with pretrained weights.
        folder: Folder of the saved model that it was opened from, or None.
        knows_width: Whether the width of the features is that of ``spec``: not before it was built where an option may change it.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        plugin: str = "",
        weights: bool | str | PathLike[str] | None = None,
        allow_partial: bool = False,
        options: Mapping[str, Any] | None = None,
        state: Callable[[], dict[str, Tensor]] | None = None,
        folder: Path | None = None,
        origins: Sequence[Origin] = (),
    ) -> None:
        if weights is not None and not isinstance(weights, bool):
            from zoo.weights.given import checked_kind, given_weights

            weights = checked_kind(weights, spec.name)
        if isinstance(weights, str | PathLike):
            spec = spec.replace(weights=given_weights(weights, spec.name))
            state = None
        # What the tensors of a saved model were made with; published files have no options.
        self._saved_with = spec.options if state is not None else None
        self.spec = with_options(spec, options or {})
        self.knows_width = {*(options or {})} <= {*WITHOUT_EFFECT_ON_WIDTH}
        self.plugin = plugin
        self.folder = folder
        self.pretrained = weights is not False and (spec.weights is not None or state is not None)
        self._allow_partial = allow_partial
        self._state = state
        self._origins = tuple(origins) if state is not None and weights is not False else ()
        if weights is True and not self.pretrained:
            raise OptionError(f"{spec.name} declares no pretrained weights; pass weights='FILE', or weights=False for random values")

    @property
    def is_saved(self) -> bool:
        """Whether its values are those of a folder, such as a saved model, and not the published ones."""
        return self._state is not None

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The steps in which its values came about."""
        weights = self.spec.weights
        if self._origins or not self.pretrained or weights is None:
            return self._origins or (Origin(step="random", name=self.spec.name),)
        source = weights.place if weights.repo or weights.url or weights.package else PurePath(weights.file).name
        return (Origin(step="weights", name=self.spec.name, source=source, license=weights.license, sha256=weights.sha256),)

    def __repr__(self) -> str:
        return f"Backbone({self.spec.name!r}, {'pretrained' if self.pretrained else 'random'})"

    if not TYPE_CHECKING:  # for mypy a backbone would have every attribute

        def __getattr__(self, name: str) -> Any:
            if name in _OF_MODELS:
                raise AttributeError(f"a backbone has no head, and so no {name}; zoo.get(…).adapt(num_classes=2) is a model, which has it")
            return object.__getattribute__(self, name)  # the error of Python, or of the property that raised it

    def build(self) -> nn.Module:
        """Return the backbone as a module; it is built at the first call.

        Raises:
            WeightsNotFoundError: If the pretrained weights cannot be obtained.
            WeightsError: If they are damaged, or do not fill the backbone.
        """
        return self.groups.model

    @cached_property
    def groups(self) -> LayerGroups:
        """The layer groups of the built module.

        Raises:
            LayerGroupError: If the declaration does not fit the module.
        """
        return self.fresh()

    def fresh(self, **options: Any) -> LayerGroups:
        """Build a new module, with further options, and bind its layer groups; the module is ``.model`` of the result."""
        from zoo.models.construct.build import build
        from zoo.models.layers import bind

        spec = with_options(self.spec, options)
        if not self.pretrained and self.spec.weights is None:
            log.warning("%s declares no pretrained weights: it starts from random values", spec.name)
        state = self._read if self.pretrained else None
        module = build(spec, state, allow_partial=self._allow_partial, saved_with=self._saved_with)
        groups = bind(module, spec.layers, name=spec.name, plugin=self.plugin)
        if not self.knows_width:
            from zoo.models.construct.width import built_width

            features = replace(self.spec.features, dim=built_width(module, spec))
            parameters = sum(parameter.numel() for parameter in module.parameters())
            self.spec, self.knows_width = self.spec.replace(features=features, parameters=parameters, macs=None), True
        return groups

    def features(self, x: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Return the features of a batch in the declared layout, in eval mode and without gradients.

        Args:
            x: Normalised inputs, ``(batch, *spec.inputs.shape)`` for images and volumes; for text a mapping of tensors.
        """
        import torch

        module = self.build().eval()
        with torch.no_grad():
            features: Tensor = module(x)
        return features

    def adapt(
        self,
        num_classes: int | None = None,
        task: str = "single-label",
        head: str | nn.Module = "linear",
        in_chans: int | None = None,
        labels: Sequence[str] | None = None,
        *,
        seed: int = 0,
        **head_options: Any,
    ) -> TaskModel:
        """Attach a task head to a new build of this backbone.

        Args:
            num_classes: Number of logits: classes, labels, or regression targets; may be left out where ``labels`` are given.
            task: ``single-label``, ``multi-label``, ``regression`` or, for text, ``token-classification``.
            head: ``linear`` (for tokens: ``tokens``), ``mlp``, one that a plugin brings, or a module of your own: from pooled features
                ``(batch, dim)`` to logits, with ``pool="none"`` from the features as they are.
            in_chans: Number of input channels if it differs; the first layer's weights are adapted.
            labels: Names of the classes in the order of the logits; taken from the data if not given.
            seed: Seed of all initial values: the head's, and the backbone's if it is not pretrained.
            **head_options: Options of the head: ``pool``, ``normalize``, ``dropout``, and ``hidden`` and ``activation`` for ``mlp``. The
                pool ``pooler`` is the backbone's own, which BERT, CLIP and others have; ``normalize=False`` leaves features at the length
                that the pooling gives where the declaration scales them to 1.

        Raises:
            OptionError: If an argument is out of range or unknown; all in one error.
        """
        from zoo.models.adapt import adapt

        return adapt(self, num_classes, task=task, head=head, in_chans=in_chans, labels=labels, seed=seed, head_options=head_options)

    def adapt_tasks(
        self, tasks: Mapping[str, Any], head: str | nn.Module = "linear", in_chans: int | None = None, *, seed: int = 0, **head_options: Any
    ) -> TaskModel:
        """Attach the heads of several tasks to a new build of this backbone; see docs/several-tasks.md.

        Args:
            tasks: For each task by name: a number of classes, a list of their names, the name of a task such as ``"regression"``, or a
                mapping with ``task``, and ``classes`` (a number or names) or ``outputs`` (of a regression, 1 if not given).
            head: As for ``adapt``. The heads are the outputs of one: a ``linear`` one shares nothing, an ``mlp`` its hidden layer.
            in_chans: As for ``adapt``.
            seed: As for ``adapt``.
            **head_options: As for ``adapt``.

        Raises:
            OptionError: If a task is unknown, labels words, has no number of outputs or an unusable name; all in one error.
        """
        from zoo.models.adapt import adapt_tasks

        return adapt_tasks(self, tasks, head=head, in_chans=in_chans, seed=seed, head_options=head_options)

    def pretrain(
        self,
        unlabelled: Any,
        method: str | Method = "simclr",
        *,
        probe: Any = None,
        out: str | PathLike[str] | None = None,
        resume: bool = False,
        quiet: bool = False,
        **options: Any,
    ) -> Backbone:
        """Return this backbone after further pretraining on unlabelled data; see docs/self-supervised.md.

        ``zoo.transfer.pretrain`` takes the same and gives the run and the probes too.

        Args:
            unlabelled: As for ``zoo.open_data``; labels that it may have are not read.
            method: ``simclr`` or ``dino`` for images, ``mae`` for ViTs, ``mlm`` for texts.
            probe: Labelled data, on which a linear head is solved before and after; where it got worse, the old values are kept.
            out: Folder of the result, which ``zoo.get`` opens.
            resume: Go on where the run in ``out`` stopped.
            quiet: Show nothing.
            **options: As for ``fit``, and those of the method.

        Raises:
            OptionError: For an unknown method or option, or a method that does not fit.
            DataError: If there are too few samples.
        """
        from zoo.transfer.pretraining.pretrain import pretrain

        found = pretrain(self, unlabelled, method, probe=probe, out=out, resume=resume, quiet=quiet, **options)
        (log.info if found.learned and not found.collapsed else log.warning)("%s", found.verdict)
        return found.backbone

    def zero_shot(
        self,
        classes: Sequence[str] | Mapping[str, str],
        templates: str | Sequence[str] | None = None,
        *,
        task: str = "single-label",
        seed: int = 0,
    ) -> TaskModel:
        """Return a classifier of images made of the names of the classes, without training; see docs/multimodal.md.

        Each class is the mean of the embeddings of its texts (Radford et al. 2021), and the logits have the published scale.

        Args:
            classes: Names of the classes in the order of the logits; or a mapping from each to the words for it.
            templates: Texts with ``{}`` where the name stands, or the name of a set: ``photo`` (the default), ``openai``, ``siglip``,
                ``name``.
            task: ``single-label``, or ``multi-label`` for a probability of each class by itself.
            seed: Seed of the values of a dual encoder that is not pretrained.

        Raises:
            OptionError: If the backbone has no text tower, classes have no names, or templates no place for them.
        """
        words = dict(classes) if isinstance(classes, Mapping) else {}
        labels = list(classes)
        options: dict[str, Any] = {"templates": templates} | ({"words": words} if words else {})
        return self.adapt(len(labels), task, "zero-shot", labels=labels, seed=seed, **options)

    def with_spec(self, spec: BackboneSpec) -> Backbone:
        """Return a backbone with the same weights and another declaration, such as that of another tower in the same file."""
        return Backbone(spec, plugin=self.plugin, weights=None if self.pretrained else False, allow_partial=self._allow_partial)

    def read_weights(self) -> dict[str, Tensor]:
        """Return the tensors of the weights as published.

        Raises:
            WeightsNotFoundError: If they cannot be obtained.
            WeightsError: If they are damaged.
        """
        return self._read()

    def _read(self) -> dict[str, Tensor]:
        from zoo.weights.load import read
        from zoo.weights.locate import locate

        if self._state is not None:
            return self._state()
        assert self.spec.weights is not None
        return read(locate(self.spec.weights, self.spec.name), self.spec.name)
