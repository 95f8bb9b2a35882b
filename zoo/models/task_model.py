"""The task model: any backbone with layer groups, and a task head, as one module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from zoo.data.dataset import ModelInputs
from zoo.declare import BackboneSpec, Inputs, Origin
from zoo.errors import checked_arguments
from zoo.models.checks.features import check_features, no_gradient
from zoo.models.layers import LayerGroups
from zoo.models.pooling import Pool, pooling_of
from zoo.tasks.find import find_task
from zoo.trust.calibrated import Calibration
from zoo.tuning import Lora, apply_eval, freeze_prefix, hold_statistics

if TYPE_CHECKING:
    import numpy as np

    from zoo.engine.calibration.calibrate import Calibrated
    from zoo.engine.inference.evaluation import Evaluation
    from zoo.engine.objective.objective import Objective
    from zoo.engine.objective.supervised import Supervised
    from zoo.engine.options.recipe import Recipe
    from zoo.engine.output.write import Written
    from zoo.engine.preview.report import Preview
    from zoo.engine.rundir.run_folder import Run


_RANDOM_HEAD = "the head has the random values of adapt(), so predictions mean nothing; call fit() first"


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
        thresholds: Probability above which each label of a multi-label task is predicted, chosen by ``fit`` on the validation data;
            None for one half.
        calibration: What ``calibrate`` measured on held-out data, or None.
        trained_on: Digests of the training data of ``fit``.
        origins: Steps in which its values came about, from published weights to the last run.
        frozen: Length of the frozen prefix, in groups.
        trains: Trainable parameters of the groups that are not frozen: ``all``, the ``bias`` vectors, or those of ``lora`` or its kin.
        lora: The attached LoRA or update of a related kind, or None.
        freeze_bn: Whether BatchNorm statistics stay fixed in every group; scale and shift still train.
        pretrained: Whether the backbone's values come from weights, not from random initialisation.
        head_name: Name of the head's declaration.
        head_options: Options that the head was built with.
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
        self.thresholds: tuple[float, ...] | None = None
        self.calibration: Calibration | None = None
        self.trained_on: tuple[str, ...] = ()
        self.origins: tuple[Origin, ...] = ()
        self.frozen = 0
        self.trains = "all"
        self.lora: Lora | None = None
        self.freeze_bn = False
        self.pretrained = pretrained
        self.head_name = head_name
        self.head_options = dict(head_options or {})
        self.plugin = plugin
        self.random_head_warning = _RANDOM_HEAD
        self._random_head: list[tuple[int, Tensor]] | None = None
        self._warned_of_gradient = False  # of a backbone that no gradient reaches

    def forward(self, x: ModelInputs) -> Tensor:
        """Return logits ``(batch, num_classes)``, for token classification ``(batch, tokens, num_classes)``.

        Args:
            x: Normalised inputs ``(batch, *inputs.shape)``; for text the mapping that ``zoo.Text`` describes.
        """
        return self.logits(self.backbone(x), x)

    def logits(self, features: Tensor, x: ModelInputs) -> Tensor:
        """Return logits, as ``forward`` does, of the backbone's features of inputs ``x``, in the layout that ``spec.features`` declares.

        Raises:
            DeclarationError: If the features are not those that are declared.
        """
        check_features(features, self.spec, x)
        self._warned_of_gradient = self._warned_of_gradient or (self.training and no_gradient(features, self.backbone, self.spec.name))
        with self._exact(features):
            logits: Tensor = self.head(self._widened(features), *_mask(x))
        return logits

    def pooled_logits(self, pooled: Tensor) -> Tensor:
        """Return the logits of pooled features ``(batch, dim)``, for heads with a method ``logits``."""
        with self._exact(pooled):
            logits: Tensor = self.head.logits(self._widened(pooled))  # type: ignore[operator]  # callers check that it exists
        return logits

    def _exact(self, features: Tensor) -> AbstractContextManager[Any]:
        """Return a context that runs the head of a regression in float32; bf16 would round its outputs to two or three digits."""
        return torch.autocast(features.device.type, enabled=False) if find_task(self.task).standardized else nullcontext()

    def _widened(self, features: Tensor) -> Tensor:
        return features.float() if find_task(self.task).standardized and features.itemsize < 4 else features

    def embed_batch(self, x: ModelInputs) -> Tensor:
        """Return pooled features ``(batch, dim)`` for inputs as ``forward`` takes them."""
        return self.pool(self.backbone(x), x)

    def outputs_and_features(self, x: ModelInputs) -> Tensor:
        """Return logits and pooled features side by side, ``(batch, num_classes + dim)``, for inputs as ``forward`` takes them."""
        features = self.backbone(x)
        pooled = self.pool(features, x)
        pooled = pooled if pooled.ndim == 2 else Pool(self.spec.features)(features, *_mask(x))  # of a head that takes maps as they are
        return torch.cat([self.logits(features, x).float(), pooled.float()], 1)

    def pool(self, features: Tensor, x: ModelInputs) -> Tensor:
        """Return pooled features ``(batch, dim)`` of the backbone's features of ``x``; unchanged if the head's pool is ``none``.

        Raises:
            DeclarationError: If the features are not those that are declared.
        """
        check_features(features, self.spec, x)
        pooled: Tensor = pooling_of(self.head, self.spec.features)(features, *_mask(x))
        return pooled

    def note_random_head(self, warning: str = "") -> None:
        """Remember that the head's values are random, until they change.

        Args:
            warning: Why predictions mean nothing, and what to do; empty where ``adapt`` has drawn them.
        """
        self.random_head_warning = warning or _RANDOM_HEAD
        self._random_head = [(parameter._version, parameter.detach().clone()) for parameter in self.head.parameters()]

    @property
    def has_random_head(self) -> bool:
        """Whether the head still has the values that ``adapt`` drew: neither trained nor loaded."""
        # A change in place counts the version up, but for what the fused optimizers of a GPU change; a copy of the model begins at 0.
        now, drawn = list(self.head.parameters()), self._random_head
        return (
            drawn is not None
            and len(now) == len(drawn)
            and all(
                parameter._version <= version and torch.equal(value.to(parameter), parameter)
                for parameter, (version, value) in zip(now, drawn, strict=True)
            )
        )

    def freeze(self, upto: int | str) -> TaskModel:
        """Freeze the groups from the input on, in place, and unfreeze the others: ``freeze(0)`` none, ``freeze("stage2")`` inclusive.

        Frozen groups get no gradient and stay in eval mode, also after ``train()``: BatchNorm statistics do not change,
        dropout and drop-path are off. In the other groups the parameters selected by ``trains`` train.

        Raises:
            UnknownGroupError: If there is no such group.
            LayerGroupError: If ``trains`` selects no parameter of the groups that are not frozen.
        """
        length = self.groups.prefix_length(upto)
        freeze_prefix(self.groups, length, self.trains)
        self.frozen = length
        return self.train(self.training)

    def unfreeze(self) -> TaskModel:
        """Unfreeze all groups, in place; ``trains`` still selects the parameters."""
        return self.freeze(0)

    def train(self, mode: bool = True) -> TaskModel:
        """Set training mode, in place; the frozen prefix stays in eval mode, and BatchNorm where ``freeze_bn`` is set."""
        super().train(mode)
        apply_eval(self.groups, self.frozen)
        if self.freeze_bn:
            hold_statistics(self.backbone)
        return self

    def fit(
        self,
        train: Any,
        valid: Any = None,
        *,
        recipe: str | Recipe | None = None,
        budget: str | float | None = None,
        baselines: bool = False,
        epochs: int | None = None,
        batch_size: int | Literal["auto"] | None = None,
        lr: float | Literal["auto"] | None = None,
        image_size: int | tuple[int, int] | None = None,
        seed: int = 0,
        out: str | Path | None = None,
        resume: bool = False,
        quiet: bool = False,
        objective: Callable[[Supervised], Objective] | None = None,
        loss: str | Callable[[Tensor, Tensor], Tensor] | None = None,
        metrics: str | Sequence[str] | Mapping[str, Callable[..., Any] | tuple[Callable[..., Any], str]] | None = None,
        monitor: str | None = None,
        augment: str | Mapping[str, Any] | Callable[[Any], Any] | None = None,
        log_with: str | Sequence[Any] | None = None,
        on_epoch: Callable[[dict[str, Any]], Any] | None = None,
        accumulate: int | None = None,
        adapter_width: int | None = None,
        allow_leak: bool | None = None,
        average: float | None = None,
        balanced_sampling: bool | None = None,
        bss: float | None = None,
        cache: bool | None = None,
        cache_gb: float | None = None,
        class_weights: Literal["balanced"] | Mapping[str, float] | None = None,
        clip_grad: float | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        compile: bool | None = None,
        cutmix: float | None = None,
        delta: float | None = None,
        device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
        drop_other_classes: bool | None = None,
        drop_path: float | None = None,
        dropout: float | None = None,
        ema: float | None = None,
        erase: float | None = None,
        freeze: int | str | None = None,
        freeze_bn: bool | None = None,
        keep_checkpoints: bool | None = None,
        l2_sp: float | None = None,
        label_columns: Sequence[str] | None = None,
        label_smoothing: float | None = None,
        layer_decay: float | None = None,
        lora_alpha: float | None = None,
        lora_dropout: float | None = None,
        lora_rank: int | None = None,
        max_corrupt: float | None = None,
        max_length: int | None = None,
        mixup: float | None = None,
        on_corrupt: Literal["raise", "skip"] | None = None,
        optimizer: str | None = None,
        optimizer_options: Mapping[str, Any] | None = None,
        overflow: Literal["truncate", "error", "windows"] | None = None,
        patience: int | None = None,
        precision: Literal["auto", "fp32", "bf16"] | None = None,
        prompt_tokens: int | None = None,
        rand_augment: int | None = None,
        recompute: bool | None = None,
        refit_bias: bool | None = None,
        root: str | Path | None = None,
        schedule: str | None = None,
        shard: bool | None = None,
        solve_head: bool | None = None,
        timeout: float | None = None,
        trains: str | None = None,
        uncertain: Literal["mask", "positive", "negative"] | None = None,
        valid_split: str | int | None = None,
        views: int | None = None,
        warmup: float | None = None,
        weight_decay: float | None = None,
        window: tuple[float, float] | None = None,
        wise_ft: float | None = None,
        workers: int | None = None,
        **unknown: Any,
    ) -> Run:
        """Fine-tune in place; None leaves an option to the recipe.

        See ``zoo.engine.train.fit.fit`` for the result and the errors, docs/options.md for every option, and
        docs/quickstart.md for examples; ``recipe="auto"`` with a ``budget`` of time is ``zoo.select.recipe_search.auto.fit_auto``,
        and ``baselines=True`` ``zoo.select.negative_transfer.fit_with_baselines``.
        """
        apart = ("self", "train", "valid", "unknown", "budget", "baselines")
        options = {name: value for name, value in locals().items() if name not in apart and name != "apart"}
        if baselines:
            from zoo.select.negative_transfer import fit_with_baselines

            return fit_with_baselines(self, train, valid, budget=budget, **options, **unknown)
        if recipe == "auto" or budget is not None:
            from zoo.select.recipe_search.auto import fit_auto

            return fit_auto(self, train, valid, budget=budget, **options, **unknown)
        if getattr(objective, "compares_methods", False):
            from zoo.transfer.domain.choosing.auto import fit_adapted

            return fit_adapted(self, train, valid, **options, **unknown)
        from zoo.engine.train.fit import fit

        return fit(self, train, valid, **options, **unknown)

    def plan(self, train: Any, valid: Any = None, **options: Any) -> Preview:
        """Preview ``fit`` with the same arguments, with its memory and time; see ``zoo.engine.preview.preview.preview``.

        Of ``recipe="auto"`` it is the ``SearchPlan`` of ``zoo.select.recipe_search.plan``, which has other attributes.
        """
        if options.get("recipe") == "auto" or options.get("budget") is not None:
            from zoo.select.recipe_search.plan import plan_auto

            found: Any = plan_auto(self, train, valid, **{"recipe": None, **options})
            return found  # type: ignore[no-any-return]  # a union would be in the way of the many that plan one recipe
        from zoo.engine.preview.preview import preview

        return preview(self, train, valid, **options)

    @checked_arguments("evaluate()", "data and their labels are one argument, evaluate((X, y))")
    def evaluate(self, data: Any, **options: Any) -> Evaluation:
        """Return the metrics of the task on labelled data; see ``zoo.engine.inference.evaluate.evaluate``."""
        from zoo.engine.inference.evaluate import evaluate
        from zoo.engine.inference.predict import check_given

        check_given(evaluate, options)
        return evaluate(self, data, **options)

    @checked_arguments("calibrate()", "data and their labels are one argument, calibrate((X, y))")
    def calibrate(self, data: Any, **options: Any) -> Calibrated:
        """Measure temperature, conformal scores and outliers on held-out data, in place; see ``zoo.engine.calibration.calibrate``."""
        from zoo.engine.calibration.calibrate import calibrate
        from zoo.engine.inference.predict import check_given

        check_given(calibrate, options)
        return calibrate(self, data, **options)

    def predict(self, inputs: Any, **options: Any) -> list[Any]:
        """Return the predicted label of each input; see ``zoo.engine.inference.predict.predict``."""
        from zoo.engine.inference.predict import check_given, predict

        check_given(predict, options)
        return predict(self, inputs, **options)

    def predict_proba(self, inputs: Any, **options: Any) -> np.ndarray:
        """Return probabilities ``(n, num_classes)``; see ``zoo.engine.inference.predict.predict_proba``."""
        from zoo.engine.inference.predict import check_given, predict_proba

        check_given(predict_proba, options)
        return predict_proba(self, inputs, **options)

    def embed(self, inputs: Any, **options: Any) -> np.ndarray:
        """Return pooled features ``(n, dim)``; see ``zoo.engine.inference.predict.embed``."""
        from zoo.engine.inference.predict import check_given, embed

        check_given(embed, options)
        return embed(self, inputs, **options)

    def ood_score(self, inputs: Any, **options: Any) -> np.ndarray:
        """Return how unlike the calibration data inputs are, ``(n,)``, above 1 unusual; see ``zoo.engine.inference.predict.ood_score``."""
        from zoo.engine.inference.predict import check_given, ood_score

        check_given(ood_score, options)
        return ood_score(self, inputs, **options)

    def predict_to_file(self, inputs: Any, out: str | Path, **options: Any) -> Written:
        """Write the prediction for each input to a file, however many there are; see ``zoo.engine.output.write.write_results``."""
        from zoo.engine.inference.predict import check_given
        from zoo.engine.output.write import write_results

        check_given(write_results, options, called="predict_to_file")
        return write_results(self, inputs, out, "predictions", **options)

    def embed_to_file(self, inputs: Any, out: str | Path, **options: Any) -> Written:
        """Write the pooled features of each input to a file; see ``zoo.engine.output.write.write_results``."""
        from zoo.engine.inference.predict import check_given
        from zoo.engine.output.write import write_results

        check_given(write_results, options, called="embed_to_file")
        return write_results(self, inputs, out, "features", **options)

    def transform(self, train: bool = False, *, augment: Any = "light", seed: int = 0) -> Callable[[Any], Tensor]:
        """Return the transform of one image or volume, for a training loop of your own.

        Args:
            train: Whether images are augmented.
            augment: The augmentation, as for ``fit``.
            seed: Seed of the random numbers, which continue from call to call.

        Returns:
            A function of a path, PIL image or array to float32 ``(channels, height, width)``.

        Raises:
            OptionError: If the model reads texts.
        """
        from zoo.engine.loading.samples import single_transform

        return single_transform(self.inputs, augment if train else None, seed=seed)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Save weights, labels, preprocessing, groups and versions; ``zoo.load(folder)`` gives equal logits.

        Raises:
            OutputExistsError: If the folder exists and is not empty, unless ``overwrite``.
        """
        from zoo.saved.save import save

        return save(self, Path(folder), overwrite=overwrite)


def _mask(x: ModelInputs) -> tuple[Tensor, ...]:
    """Return the arguments of a head after the features: the padding mask for text, else none."""
    return (x["attention_mask"],) if isinstance(x, Mapping) else ()
