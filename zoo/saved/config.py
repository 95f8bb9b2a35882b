"""config.json of a saved model: its fields, its checks and its reading."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from zoo.declare import Origin
from zoo.errors import SavedModelError, did_you_mean, fault_list
from zoo.registry.local_names import run_without_model
from zoo.saved.missing_folder import missing_folder
from zoo.tasks.find import is_task, task_names

CONFIG_LIMIT = 10_000_000
MAX_CLASSES = 10_000_000
_DIGESTED = ("backbone", "options", "inputs", "features", "layer_groups", "head", "head_options", "keys")
FUSION = "fusion.json"  # of a folder of a fusion, whose models are in folders below it
ENSEMBLE = "ensemble.json"  # of a folder whose members are saved models in folders below it
TEXT_FIELDS = ("max_length", "max_positions", "prompts")  # of a declared text that are saved, and read from a file

Described = TypeVar("Described", bound=pydantic.BaseModel)


class SavedCalibration(pydantic.BaseModel):
    """The part of a calibration that is no tensor; see ``zoo.trust.calibrated.Calibration``.

    Attributes:
        temperature: Divisor of the logits.
        samples: Number of held-out samples.
        head: Digest of the head's values.
        data: Digest of the held-out data.
        source: Name of the data.
        unit: Distance that most held-out samples have to each other.
        sha256: Digest of calibration.safetensors.
    """

    temperature: float = pydantic.Field(gt=0, allow_inf_nan=False)
    samples: int = pydantic.Field(ge=1)
    head: str
    data: str = ""
    source: str = ""
    unit: float = pydantic.Field(ge=0, allow_inf_nan=False)
    sha256: str


class Attached(pydantic.BaseModel):
    """Fields of ``zoo.tuning.Lora``."""

    targets: tuple[str, ...]
    rank: int = pydantic.Field(ge=1)
    alpha: float
    dropout: float
    kind: Literal["lora", "dora", "loha", "lokr", "adalora", "ia3", "ssf", "adapter", "adaptformer", "prompt", "prefix"] = "lora"
    width: int = pydantic.Field(default=16, ge=1)
    tokens: int = pydantic.Field(default=8, ge=1)


class ZooConfig(pydantic.BaseModel):
    """The part of config.json that only zoo reads.

    Attributes:
        format: Version of this layout.
        backbone: Id of the backbone.
        base: Id that ``backbone`` was derived or fine-tuned from.
        plugin: Distribution and version that saved it.
        license: Licence of the pretrained weights.
        modality: Kind of ``inputs``.
        options: Build options.
        inputs: Fields of the declared input in use, without the place of a tokenizer, whose files are in the folder.
        max_length: Most tokens of a text, at most those of ``inputs``; 0 for other inputs.
        overflow: What becomes of longer texts.
        features: Fields of the declared features in use.
        labelled: Whether the classes have names; else those in ``id2label`` are placeholders.
        layer_groups: Names of the groups in order.
        frozen: Length of the frozen prefix when saved.
        head: Name of the head's declaration.
        head_options: Its options.
        thresholds: Probability above which each label is predicted; empty for one half, and for tasks without thresholds.
        calibration: What was measured on held-out data; None if nothing was, and in models of earlier versions.
        trained_on: Digests of the training data.
        origins: Steps in which the values came about; empty in models of earlier versions.
        unused_head: Whether it is a part of a fusion whose own head was not trained for these values; False in models of earlier versions.
        update: Adapters or learned tokens inside the backbone; None without, and in models of earlier versions.
        keys: Prefixes of tensor names in the model -> those in the file.
        sha256: Digest of model.safetensors.
        fields_sha256: Digest of the fields of config.json that the values depend on; empty in models of earlier versions.
        reference_outputs: First outputs for a fixed input, see ``zoo.saved.reference_outputs``; empty in models of earlier versions.
        versions: Versions of Python and of important packages.
    """

    format: Literal[1] = 1
    backbone: str
    base: str = ""
    plugin: str = ""
    license: str = "unknown"
    modality: Literal["image", "text", "volume"]
    options: dict[str, Any]
    inputs: dict[str, Any]
    max_length: int = 0
    overflow: Literal["truncate", "error", "windows"] = "truncate"
    features: dict[str, Any] = {}
    labelled: bool = True
    layer_groups: list[str]
    frozen: int = 0
    head: str
    head_options: dict[str, Any]
    thresholds: list[Annotated[float, pydantic.Field(gt=0, lt=1)]] = []
    calibration: SavedCalibration | None = None
    trained_on: list[str] = []
    origins: list[Origin] = []
    unused_head: bool = False
    update: Attached | None = None
    keys: dict[str, str]
    sha256: str
    fields_sha256: str = ""
    reference_outputs: list[float] = []
    versions: dict[str, str] = {}


class Config(pydantic.BaseModel):
    """config.json of a saved model: usual names at the top level, and keys of a home library."""

    library_name: Literal["zoo"] = "zoo"
    base_model: str
    task: str
    num_classes: int = pydantic.Field(ge=1, le=MAX_CLASSES)
    id2label: dict[str, str]
    label2id: dict[str, int]
    zoo: ZooConfig

    @pydantic.field_validator("task")
    @classmethod
    def _known(cls, value: str) -> str:
        known = task_names()
        if not is_task(value):
            raise ValueError(f"there is no task {value!r}{did_you_mean(value, known)}; it may be a plugin's that is not installed")
        return value

    @pydantic.model_validator(mode="after")
    def _one_threshold_per_class(self) -> Config:
        if len(self.zoo.thresholds) not in (0, self.num_classes):
            raise ValueError(f"zoo.thresholds has {len(self.zoo.thresholds)} values; the model has num_classes={self.num_classes}")
        return self

    @pydantic.model_validator(mode="after")
    def _one_label_per_class(self) -> Config:
        expected = {str(index) for index in range(min(self.num_classes, len(self.id2label) + 1))}
        faults = [f"lacks the key {key!r}" for key in sorted(expected - self.id2label.keys())[:1]]
        faults += [f"has the key {key!r}" for key in sorted(self.id2label.keys() - expected)[:1]]
        if len(set(self.id2label.values())) < len(self.id2label):
            twice = next(label for label in self.id2label.values() if list(self.id2label.values()).count(label) > 1)
            faults.append(f"names {twice!r} twice")
        if faults and self.zoo.labelled:
            raise ValueError(f"id2label {' and '.join(faults)}; it has one name for each of num_classes={self.num_classes}, from '0' on")
        return self

    @property
    def fields_sha256(self) -> str:
        """Digest of the fields that the values depend on, which no shape of a tensor shows."""
        fields = {name: getattr(self.zoo, name) for name in _DIGESTED} | {"task": self.task, "num_classes": self.num_classes}
        if self.zoo.update is not None:
            fields["update"] = self.zoo.update.model_dump(mode="json")
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the logits, or None."""
        if not self.zoo.labelled:
            return None
        return tuple(self.id2label[str(index)] for index in range(len(self.id2label))) or None


