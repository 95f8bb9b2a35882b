"""The resolved configuration of a run: every option checked, all faults told at once, before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from zoo.engine.options.augment_options import resolve_augment
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.options.option_types import Alpha, Float, Int, Share, Switch, all_told, among, pair, weights_by_class
from zoo.engine.options.recipe import COUPLED, DECIDED, SCHEDULES, TRAINS, Recipe
from zoo.engine.options.recipes import resolve_recipe
from zoo.errors import OptionError, did_you_mean, fault_list, refusals
from zoo.tasks.find import find_task
from zoo.tasks.task import Task

_BESIDE = ("recipe", "train", "valid", "out", "resume", "quiet")  # named arguments of fit(), which a misspelt option may have meant

# Those of torch, known without importing it; whatever else is asked for is looked up.
TORCH_OPTIMIZERS = COUPLED | {"adamw", "adafactor"}


def _as_text(value: Any) -> Any:
    """Return the number of a fold as the text that it is in the split column."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Config(BaseModel):
    """Every option of one run, resolved: what ``run.json`` keeps and what a resumed run must agree with."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    recipe: Recipe
    epochs: Int = Field(ge=1, le=1_000_000)
    batch_size: Literal["auto"] | Annotated[Int, Field(ge=1)]
    lr: Literal["auto"] | Annotated[Float, Field(gt=0)]
    image_size: tuple[Int, Int] | None = None
    window: Annotated[tuple[Float, Float], BeforeValidator(pair)] | None = None
    max_length: Int | None = Field(default=None, ge=8)
    seed: Int = Field(default=0, ge=0, lt=2**63)
    layer_decay: Float = Field(gt=0, le=1)
    weight_decay: Float = Field(ge=0)
    warmup: Float = Field(ge=0, lt=1)
    label_smoothing: Float = Field(ge=0, lt=1)
    loss: str | None = None
    optimizer: str = "adamw"
    optimizer_options: dict[str, Any] = Field(default_factory=dict)
    schedule: Annotated[str, AfterValidator(among(SCHEDULES))] = "cosine"
    trains: Annotated[str, AfterValidator(among(TRAINS))] = "all"
    lora_rank: Int = Field(default=8, ge=1)
    lora_alpha: Float = Field(default=16.0, gt=0)
    lora_dropout: Float = Field(default=0.0, ge=0, lt=1)
    l2_sp: Alpha = 0.0
    delta: Alpha = 0.0
    bss: Alpha = 0.0
    drop_path: Float = Field(default=0.0, ge=0, lt=1)
    dropout: Float | None = Field(default=None, ge=0, lt=1)
    ema: Float = Field(default=0.0, ge=0, lt=1)
    average: Share = 0.0
    wise_ft: Float = Field(default=1.0, gt=0, le=1)
    recompute: Switch = False
    compile: Switch = False
    shard: Switch = False
    class_weights: Annotated[Literal["balanced"] | dict[str, float] | None, BeforeValidator(weights_by_class)] = None
    balanced_sampling: Switch = False
    patience: Int = Field(default=0, ge=0)
    augment: dict[str, Any] | None = None
    views: Int = Field(default=1, ge=1)
    cache: Switch = True
    cache_gb: Float = Field(default=4.0, ge=0)
    freeze: Int | str = 0
    freeze_bn: Switch = False
    clip_grad: Float | None = Field(default=None, gt=0)
    accumulate: Int = Field(default=1, ge=1)
    monitor: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    valid_split: Annotated[str, BeforeValidator(_as_text)] | None = None
    allow_leak: Switch = False
    drop_other_classes: Switch = False
    on_corrupt: Literal["raise", "skip"] = "raise"
    max_corrupt: Float = Field(default=0.01, ge=0, le=1)
    workers: Int | None = Field(default=None, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    timeout: Float = Field(default=600.0, gt=0)

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        side = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
        if isinstance(side, int) and not isinstance(side, bool):
            return side, side
        if side is not None and not (isinstance(side, (list, tuple)) and len(side) == 2):
            raise ValueError("must be a number of pixels, or two (height, width)")
        return side

    @field_validator("window")
    @classmethod
    def _wide(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and value[1] <= 0:
            raise ValueError("must be (centre, width), the width positive")
        return value

    @field_validator("image_size")
    @classmethod
    def _pixels(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value and min(value) < 1:
            raise ValueError("must be at least 1 pixel")
        return value

    @property
    def samples(self) -> int:
        """Samples of a batch; ``auto`` finds how many of them fit into memory at a time, not how many they are."""
        return self.recipe.batch_size if self.batch_size == "auto" else self.batch_size

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return self.model_dump(mode="json", exclude={"recipe"}) | {"recipe": asdict(self.recipe)}


# Options of fit() that are no fields: they become part of `augment`.
_SWITCHES = ("mixup", "cutmix", "rand_augment", "erase")
OPTIONS = tuple(sorted({*Config.model_fields, *_SWITCHES} - {"recipe"}))


def resolve(
    recipe: str | Recipe,
    options: Mapping[str, Any],
    *,
    task: str = "single-label",
    check_optimizer: Callable[[str, Mapping[str, Any]], None] | None = None,
    metrics: Collection[str] = (),
) -> Config:
    """Merge the options given (None means not given) over the recipe's defaults and check all of them.

    Args:
        recipe: A name or a recipe.
        options: By name.
        task: What the model is trained for.
        check_optimizer: Refuses an optimizer that needs a look at what is installed; None lets it pass.
        metrics: Names of the user's own metrics, one of which may be the monitor.

    Raises:
        OptionError: One error that names every unknown option, with its nearest, every value out of range, and every option
            that would change nothing.
    """
    chosen = resolve_recipe(recipe)
    given = {name: value for name, value in options.items() if value is not None}
    faults = [f"there is no option {name!r}{did_you_mean(name, [*OPTIONS, *_BESIDE])}" for name in given if name not in OPTIONS]
    values = {name: getattr(chosen, name) for name in DECIDED}
    values |= {name: value for name, value in given.items() if name in Config.model_fields}
    _suit_optimizer(values, given)
    values["augment"] = resolve_augment(
        given.get("augment", chosen.augment), {key: given[key] for key in _SWITCHES if key in given}, faults
    )
    try:
        config = Config(recipe=chosen, **values)
    except ValidationError as error:
        faults += all_told(error)
    faults += _without_effect(values, given, chosen) + _beyond_ranges(values, find_task(task), check_optimizer, metrics)
    if faults:
        lost = any("no option" in fault and "did you mean" not in fault for fault in faults)
        hint = f"The options are: {', '.join(OPTIONS)}" if lost else ""
        raise OptionError(fault_list(f"recipe {chosen.name!r} cannot run with these options", faults, hint))
    return config


def _beyond_ranges(
    values: Mapping[str, Any],
    task: Task,
    check_optimizer: Callable[[str, Mapping[str, Any]], None] | None,
    metrics: Collection[str],
) -> list[str]:
    """Return what is wrong with values that are right by what is installed, or by the task."""
    faults = refusals(resolve_monitor, values.get("monitor"), task, metrics) if isinstance(values.get("monitor"), str) else []
    loss = values.get("loss")
    if isinstance(loss, str) and loss not in task.losses:
        known = ", ".join(task.losses) or "none by name"
        faults.append(f"loss is {loss!r}{did_you_mean(loss, task.losses)}; for a {task.name} task it is one of: {known}")
    name, options = values["optimizer"], values.get("optimizer_options", {})
    familiar = not options and isinstance(name, str) and name.lower() in TORCH_OPTIMIZERS
    if check_optimizer and isinstance(name, str) and isinstance(options, Mapping) and not familiar:
        faults += refusals(check_optimizer, name, options)
    return faults


def _without_effect(values: Mapping[str, Any], given: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Tell which options were given that would change nothing in this run."""
    faults = []
    if values["trains"] != "lora" and (lora := [name for name in given if name.startswith("lora_")]):
        faults.append(f"{', '.join(lora)}: the recipe trains no LoRA; take recipe='lora' or trains='lora'")
    phases = recipe.phases
    if (given.get("views") or 1) != 1 and values["augment"] is None:
        faults.append("views: they are augmented ones, and nothing is augmented; give augment='light'")
    elif (given.get("views") or 1) != 1 and not values.get("freeze") and all(phase.frozen in ("none", 0) for phase in phases):
        faults.append("views: they are kept of what is frozen, and the recipe freezes nothing; take another, such as 'top'")
    elif (given.get("views") or 1) != 1 and (values.get("cache") is False or values.get("shard") is True):
        faults.append("views: nothing is kept with cache=False or shard=True")
    if "max_corrupt" in given and values.get("on_corrupt") != "skip":
        faults.append("max_corrupt: it is the share that on_corrupt='skip' may leave out")
    if "epochs" in given and all(phase.epochs or phase.steps for phase in phases):
        faults.append("epochs: every phase of the recipe has a length of its own")
    idle = [name for name in ("l2_sp", "delta", "bss", "drop_path", "recompute", "layer_decay", "freeze_bn") if given.get(name)]
    idle += ["trains"] if values["trains"] != "all" else []
    if idle and values.get("freeze") == "all":
        faults.append(f"{', '.join(idle)}: freeze='all' leaves nothing of the backbone to train")
    elif idle and all(phase.frozen == "all" for phase in phases):
        faults.append(f"{', '.join(idle)}: the recipe trains nothing of the backbone; take another, such as 'lp-ft'")
    return faults


def _suit_optimizer(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Replace defaults of the recipe that mean something else to another optimizer or schedule, in place."""
    if str(values["optimizer"]).lower() in COUPLED and "weight_decay" not in given:
        values["weight_decay"] = min(values["weight_decay"], 1e-4)  # as a part of the gradient (He et al. 2016)
    if values["schedule"] == "one-cycle" and "warmup" not in given:
        values["warmup"] = 0.3  # of torch and fastai


def option_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Tell where two configurations differ in what changes the result; workers and device do not."""
    free = {"workers", "device", "cache_gb", "timeout"}
    fields = Config.model_fields
    # An option that is younger than the other run was what it is if nobody gives it.
    before = {name: theirs.get(name, fields[name].get_default(call_default_factory=True) if name in fields else None) for name in ours}
    names = [name for name in ours if name not in free and ours[name] != before[name]]
    return [f"{name} was {before[name]!r} and is {ours[name]!r}" for name in names]
