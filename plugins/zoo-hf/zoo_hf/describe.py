"""From the configuration of a repository to a backbone's declaration: plain data, no import of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import zoo
from zoo_hf.families import FAMILIES
from zoo_hf.family import Family
from zoo_hf.source import Source, license_of, read_json, read_table

TOKENIZER = "zoo_hf.tokenizer:open_tokenizer"
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # as Pillow counts
POOLING = {"pooling_mode_mean_tokens": "avg", "pooling_mode_cls_token": "token", "pooling_mode_max_tokens": "max"}
# What does not concern the backbone, or would name code: heads, provenance, the home library's own switches.
DROPPED = frozenset(
    {"architectures", "auto_map", "trust_remote_code", "transformers_version", "quantization_config", "tokenizer_class"}
    | {"dtype", "torch_dtype", "attn_implementation", "experts_implementation", "gradient_checkpointing", "use_cache", "torchscript"}
    | {"id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "finetuning_task", "custom_pipelines"}
    | {"return_dict", "output_hidden_states", "output_attentions", "library_name", "zoo"}
)


def cleaned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration shapes the backbone."""
    return {key: value for key, value in config.items() if key not in DROPPED and not key.startswith("_")}


def root(model_type: str) -> zoo.BackboneSpec:
    """Return the declaration of a family, without weights, to which all its members lead back."""
    return described(f"hf/{model_type}", {"model_type": model_type}).replace(base="")


def from_source(name: str, source: Source) -> zoo.BackboneSpec:
    """Describe a model by its files.

    Raises:
        zoo.ZooError: If its family is none of ours, or a file cannot be read.
    """
    parts = sentence_parts(source)
    below = parts.get("Transformer", "")
    config = read_table(source, below + "config.json")
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        raise zoo.ZooError(
            f"{name}: its config.json has the model_type {model_type!r}; zoo-hf has the layer groups of: {', '.join(sorted(FAMILIES))}. "
            "Another architecture takes a plugin of a few lines, see docs/write-a-plugin.md"
        )
    weights = source.weights(below, license_of(source))
    if FAMILIES[model_type].reads == "image":
        return described(name, config, weights=weights, processor=read_table(source, "preprocessor_config.json"))
    limit = read_table(source, below + "sentence_bert_config.json").get("max_seq_length")
    pool = sentence_pool(read_table(source, f"{parts['Pooling']}config.json")) if "Pooling" in parts else ""
    return described(name, config, weights=weights, files=source.files, pool=pool, max_length=limit)


def sentence_parts(source: Source) -> dict[str, str]:
    """Return the folders, each with a slash at its end, of the modules that sentence-transformers lists, by the name of their class."""
    told = read_json(source, "modules.json")
    listed = [entry for entry in told if isinstance(entry, dict)] if isinstance(told, list) else []
    return {str(entry.get("type")).rpartition(".")[2]: f"{entry['path']}/" if entry.get("path") else "" for entry in listed}


def sentence_pool(config: Mapping[str, Any]) -> str:
    """Return the pooling of a sentence-transformers model, or an empty string where it is none of ours."""
    mode = {"mean": "avg", "cls": "token", "max": "max"}.get(str(config.get("pooling_mode")), "")
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    return mode or (POOLING.get(modes[0], "") if len(modes) == 1 else "")


def described(
    name: str,
    config: Mapping[str, Any],
    *,
    weights: zoo.Weights | None = None,
    files: str = "",
    pool: str = "",
    max_length: int | None = None,
    processor: Mapping[str, Any] | None = None,
    **facts: Any,
) -> zoo.BackboneSpec:
    """Return the declaration of a model with a configuration of a known family.

    Args:
        name: ``hf/…``.
        config: Content of its config.json.
        weights: Where its weights are.
        files: Where its tokenizer's files are.
        pool: Pooling that its publisher trained it with; empty means the family's.
        max_length: Most tokens, where its publisher limits them.
        processor: Content of its preprocessor_config.json.
        **facts: Further fields of the declaration, such as ``parameters``.
    """
    family = FAMILIES[config["model_type"]]
    options: dict[str, Any] = {"config": cleaned(config)}
    dim = int(config.get(family.width) or family.default_width)
    common: dict[str, Any] = {
        "name": name,
        "layers": family.layers,
        "weights": weights,
        "convert": "zoo_hf.build:convert",
        "home": "zoo_hf.home:export",
        "base": f"hf/{config['model_type']}",
        **facts,
    }
    if family.reads == "image":
        prefix = 1 + int(config.get("num_register_tokens") or (4 if config["model_type"] == "dinov2_with_registers" else 0))
        return zoo.BackboneSpec(
            build="zoo_hf.build:image",
            inputs=image(family, config, processor or {}),
            features=zoo.Features(dim=dim, layout="BND", prefix_tokens=prefix),
            options=options,
            **common,
        )
    inputs = zoo.Text(max_length=_max_length(family, config, max_length), tokenizer=TOKENIZER, files=files)
    own = family.pooler == "default" and not pool
    if family.pooler:
        options["pooler"] = own  # stated also where it is off: a saved model is rebuilt from its family's declaration
    tokens = {"layout": "BND", "pool": pool or family.pool, "prefix_tokens": 1}
    features = zoo.Features(dim=dim, **({"layout": "BD"} if own else tokens))
    build = "zoo_hf.build:text_with_pooler" if family.pooler else "zoo_hf.build:text"
    return zoo.BackboneSpec(build=build, inputs=inputs, features=features, options=options, **common)


def _max_length(family: Family, config: Mapping[str, Any], limit: int | None) -> int:
    positions = int(config.get("max_position_embeddings") or family.positions)
    if family.offset:
        pad = config.get("pad_token_id")
        positions -= 1 + (1 if pad is None else int(pad))
    return min(positions, limit) if limit else positions


def image(family: Family, config: Mapping[str, Any], processor: Mapping[str, Any]) -> zoo.Image:
    """Return the input that an image processor's configuration describes; the family's own where there is none."""
    cropped = bool(processor.get("do_center_crop")) and bool(processor.get("crop_size"))
    resized = _size(processor.get("size")) or _size(config.get("image_size")) or (224, 224)
    size = (_size(processor.get("crop_size")) if cropped else None) or resized
    channels = int(config.get("num_channels") or len(family.mean))
    mean = processor.get("image_mean") or _per_channel(family.mean, channels)
    std = processor.get("image_std") or _per_channel(family.std, channels)
    if processor.get("do_normalize") is False:
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    return zoo.Image(
        size=size,
        mean=tuple(mean),
        std=tuple(std),
        interpolation=RESAMPLE.get(processor.get("resample", 3 if family.prefix.startswith("dino") else 2), "bicubic"),
        crop=min(1.0, size[0] / resized[0]),
    )


def _per_channel(values: Sequence[float], channels: int) -> Sequence[float]:
    """Return one value per channel, as ``zoo.get(in_chans=…)`` has them: the average for one, in turn for more."""
    return [sum(values) / len(values)] if channels == 1 else [values[index % len(values)] for index in range(channels)]


def _size(told: Any) -> tuple[int, int] | None:
    """Return height and width of what configurations call a size: a number, a pair, or a table."""
    if isinstance(told, Mapping):
        edge = told.get("shortest_edge")
        told = (told.get("height") or edge, told.get("width") or edge)
    if isinstance(told, int):
        told = (told, told)
    return (int(told[0]), int(told[1])) if told and all(told) else None
