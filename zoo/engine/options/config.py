"""The resolved configuration of a run, and the declarations of its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

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
    weights_by_class,
)
from zoo.engine.options.recipe import LONG, RANKED, SCHEDULES, TRAINS, WIDE, Recipe, batch_size_for
from zoo.util.numbers import is_whole, whole_of


def _as_text(value: Any) -> Any:
    """Return a fold number as text, as the split column has it."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:-1]) + f" or `{names[-1]}`"


_HOOKED = MappingProxyType({"compile": "torch.compile ignores forward hooks"})
_PRODUCTS = "averaging its factors is not averaging the weights they produce"
_FACTORS = MappingProxyType({f"trains={kind}": _PRODUCTS for kind in (*RANKED, "ia3")})
_BUDGET = MappingProxyType({"trains=adalora": "ranks are chosen among whole matrices, and each process has a part of them"})


SHORTEST = 8  # tokens that a text may be cut to


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
    lora_rank: Annotated[Int, Option("rank of the updates of LoRA and its kin", only=RANKED)] = Field(default=8, ge=1)
    lora_alpha: Annotated[Float, Option("numerator of the scale of these updates", only=RANKED)] = Field(default=16.0, gt=0)
    lora_dropout: Annotated[Float, Option("dropout of the inputs of these updates", only=("lora", "dora", "adalora"))] = Field(
        default=0.0, ge=0, lt=1
    )
    adapter_width: Annotated[Int, Option("channels in the middle of a bottleneck adapter", only=WIDE)] = Field(default=16, ge=1)
    prompt_tokens: Annotated[Int, Option("learned tokens of `prompt`, and of each block with `prefix`", only=LONG)] = Field(default=8, ge=1)
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
        Float,
        Option(
            "share of the fine-tuned values in a mixture with those before the last phase",
            "1; less with [very few samples](defaults.md#very-few-samples)",
            shards=False,
            excludes=_FACTORS,
        ),
    ] = Field(default=1.0, gt=0, le=1)
    refit_bias: Annotated[
        Switch | None,
        Option(
            "fit the biases of a linear head anew after tuning, on the images as they are, where they were augmented",
            "for at most [40 samples](defaults.md#augmented-views-shift-the-head)",
            shards=False,
        ),
    ] = None
    recompute: Annotated[
        Switch, Option("compute activations again in the backward pass instead of keeping them", backbone=True, excludes=_HOOKED)
    ] = False
    compile: Annotated[Switch, Option("compile the backbone with `torch.compile`", shards=False)] = False
    shard: Annotated[
        Switch, Option("shard parameters over the processes (FSDP2); see [several-devices.md](several-devices.md)", excludes=_BUDGET)
    ] = False
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
            "of the task; for unequal classes see [defaults.md](defaults.md#the-monitor)",
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
    max_length: Annotated[Int | None, Option("most tokens of a text", "of the backbone")] = Field(default=None, ge=SHORTEST)
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
    judge_augment: bool = False
    mix_few: bool = False
    columns: Annotated[
        dict[str, Annotated[Any, BeforeValidator(column_named)]],
        Option(
            "own names of the columns, such as `file_name=file,group=patient_id`; in Python a mapping; without it `path`, `file`, `image` "
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
    allow_leak: Annotated[
        Switch,
        Option("go on where a file or a group has samples on both sides; the record of the run says so", section="Data", flag="-"),
    ] = False
    drop_other_classes: Annotated[
        Switch,
        Option(
            "leave out samples of classes that are none of the model's labels, instead of refusing them; the labels are those of "
            "`adapt(labels=[…])`, or `--classes A,B`",
            section="Data",
            flag="-",
        ),
    ] = False
    on_corrupt: Annotated[
        Literal["raise", "skip"],
        Option("what to do at a sample that cannot be decoded", section="Data", reads=("image", "volume")),
    ] = "raise"
    max_corrupt: Annotated[
        Annotated[Float, Field(ge=0, le=1)] | None,
        Option(
            'share of the samples that `on_corrupt="skip"` may leave out; training and validation data count apart, unless the second '
            "are held out of the first",
            default="0.01; in small sets one sample, and up to five as long as they are at most a tenth",
            section="Data",
            free=True,
        ),
    ] = None

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        side = whole_of(value)
        if is_whole(side):
            return int(side), int(side)
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
        if name not in ("recipe", "judge_augment", "mix_few")
    }
)
OPTIONS = tuple(sorted({*DECLARED, *SWITCHES}))


def is_given(config: Config, name: str) -> bool:
    """Return whether an option differs from its default."""
    if name in SWITCHES:
        return bool((config.augment or {}).get(name))
    return bool(getattr(config, name) != Config.model_fields[name].get_default(call_default_factory=True))


def sized_for(config: Config, samples: int) -> Config:
    """Return the configuration with a batch size for a number of training samples, where neither an option nor the recipe gives one."""
    size = config.recipe.batch_size or batch_size_for(samples)
    recipe = replace(config.recipe, batch_size=size)
    return config.model_copy(update={"recipe": recipe, "batch_size": config.batch_size or size})
