"""The generic adapter: any backbone with layer groups, and a task head, as one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.data.dataset import ModelInputs
from zoo.declare import BackboneSpec, HeadSpec, Inputs
from zoo.models.adapt_checks import channel_option, check_arguments, check_head_options, check_task, check_width, own_pooling
from zoo.models.backbone import Backbone, with_options
from zoo.models.heads import Pool
from zoo.models.layers import LayerGroups
from zoo.plugins.loader import load_function
from zoo.registry.registry import default_registry
from zoo.tasks.find import find_task
from zoo.tuning import Lora, apply_eval, freeze_prefix, hold_statistics

if TYPE_CHECKING:
    import numpy as np

    from zoo.engine.preview.report import Preview
    from zoo.engine.rundir.run_folder import Run


class TaskModel(nn.Module):
    """A backbone with a task head.

    Attributes:
        backbone: The backbone's module.
        head: The head's module: features -> logits.
        groups: Layer groups of the backbone, input side first.
        spec: The backbone's declaration.
        inputs: The input in use; ``fit(image_size=…)`` changes its size.
        task: Name of what the head predicts, see ``zoo.tasks``.
        num_classes: Number of logits.
        labels: Names of the classes in the order of the logits; None until the data or ``adapt(labels=…)`` gives them.
        frozen: Length of the frozen prefix, in groups.
        trains: What trains of the groups that are not frozen: ``all`` parameters, those of ``lora``, or the ``bias`` vectors.
        lora: The LoRA that is attached, or None.
        freeze_bn: Whether BatchNorm statistics stand still in every group; scale and shift still train.
        pretrained: Whether the backbone's values came from weights, not from random initialisation.
        head_name: Name of the head's declaration.
        head_options: Options the head was built with.
        plugin: Distribution and version of the plugin that declared the backbone.
    """

    def __init__(
        self,
        groups: LayerGroups,
        head: nn.Module,
        *,
        spec: BackboneSpec,
        task: str,
        num_classes: int,
        labels: Sequence[str] | None = None,
        head_name: str = "linear",
        head_options: Mapping[str, Any] | None = None,
        plugin: str = "",
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = groups.model
        self.head = head
        self.groups = groups
        self.spec = spec
        self.inputs: Inputs = spec.inputs
        self.task = task
        self.num_classes = num_classes
        self.labels = tuple(labels) if labels is not None else None
        self.frozen = 0
        self.trains = "all"
        self.lora: Lora | None = None
        self.freeze_bn = False
        self.pretrained = pretrained
        self.head_name = head_name
        self.head_options = dict(head_options or {})
        self.plugin = plugin

    def forward(self, x: ModelInputs) -> Tensor:
        """Return logits ``(batch, num_classes)``, for token classification ``(batch, tokens, num_classes)``.

        Args:
            x: Normalised inputs ``(batch, *inputs.shape)``; for text the mapping that ``zoo.Text`` describes.
        """
        return self.logits(self.backbone(x), x)

    def logits(self, features: Tensor, x: ModelInputs) -> Tensor:
        """Return the logits of features that the backbone gave for inputs ``x``."""
        check_width(features, self.spec)
        with self._exact(features):
            logits: Tensor = self.head(self._widened(features), *_mask(x))
        return logits

    def pooled_logits(self, pooled: Tensor) -> Tensor:
        """Return the logits of pooled features ``(batch, dim)``, for heads that tell pooling and logits apart."""
        with self._exact(pooled):
            logits: Tensor = self.head.logits(self._widened(pooled))  # type: ignore[operator]  # the caller asks where it exists
        return logits

    def _exact(self, features: Tensor) -> AbstractContextManager[Any]:
        """Return the precision of the head: half of it would round the numbers of a regression to two or three digits."""
        return torch.autocast(features.device.type, enabled=False) if find_task(self.task).standardized else nullcontext()

    def _widened(self, features: Tensor) -> Tensor:
        return features.float() if find_task(self.task).standardized and features.itemsize < 4 else features

    def embed_batch(self, x: ModelInputs) -> Tensor:
        """Return pooled features ``(batch, dim)`` for inputs as ``forward`` takes them."""
        return self.pool(self.backbone(x), x)

    def pool(self, features: Tensor, x: ModelInputs) -> Tensor:
        """Return pooled features ``(batch, dim)`` of the features that the backbone gave for inputs ``x``."""
        # A plugin's head may keep its pooling to itself; embeddings then take the declared one.
        own = getattr(self.head, "pool", None)
        pool = own if isinstance(own, nn.Module) else Pool(self.spec.features)
        pooled: Tensor = pool(features, *_mask(x))
        return pooled

    def freeze(self, upto: int | str) -> TaskModel:
        """Freeze the groups from the input on, in place, and unfreeze the others: ``freeze(0)`` none, ``freeze("stage2")`` inclusive.

        Frozen groups get no gradient and stay in eval mode as a whole, whatever ``train()`` says: BatchNorm statistics,
        dropout and drop-path stand still. Of the others those parameters train that ``trains`` says.

        Raises:
            UnknownGroupError: If there is no such group.
            LayerGroupError: If ``trains`` selects no parameter of the groups that are not frozen.
        """
        length = self.groups.prefix_length(upto)
        freeze_prefix(self.groups, length, self.trains)
        self.frozen = length
        return self.train(self.training)

    def unfreeze(self) -> TaskModel:
        """Make every group trainable, in place, as far as ``trains`` says."""
        return self.freeze(0)

    def train(self, mode: bool = True) -> TaskModel:
        """Set training mode, in place; the frozen prefix stays in eval mode, and BatchNorm where ``freeze_bn`` is set."""
        super().train(mode)
        apply_eval(self.groups, self.frozen)
        if self.freeze_bn:
            hold_statistics(self.backbone)
        return self

    def fit(self, train: Any, valid: Any = None, **options: Any) -> Run:
        """Fine-tune in place; see ``zoo.engine.train.fit.fit`` for the options and docs/quickstart.md for examples."""
        from zoo.engine.train.fit import fit

        return fit(self, train, valid, **options)

    def plan(self, train: Any, valid: Any = None, **options: Any) -> Preview:
        """Tell what ``fit`` would do with the same arguments, and what it would take; see ``zoo.engine.preview.preview.preview``."""
        from zoo.engine.preview.preview import preview

        return preview(self, train, valid, **options)

    def evaluate(self, data: Any, **options: Any) -> dict[str, float]:
        """Return the metrics of the task on labelled data; see ``zoo.engine.inference.evaluate.evaluate``."""
        from zoo.engine.inference.evaluate import check_given, evaluate

        check_given(evaluate, options)
        return evaluate(self, data, **options)

    def predict(self, inputs: Any, **options: Any) -> list[Any]:
        """Return the predicted label of each input; see ``zoo.engine.inference.evaluate.predict``."""
        from zoo.engine.inference.evaluate import check_given, predict

        check_given(predict, options)
        return predict(self, inputs, **options)

    def predict_proba(self, inputs: Any, **options: Any) -> np.ndarray:
        """Return probabilities ``(n, num_classes)``; see ``zoo.engine.inference.evaluate.predict_proba``."""
        from zoo.engine.inference.evaluate import check_given, predict_proba

        check_given(predict_proba, options)
        return predict_proba(self, inputs, **options)

    def embed(self, inputs: Any, **options: Any) -> np.ndarray:
        """Return pooled features ``(n, dim)``; see ``zoo.engine.inference.evaluate.embed``."""
        from zoo.engine.inference.evaluate import check_given, embed

        check_given(embed, options)
        return embed(self, inputs, **options)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Save weights, labels, preprocessing, groups and versions; ``zoo.load(folder)`` gives equal logits.

        Raises:
            OutputExistsError: If the folder exists and is not empty, unless ``overwrite``.
        """
        from zoo.saved.saved import save

        return save(self, Path(folder), overwrite=overwrite)