class EnsembleConfig(pydantic.BaseModel):
    """ensemble.json: the members of an ensemble.

    Attributes:
        format: Version of this layout.
        members: Names of their folders, directly below that of the ensemble.
    """

    library_name: Literal["zoo"] = "zoo"
    format: Literal[1] = 1
    members: Annotated[list[Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]], pydantic.Field(min_length=2)]


def read_members(folder: Path) -> list[Path]:
    """Return the folders of the members of a saved ensemble; none if the folder is no ensemble.

    Raises:
        SavedModelError: If ensemble.json has faults.
    """
    path = folder / ENSEMBLE
    return [folder / name for name in read_model(path, EnsembleConfig).members] if path.is_file() else []


def check_fields(config: Config, folder: Path) -> None:
    """Check that the fields that the values depend on are as they were saved; models of earlier versions do not say.

    Raises:
        SavedModelError: If one was changed.
    """
    if config.zoo.fields_sha256 not in ("", config.fields_sha256):
        raise SavedModelError(
            f"{str(folder / 'config.json')!r} was changed after it was saved: one of task, num_classes, zoo.{', zoo.'.join(_DIGESTED)} is "
            "another; restore it, or remove zoo.fields_sha256 if you changed it on purpose"
        )


def read_config(folder: Path) -> Config:
    """Read and validate config.json; of an ensemble that of its first member, as all predict the same.

    Raises:
        SavedModelError: If the folder is not a saved model, with what its name may mean, or its config.json has faults.
    """
    path = folder / "config.json"
    if not folder.exists():
        raise missing_folder(folder, "the folder of a saved model")
    if not path.is_file() and (members := read_members(folder)):
        return read_config(members[0])
    if not path.is_file() and any((folder / name).is_file() for name in ("run.json", "cv.json")):
        raise SavedModelError(f"{str(folder)!r} is no saved model: {run_without_model(folder)}")
    if not path.is_file() and (folder / FUSION).is_file():
        raise SavedModelError(
            f"{str(folder)!r} is a fusion of images, texts or numbers, and no model of one input; it is for zoo predict, eval, embed and "
            "show and for zoo.transfer.load_fusion, and the models of its images and texts are in the folders below it"
        )
    if not path.is_file() and any((folder / name).is_file() for name in ("adapter_config.json", "zoo.json")):
        raise SavedModelError(
            f"{str(folder)!r} holds LoRA, adapters or learned tokens by themselves, which zoo.load opens in Python; give the folder of the "
            "run above it, which has them too"
        )
    if not path.is_file():
        raise SavedModelError(
            f"{str(folder)!r} is not a saved model: it has no config.json; give the folder of a saved model or a finished run"
        )
    return read_model(path, Config)


def read_model(path: Path, kind: type[Described]) -> Described:
    """Read and validate a JSON file of a saved model.

    Raises:
        SavedModelError: Listing all faults.
    """
    if path.stat().st_size > CONFIG_LIMIT:
        raise SavedModelError(f"{str(path)!r} is larger than {CONFIG_LIMIT} bytes: it is no configuration")
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except pydantic.ValidationError as error:
        if any(fault["loc"][-1:] == ("format",) and type(fault["input"]) is int and fault["input"] > 1 for fault in error.errors()):
            raise SavedModelError(f"{str(path)!r} was written by a newer zoo; update it: pip install -U transfer-zoo") from error
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors()]
        raise SavedModelError(fault_list(f"{str(path)!r} does not describe a model saved by this version of zoo:", faults)) from error
    except ValueError as error:
        raise SavedModelError(f"{str(path)!r} cannot be read: {error}") from error
