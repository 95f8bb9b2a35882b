"""The resolved configuration of a run: every option checked, all faults in one error, before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from zoo.engine.options.augment_options import AUGMENT_FIELDS, resolve_augment
from zoo.engine.options.model_selection import resolve_monitor
from zoo.engine.options.option_types import (
    Alpha,
    Float,
    Int,
    Option,
    Share,
    Switch,
    among,
    column_named,
    names_listed,
    pair_of,
    path_text,
    validation_faults,
    weights_by_class,
)
from zoo.engine.options.recipe import COUPLED, DECIDED, SCHEDULES, TRAINS, Phase, Recipe, batch_size_for
from zoo.engine.options.recipes import resolve_recipe
from zoo.errors import OptionError, did_you_mean, fault_list, refusals
from zoo.models.misplaced import MISPLACED, remedies
from zoo.tasks.find import find_task
from zoo.tasks.task import Task

_IN_PYTHON = ("metrics", "on_epoch", "log_with", "objective")  # arguments of fit() that only Python can hold
# Arguments of fit() that are not options, which a misspelt one may have meant.
_BESIDE = ("recipe", "budget", "train", "valid", "out", "resume", "quiet", *_IN_PYTHON)

# Optimizers of torch, listed without importing it; other names are looked up.
TORCH_OPTIMIZERS = COUPLED | {"adamw", "adafactor"}


def _as_text(value: Any) -> Any:
    """Return a fold number as text, as the split column has it."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:-1]) + f" or `{names[-1]}`"


# Options of gradient descent; a solved head ignores them.
_GRADIENT_OPTIONS = (
    "lr",
    "optimizer",
    "optimizer_options",
    "schedule",
    "warmup",
    "weight_decay",
    "clip_grad",
    "patience",
    "ema",
    "average",
    "dropout",
)
_HOOKED = MappingProxyType({"compile": "torch.compile ignores forward hooks"})
_FACTORS = MappingProxyType({"trains=lora": "averaging LoRA factors is not averaging the weights they produce"})