def adapt(
    backbone: Backbone,
    num_classes: int,
    *,
    task: str,
    head: str,
    in_chans: int | None,
    labels: Sequence[str] | None,
    seed: int,
    head_options: Mapping[str, Any],
) -> TaskModel:
    """Build the backbone anew and attach a head; see ``Backbone.adapt``."""
    check_arguments(num_classes, task, in_chans, labels)
    head = find_task(task).head if head == "linear" else head
    head_spec = default_registry().head(head)
    check_task(backbone.spec, head_spec, task)
    options = channel_option(backbone.spec, in_chans)
    pooling, head_options = own_pooling(backbone.spec, task, head_options)
    options |= pooling
    check_head_options(head_spec, head_options)
    spec = with_options(backbone.spec, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of a backbone that starts from random values
        groups = backbone.fresh(**options)
    return TaskModel(
        groups,
        build_head(head_spec, spec, num_classes, seed=seed, options=head_options),
        spec=spec,
        task=task,
        num_classes=num_classes,
        labels=labels,
        head_name=head,
        head_options=head_options,
        plugin=backbone.plugin,
        pretrained=backbone.pretrained,
    )


def build_head(head: HeadSpec, spec: BackboneSpec, num_classes: int, *, seed: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a head with values drawn from ``seed``; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = load_function(head.build)(spec.features, num_classes, **options)
    assert isinstance(module, nn.Module), f"head {head.name!r} built {type(module).__name__}, not a torch.nn.Module"
    return module


def _mask(x: ModelInputs) -> tuple[Tensor, ...]:
    """Return what a head is given beside the features: the mask of the padding, for text."""
    return (x["attention_mask"],) if isinstance(x, Mapping) else ()
