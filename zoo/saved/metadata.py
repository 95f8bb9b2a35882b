"""Metadata that a saved model is written with: config.json, preprocessor_config.json and the model card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.images.transforms import resize_target
from zoo.declare import BackboneSpec, Image, Inputs, Text
from zoo.errors import SavedModelError, examples
from zoo.saved.config import TEXT_FIELDS, Attached, Config, ZooConfig
from zoo.tasks.find import find_task
from zoo.tuning.efficient.kinds import KINDS
from zoo.util.versions import versions

if TYPE_CHECKING:
    from zoo.models.task_model import TaskModel

PROCESSOR = "CLIPImageProcessor"  # of transformers, which resizes the shorter edge or both, crops and converts as it is told
PICTURE = 3  # channels
PIL_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}


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
            trained_on=list(model.trained_on),
            origins=list(model.origins),
            update=_attached(model),
            keys=dict(keys),
            sha256=sha256,
            versions=versions([model.plugin.partition(" ")[0]]),
        ),
    )
    config.zoo.fields_sha256 = config.fields_sha256
    return config


def _attached(model: TaskModel) -> Attached | None:
    """Return the update that stays beside the weights, or None; one that can be merged has files of its own."""
    if model.lora is None or KINDS[model.lora.kind].merges:
        return None
    return Attached(**dataclasses.asdict(model.lora))


def _fields(inputs: Inputs) -> dict[str, Any]:
    """Return the fields of an input; of a text those of ``TEXT_FIELDS``: the plugin names the function of its tokenizer."""
    fields = dataclasses.asdict(inputs)
    if isinstance(inputs, Image) and not inputs.squash:
        del fields["squash"]  # earlier versions do not know it
    if not isinstance(inputs, Text):
        return fields
    return {key: fields[key] for key in TEXT_FIELDS if key == "max_length" or fields[key]}


def preprocessor(inputs: Inputs) -> str:
    """Return preprocessor_config.json; for images with the keys of transformers' image processors, by which they prepare as zoo does."""
    fields = _fields(inputs)
    if isinstance(inputs, Image):
        fields = {
            **_geometry(inputs),
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


def _geometry(inputs: Image) -> dict[str, Any]:
    """Return the class of transformers that resizes and crops as zoo does, with its keys.

    Where no class does, the size has keys that all of them refuse, rather than such as would give the network other pictures.
    """
    height, width = resize_target(inputs)
    size = {"height": height, "width": width}
    if not inputs.squash and height == width:
        size = {"shortest_edge": height}
    elif not inputs.squash:
        size = {"cover_height": height, "cover_width": width}
    crops = not inputs.squash or inputs.crop != 1
    return {
        "image_processor_type": PROCESSOR,
        "do_resize": True,
        "size": size,
        "do_center_crop": crops,
        **({"crop_size": {"height": inputs.height, "width": inputs.width}} if crops else {}),
        "do_convert_rgb": inputs.channels == PICTURE,
    }


def check_preprocessor(folder: Path, inputs: Inputs) -> None:
    """Check that preprocessor_config.json, which other libraries read, still says what config.json does.

    Raises:
        SavedModelError: Naming the fields in which they differ.
    """
    path = folder / "preprocessor_config.json"
    if isinstance(inputs, Text) or not path.is_file():
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SavedModelError(f"{str(path)!r} cannot be read: {error}; restore it, or remove it") from error
    ours = json.loads(preprocessor(inputs))
    earlier = {"height": inputs.height, "width": inputs.width} if isinstance(inputs, Image) else None  # the size that versions before wrote
    if isinstance(theirs, dict) and "image_processor_type" not in theirs and theirs.get("size") == earlier:
        ours["size"] = earlier
    odd = [key for key in ours if isinstance(theirs, dict) and key in theirs and theirs[key] != ours[key]]
    if odd or not isinstance(theirs, dict):
        differ = examples([f"{key} ({theirs[key]} and {ours[key]})" for key in odd]) or "all"
        raise SavedModelError(
            f"{str(path)!r} and config.json prepare inputs differently: {differ}; one of them was changed after the model was saved, "
            "and the weights are for one of the two only: restore it"
        )


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
# {spec.name}, {find_task(model.task).words}

Outputs: {outputs}. Head: {model.head_name}. Layer groups: {", ".join(model.groups.names)}.
{_steps(model)}
```python
import zoo

model = zoo.load("PATH/TO/THIS/FOLDER")
model.predict(["PATH/TO/AN/INPUT"])
```"""


def _steps(model: TaskModel) -> str:
    """Return the steps in which the values came about, as a numbered list with a line above and below."""
    lines = [f"{number}. {origin}" for number, origin in enumerate(model.origins, 1)]
    return "\n".join(["", "How its values came about:", "", *lines, ""]) if lines else ""