class Config(BaseModel):
    """Every option of one run, resolved; saved in ``run.json``, and compared when a run is resumed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    recipe: Recipe
    epochs: Annotated[
        Int | None,
        Option(
            "total epochs of the phases without a fixed length; a solved head takes one of them. With fewer epochs than phases, the last "
            "phases are skipped and logged (`gradual` then unfreezes several groups at a time)",
            "of the recipe",
            flag="N",
        ),
    ] = Field(default=None, ge=1, le=1_000_000)
    solve_head: Annotated[
        Switch,
        Option(
            "compute the optimum of a linear head on cached features, with a penalty chosen by cross-validation; off, or where it cannot "
            "be solved, it is trained. `linear-probe` trains it too where an option of its steps is given, such as `lr`"
        ),
    ] = True
    batch_size: Annotated[
        Literal["auto"] | Annotated[Int, Field(ge=1)] | None,
        Option(
            "samples of a batch, on all processes together; batch sizes differ by at most one, so the last batch is not smaller. Unless "
            "the recipe has a number, 8, 16 or 32, with which an epoch has 50 steps; see [defaults.md](defaults.md). `auto`: the same, in "
            "micro-batches that fit",
            "of the recipe",
            flag="N",
        ),
    ] = None
    accumulate: Annotated[Int, Option("batches per optimizer step")] = Field(default=1, ge=1)
    lr: Annotated[
        Literal["auto"] | Annotated[Float, Field(gt=0)],
        Option(
            "learning rate of the head, per step; groups get less by `layer_decay`, phases by their own factor. `auto`: a range test per "
            "phase",
            "of the recipe",
            flag="LR",
        ),
    ]
    layer_decay: Annotated[Float, Option("factor on the rate per layer group toward the input", "of the recipe", backbone=True)] = Field(
        gt=0, le=1
    )
    weight_decay: Annotated[
        Float,
        Option(
            "decoupled decay of AdamW, for tensors of two dimensions and more; at most 1e-4 with optimizers that add it to the gradient",
            "of the recipe",
        ),
    ] = Field(ge=0)
    optimizer: Annotated[
        str, Option("one of torch's optimizers, or of timm's where it is installed; see [learning-rates.md](learning-rates.md)")
    ] = "adamw"
    optimizer_options: Annotated[dict[str, Any], Option('the optimizer\'s own options, such as `{"momentum": 0.9}`', "none")] = Field(
        default_factory=dict
    )
    schedule: Annotated[str, AfterValidator(among(SCHEDULES)), Option(f"one of {_listed(SCHEDULES)}")] = "cosine"
    warmup: Annotated[
        Float,
        Option(
            'share of a phase\'s steps over which the rate rises; the schedule follows. With `schedule="one-cycle"` it is 0.3',
            "of the recipe",
        ),
    ] = Field(ge=0, lt=1)
    trains: Annotated[
        str,
        AfterValidator(among(TRAINS)),
        Option(f"what trains in groups that are not frozen: {_listed(TRAINS)}; see [lora.md](lora.md)", "of the recipe", backbone=True),
    ] = "all"
    lora_rank: Annotated[Int, Option("rank of LoRA's updates", only="lora")] = Field(default=8, ge=1)
    lora_alpha: Annotated[Float, Option("numerator of the scale of LoRA's updates", only="lora")] = Field(default=16.0, gt=0)
    lora_dropout: Annotated[Float, Option("dropout of the inputs of LoRA's updates", only="lora")] = Field(default=0.0, ge=0, lt=1)
    l2_sp: Annotated[
        Alpha, Option("penalty on the distance to the start; see [regularisers.md](regularisers.md)", "0, off", backbone=True, shards=False)
    ] = 0.0
    delta: Annotated[
        Alpha,
        Option("penalty on the distance of features to those of the start", "0, off", backbone=True, shards=False, excludes=_HOOKED),
    ] = 0.0
    bss: Annotated[Alpha, Option("penalty on features that are mostly noise", "0, off", backbone=True, shards=False, excludes=_HOOKED)] = (
        0.0
    )
    drop_path: Annotated[Float, Option("stochastic depth over the backbone's blocks", backbone=True, shards=False, excludes=_HOOKED)] = (
        Field(default=0.0, ge=0, lt=1)
    )
    dropout: Annotated[
        Float | None, Option("dropout of the whole model; 0 turns off what the backbone has", "as the backbone has it", shards=False)
    ] = Field(default=None, ge=0, lt=1)
    ema: Annotated[Float, Option("decay of a moving average of the values", "0, off", shards=False)] = Field(default=0.0, ge=0, lt=1)
    average: Annotated[Share, Option("share of the last epochs whose values are averaged", "0, off", shards=False, excludes=_FACTORS)] = 0.0
    wise_ft: Annotated[
        Float, Option("share of the fine-tuned values in a mixture with those before the last phase", shards=False, excludes=_FACTORS)
    ] = Field(default=1.0, gt=0, le=1)
    recompute: Annotated[
        Switch, Option("compute activations again in the backward pass instead of keeping them", backbone=True, excludes=_HOOKED)
    ] = False
    compile: Annotated[Switch, Option("compile the backbone with `torch.compile`", shards=False)] = False
    shard: Annotated[Switch, Option("shard parameters over the processes (FSDP2); see [several-devices.md](several-devices.md)")] = False
    keep_checkpoints: Annotated[Switch, Option("keep the checkpoints of a run that is finished", free=True)] = False
    timeout: Annotated[Float, Option("seconds that a process waits for the others", free=True)] = Field(default=600.0, gt=0)
    label_smoothing: Annotated[Float, Option("share of the target that is spread over all classes", "of the recipe")] = Field(ge=0, lt=1)
    loss: Annotated[
        str | None,
        Option(
            "`cross-entropy`, `focal`, `bce`, `poly`, `asymmetric`, `mse` or `huber`, as far as the task has it; in Python also a "
            "[function](own-parts.md#a-loss)",
            "of the task",
        ),
    ] = None
    clip_grad: Annotated[Float | None, Option("largest gradient norm", "off")] = Field(default=None, gt=0)
    freeze: Annotated[
        Int | str, Option("frozen prefix that every phase keeps: a number of groups, or a group's name, inclusive, or `all`")
    ] = 0
    freeze_bn: Annotated[
        Switch,
        Option("BatchNorm of the trained groups keeps its pretrained statistics; scale and shift train", "of the recipe", backbone=True),
    ] = False
    cache: Annotated[
        Switch,
        Option("compute the frozen groups once per sample, not once per epoch; logged if the model cannot be split there"),
    ] = True
    cache_gb: Annotated[
        Float,
        Option("most that this may take, in GiB; more than 0.5 goes to a file in the run's folder that vanishes with the run", free=True),
    ] = Field(default=4.0, ge=0)
    views: Annotated[Int, Option("augmented views per sample that a cached phase keeps", reads=("image", "volume"))] = Field(
        default=1, ge=1
    )
    class_weights: Annotated[
        Literal["balanced"] | dict[str, float] | None,
        BeforeValidator(weights_by_class),
        Option('`balanced`, or a weight for each class by its name (`{"ants": 1, "bees": 3}`)', "off"),
    ] = None
    balanced_sampling: Annotated[Switch, Option("draw every class equally often")] = False
    patience: Annotated[Int, Option("epochs without improvement after which a phase ends", "0, off", waits=True)] = Field(default=0, ge=0)
    monitor: Annotated[
        str | None,
        Option(
            "metric that chooses the kept epoch: `accuracy`, `balanced_accuracy`, `macro_f1`, `auroc`, `map`, `mae`, `loss` …, or one of "
            "your [own](own-parts.md#metrics)",
            "of the task",
            waits=True,
        ),
    ] = None
    seed: Annotated[Int, Option("decides order, augmentation and dropout", flag="N")] = Field(default=0, ge=0, lt=2**63)
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Option("where to train", free=True)] = "auto"
    precision: Annotated[Literal["auto", "fp32", "bf16"], Option("of forward passes; `auto` is bf16 on GPUs that have it")] = "auto"
    workers: Annotated[Int | None, Option("loader processes", "0 on a CPU", free=True)] = Field(default=None, ge=0)
    image_size: Annotated[
        tuple[Int, Int] | None,
        Option(
            "pixels, one number or height and width; a backbone of fixed size takes `zoo.get(name, img_size=…)` instead",
            "of the backbone",
            flag="S",
        ),
    ] = None
    max_length: Annotated[Int | None, Option("most tokens of a text", "of the backbone")] = Field(default=None, ge=8)
    overflow: Annotated[
        Literal["truncate", "error", "windows"] | None,
        Option(
            "what becomes of a text with more tokens: it is cut (`truncate`), refused (`error`), or read in overlapping `windows`; see "
            "[text.md](text.md#long-texts)",
            "of the model, `truncate`",
        ),
    ] = None
    window: Annotated[
        Annotated[tuple[Float, Float], BeforeValidator(pair_of("centre, width"))] | None,
        Option(
            "centre and width that a DICOM image or a volume is shown through, in its units, such as `(40, 400)` Hounsfield units",
            "of the file; of a volume its mean and standard deviation",
        ),
    ] = None
    augment: Annotated[dict[str, Any] | None, Option("see [below](#augmentation)", "of the recipe")] = None
    columns: Annotated[
        dict[str, Annotated[Any, BeforeValidator(column_named)]],
        Option(
            "own names of the columns, such as `file_name=file,group=patient_id`, in Python a mapping; without it `path`, `file`, `image` "
            "and their like are found too, for texts `sentence`, `sentence1` with `sentence2`, `premise` with `hypothesis`, `tokens`, for "
            "labels `labels`, `tags`",
            "none",
            section="Data",
            flag="NAMES",
        ),
    ] = Field(default_factory=dict)
    label_columns: Annotated[
        Annotated[tuple[str, ...], BeforeValidator(names_listed)],
        Option(
            "columns that hold the labels, one per class: 1, 0, or empty where unknown; for a single label exactly one 1 per row, for a "
            "regression its numbers. The same as a list for `label` in `columns`",
            "none",
            section="Data",
            flag="A,B",
        ),
    ] = ()
    root: Annotated[
        Annotated[str, BeforeValidator(path_text)] | None,
        Option(
            "folder of the files that a table names; names may lack their endings, and may be in folders below",
            "that of the table",
            section="Data",
            flag="DIR",
            reads=("image", "volume"),
            free=True,
        ),
    ] = None
    uncertain: Annotated[
        Literal["mask", "positive", "negative"] | None,
        Option(
            "what a label of -1 counts as in a multi-label task; `mask` leaves it out of loss and metrics, as a missing one",
            "refused",
            section="Data",
            flag="HOW",
        ),
    ] = None
    valid_split: Annotated[
        Annotated[str, BeforeValidator(_as_text)] | None,
        Option(
            "value of the split column that is held out, such as a fold", "`val`, `valid` or `validation`", section="Data", flag="VALUE"
        ),
    ] = None
    allow_leak: Annotated[Switch, Option("go on where a group has samples on both sides", section="Data")] = False
    drop_other_classes: Annotated[
        Switch,
        Option(
            "leave out samples of classes that the model's labels (`adapt(labels=[…])`, `--classes A,B`) do not name, instead of refusing "
            "them",
            section="Data",
            flag="-",
        ),
    ] = False
    on_corrupt: Annotated[
        Literal["raise", "skip"],
        Option("what to do at a sample that cannot be decoded", section="Data", reads=("image", "volume")),
    ] = "raise"
    max_corrupt: Annotated[Float, Option('share of the samples that `on_corrupt="skip"` may leave out', section="Data")] = Field(
        default=0.01, ge=0, le=1
    )

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
        """Samples of a batch; ``auto`` changes only the micro-batches that it is computed in."""
        size = self.recipe.batch_size if self.batch_size == "auto" else self.batch_size
        assert size is not None, "the data are not opened yet, see sized_for"
        return size

    @property
    def opening(self) -> dict[str, Any]:
        """The options that are arguments of ``open_train_valid``."""
        names = ("columns", "valid_split", "seed", "allow_leak", "drop_other_classes", "label_columns", "uncertain", "root")
        return {name: getattr(self, name) for name in names} | {"skip_broken": self.on_corrupt == "skip"}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return self.model_dump(mode="json", exclude={"recipe"}) | {"recipe": asdict(self.recipe)}


_SINGLE = MappingProxyType({"views": "views are cached outputs of single samples"})
# Options of fit() that become fields of `augment`.
SWITCHES: Mapping[str, Option] = MappingProxyType(
    {
        "mixup": Option("alpha of mixup's Beta distribution", reads=("image",), excludes=_SINGLE),
        "cutmix": Option("alpha of CutMix's Beta distribution", reads=("image",), excludes=_SINGLE),
        "rand_augment": Option("magnitude of RandAugment", reads=("image",)),
        "erase": Option("probability of random erasing", reads=("image",)),
    }
)
DECLARED: Mapping[str, Option] = MappingProxyType(
    {
        name: next(one for one in field.metadata if isinstance(one, Option))
        for name, field in Config.model_fields.items()
        if name != "recipe"
    }
)
OPTIONS = tuple(sorted({*DECLARED, *SWITCHES}))


def _hint(name: str, given: Mapping[str, Any]) -> str:
    """Return what an unknown option may have been meant for."""
    if name in MISPLACED:
        return f" here: {remedies(given)[name]}"
    if name in _IN_PYTHON:
        return ", which fit() takes in Python only, see docs/own-parts.md"
    if name in AUGMENT_FIELDS:
        return f" here: it is a field of augment, augment={{{name!r}: …}}"
    return did_you_mean(name, [*OPTIONS, *_BESIDE])


def resolve(
    recipe: str | Recipe,
    options: Mapping[str, Any],
    *,
    task: str = "single-label",
    check_optimizer: Callable[[str, Mapping[str, Any]], None] | None = None,
    metrics: Collection[str] = (),
    faults: Sequence[str] = (),
) -> Config:
    """Merge the given options (None means not given) over the recipe's defaults and check all of them.

    Args:
        recipe: A name or a recipe.
        options: By name.
        task: Name of the task.
        check_optimizer: Raises for optimizers that are not installed; None skips the check.
        metrics: Names of the user's own metrics, which ``monitor`` may name.
        faults: What is wrong with the user's own parts, to be raised with the rest.

    Raises:
        OptionError: One error that names every unknown option, with its nearest, every value out of range, and every option
            that has no effect.
    """
    chosen = resolve_recipe(recipe)
    given = {name: value for name, value in options.items() if value is not None}
    faults = [*faults]
    hints = {name: _hint(name, given) for name in given if name not in OPTIONS}
    faults += [f"there is no option {name!r}{hint}" for name, hint in hints.items()]
    values = {name: getattr(chosen, name) for name in DECIDED if name != "epochs"}
    values |= {"solve_head": _solves_head(chosen, given)}
    values |= {name: value for name, value in given.items() if name in Config.model_fields}
    _apply_optimizer_defaults(values, given, chosen)
    values["augment"] = resolve_augment(given.get("augment", chosen.augment), {key: given[key] for key in SWITCHES if key in given}, faults)
    try:
        config = Config(recipe=chosen, **values)
    except ValidationError as error:
        faults += validation_faults(error)
    faults += _without_effect(values, given, chosen) + _beyond_ranges(values, find_task(task), check_optimizer, metrics)
    if faults:
        remedy = "" if all(hints.values()) else f"The options are: {', '.join(OPTIONS)}"
        raise OptionError(fault_list(f"recipe {chosen.name!r} cannot run with these options", faults, remedy))
    return config


def _solves_head(recipe: Recipe, given: Mapping[str, Any]) -> bool:
    """Return the default of `solve_head`: False for a recipe of solved phases only if an option of gradient descent is given."""
    return not (all(phase.solve for phase in recipe.phases) and any(name in given for name in _GRADIENT_OPTIONS))


def _beyond_ranges(
    values: Mapping[str, Any],
    task: Task,
    check_optimizer: Callable[[str, Mapping[str, Any]], None] | None,
    metrics: Collection[str],
) -> list[str]:
    """Return the faults of values whose range depends on the installed packages or on the task."""
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
    """Return one fault for each given option without effect in this run."""
    faults = []
    for kind in sorted({option.only for option in DECLARED.values()} - {"", values["trains"]}):
        if names := [name for name in given if name in DECLARED and DECLARED[name].only == kind]:
            faults.append(f"{', '.join(names)}: the recipe trains no LoRA; take recipe={kind!r} or trains={kind!r}")
    phases, views = recipe.phases, (given.get("views") or 1) != 1
    if views and values["augment"] is None:
        faults.append("views: they are augmented ones, and nothing is augmented; give augment='light'")
    elif views and not values.get("freeze") and all(phase.frozen in ("none", 0) for phase in phases):
        faults.append("views: only outputs of a frozen prefix are cached, and the recipe freezes nothing; take another, such as 'top'")
    elif views and (values.get("cache") is False or values.get("shard") is True):
        faults.append("views: nothing is cached with cache=False or shard=True")
    if "max_corrupt" in given and values.get("on_corrupt") != "skip":
        faults.append("max_corrupt: it is the share that on_corrupt='skip' may leave out")
    if "epochs" in given and all(phase.epochs or phase.steps for phase in phases):
        faults.append("epochs: every phase of the recipe has a length of its own")
    idle = [name for name, option in DECLARED.items() if option.backbone and name != "trains" and given.get(name)]
    idle += ["trains"] if values["trains"] != "all" else []
    if idle and values.get("freeze") == "all":
        faults.append(f"{', '.join(idle)}: freeze='all' leaves nothing of the backbone to train")
    elif idle and all(phase.frozen == "all" for phase in phases):
        faults.append(f"{', '.join(idle)}: the recipe trains nothing of the backbone; take another, such as 'lp-ft'")
    return faults


def _apply_optimizer_defaults(values: dict[str, Any], given: Mapping[str, Any], recipe: Recipe) -> None:
    """Set the defaults that depend on the optimizer and the schedule, in place; an option or a recipe that decides both keeps its own."""
    defaults = {field.name: field.default for field in fields(Recipe)}

    def is_free(name: str, decider: str) -> bool:
        return name not in given and (values[decider] != getattr(recipe, decider) or getattr(recipe, name) == defaults[name])

    if str(values["optimizer"]).lower() in COUPLED and is_free("weight_decay", "optimizer"):
        values["weight_decay"] = min(values["weight_decay"], 1e-4)  # added to the gradient (He et al. 2016)
    if values["schedule"] == "one-cycle" and is_free("warmup", "schedule"):
        values["warmup"] = 0.3  # as in torch and fastai


def sized_for(config: Config, samples: int) -> Config:
    """Return the configuration with a batch size for a number of training samples, where neither an option nor the recipe gives one."""
    size = config.recipe.batch_size or batch_size_for(samples)
    recipe = replace(config.recipe, batch_size=size)
    return config.model_copy(update={"recipe": recipe, "batch_size": config.batch_size or size})


def as_begun(config: Config, theirs: Mapping[str, Any]) -> Config:
    """Return the configuration with the phases and sizes that an earlier version began a run with, so that it can go on.

    Args:
        config: The configuration of today.
        theirs: That of the run, as ``to_dict`` of that version gave it.
    """
    recorded = theirs["recipe"]
    if recorded["name"] != config.recipe.name or all("least_steps" in phase for phase in recorded["phases"]):
        return config
    phases = tuple(Phase(**phase) for phase in recorded["phases"])  # whose fields of today are off by default
    recipe = replace(config.recipe, phases=phases, batch_size=recorded["batch_size"])
    if "solve_head" in theirs:
        return config.model_copy(update={"recipe": recipe})
    return config.model_copy(update={"recipe": recipe, "solve_head": False, "epochs": config.epochs or recipe.epochs})


def option_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the differences of two configurations that change the result; workers and device do not."""
    free = {name for name, option in DECLARED.items() if option.free}
    # An option that the other run did not have yet counts as its default.
    before = {name: theirs.get(name, _json_default(name)) for name in ours}
    before |= {"solve_head": theirs.get("solve_head", False)}  # versions without it trained every head
    if isinstance(before.get("recipe"), dict):  # phases of earlier versions lack fields, which are off
        phases = before["recipe"]["phases"]
        before["recipe"] = before["recipe"] | {"phases": type(phases)({"solve": False, "least_steps": 0, **phase} for phase in phases)}
    names = [name for name in ours if name not in free and ours[name] != before[name]]
    return [f"{name} was {before[name]!r} and is {ours[name]!r}" for name in names]


def _json_default(name: str) -> Any:
    """Return the default of an option in the form of a record, where a tuple is a list."""
    field = Config.model_fields.get(name)
    default = field.get_default(call_default_factory=True) if field is not None else None
    return list(default) if isinstance(default, tuple) else default
