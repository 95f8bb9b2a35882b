"""Metadata of a saved model: config.json, preprocessor_config.json and the model card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import pydantic

from zoo.declare import BackboneSpec, Image, Inputs, Text
from zoo.errors import SavedModelError, did_you_mean, fault_list
from zoo.tasks.find import find_task, task_names
from zoo.util.versions import versions

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel

PIL_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
CONFIG_LIMIT = 10_000_000
MAX_CLASSES = 10_000_000
_DIGESTED = ("backbone", "options", "inputs", "features", "layer_groups", "head", "head_options", "keys")
TEXT_FIELDS = ("max_length", "max_positions", "prompts")  # of a declared text that are saved, and read from a file

Described = TypeVar("Described", bound=pydantic.BaseModel)


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
        keys: Prefixes of tensor names in the model -> those in the file.
        sha256: Digest of model.safetensors.
        fields_sha256: Digest of the fields of config.json that the values depend on; empty in models of earlier versions.
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
    keys: dict[str, str]
    sha256: str
    fields_sha256: str = ""
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
        if value not in known:
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
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the logits, or None."""
        if not self.zoo.labelled:
            return None
        return tuple(self.id2label[str(index)] for index in range(len(self.id2label))) or None


def describe(model: TaskModel, *, keys: Mapping[str, str], root: BackboneSpec, sha256: str) -> Config:
    """Return config.json for a model whose weights were written under ``keys``."""
    # Other libraries count classes by their names, so classes without names get placeholders.
    labels = model.labels or [f"LABEL_{index}" for index in range(model.num_classes)]
    config = Config(
        base_model=model.spec.name,
        task=model.task,
        num_classes=model.num_classes,
        id2label={str(index): label for index, label in enumerate(labels)},
        label2id={label: index for index, label in enumerate(labels)},
        zoo=ZooConfig(
            backbone=root.name,
            base=model.spec.base,
            plugin=model.plugin,
            license=model.spec.license,
            modality=model.spec.modality,  # type: ignore[arg-type]  # one of three types
            options=dict(model.spec.options),
            # Both lengths are saved, as a run may truncate texts before the backbone's maximum.
            inputs=_fields(model.spec.inputs if isinstance(model.inputs, Text) else model.inputs),
            max_length=model.inputs.max_length if isinstance(model.inputs, Text) else 0,
            overflow=model.inputs.overflow if isinstance(model.inputs, Text) else "truncate",  # type: ignore[arg-type]  # checked there
            features=dataclasses.asdict(model.spec.features),
            labelled=model.labels is not None,
            layer_groups=list(model.groups.names),
            frozen=model.frozen,
            head=model.head_name,
            head_options=model.head_options,
            thresholds=list(model.thresholds or ()),
            keys=dict(keys),
            sha256=sha256,
            versions=versions([model.plugin.partition(" ")[0]]),
        ),
    )
    config.zoo.fields_sha256 = config.fields_sha256
    return config


def check_fields(config: Config, folder: Path) -> None:
    """Check that the fields that the values depend on are as they were saved; models of earlier versions do not say.

    Raises:
        SavedModelError: If one was changed.
    """
    if config.zoo.fields_sha256 not in ("", config.fields_sha256):
        raise SavedModelError(
            f"{str(folder / 'config.json')!r} was changed after it was saved: one of task, num_classes, zoo.{', zoo.'.join(_DIGESTED)} is "
            "another; restore it, or remove zoo.fields_sha256 if the change is meant"
        )


def _fields(inputs: Inputs) -> dict[str, Any]:
    """Return the fields of an input; of a text those of ``TEXT_FIELDS``: the plugin names the function of its tokenizer."""
    fields = dataclasses.asdict(inputs)
    if not isinstance(inputs, Text):
        return fields
    return {key: fields[key] for key in TEXT_FIELDS if key == "max_length" or fields[key]}


def read_config(folder: Path) -> Config:
    """Read and validate config.json.

    Raises:
        SavedModelError: If the folder is no saved model, with the nearest existing one, or its config.json has faults.
    """
    path = folder / "config.json"
    if not folder.exists():
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise SavedModelError(f"there is no folder {str(folder)!r}{did_you_mean(folder.name, beside)}; give the folder of a saved model")
    if not path.is_file() and (folder / "run.json").is_file():
        raise SavedModelError(
            f"{str(folder)!r} is a run that is not finished; wait for it or, where it was stopped, go on with it: resume=True (--resume)"
        )
    if not path.is_file():
        raise SavedModelError(f"{str(folder)!r} is not a saved model: it has no config.json")
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
        if any(fault["loc"] == ("zoo", "format") and type(fault["input"]) is int and fault["input"] > 1 for fault in error.errors()):
            raise SavedModelError(f"{str(path)!r} was written by a newer zoo; update it: pip install -U transfer-zoo") from error
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors()]
        raise SavedModelError(fault_list(f"{str(path)!r} does not describe a model saved by this version of zoo:", faults)) from error
    except ValueError as error:
        raise SavedModelError(f"{str(path)!r} cannot be read: {error}") from error


def preprocessor(inputs: Inputs) -> str:
    """Return preprocessor_config.json; for images with the keys of transformers' image processors."""
    fields = _fields(inputs)
    if isinstance(inputs, Image):
        fields = {
            "size": {"height": inputs.height, "width": inputs.width},
            "crop_pct": inputs.crop,
            "resample": PIL_RESAMPLE[inputs.interpolation],
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(inputs.mean),
            "image_std": list(inputs.std),
            "num_channels": inputs.channels,
        }
    return json.dumps(fields, indent=2)


def model_card(model: TaskModel) -> str:
    """Return README.md with the Hub's front matter."""
    spec = model.spec
    source = spec.weights.repo if spec.weights else ""
    front = {"library_name": "zoo", "base_model": source or spec.base or spec.name, "license": spec.license}
    front["pipeline_tag"] = find_task(model.task).card.get(spec.modality, "")
    head = "\n".join(f"{key}: {value}" for key, value in front.items() if value)
    outputs = ", ".join(model.labels) if model.labels else str(model.num_classes)
    return f"""---
{head}
---
# {spec.name}, {model.task}

Outputs: {outputs}. Head: {model.head_name}. Layer groups: {", ".join(model.groups.names)}.

```python
import zoo

model = zoo.load("PATH/TO/THIS/FOLDER")
model.predict(["PATH/TO/AN/INPUT"])
```"""
