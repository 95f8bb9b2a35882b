"""From the configuration of a repository to a backbone's declaration: plain data, no import of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import zoo
from zoo_hf.declared_families import FAMILIES, text_tower, towers
from zoo_hf.families import family_of
from zoo_hf.family import Family
from zoo_hf.image_inputs import features as image_features
from zoo_hf.image_inputs import image
from zoo_hf.image_inputs import own_pooling as pools_images
from zoo_hf.image_processor import check as check_processor
from zoo_hf.source import Source, license_of, read_json, read_table

TOKENIZER = "zoo_hf.tokenizer:open_tokenizer"
CANONICAL_TOKENIZER = "zoo_hf.tokenizer:open_canonical_tokenizer"
POOLING = {
    "pooling_mode_mean_tokens": "avg",
    "pooling_mode_cls_token": "token",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
NORMALIZED = {"Transformer", "Pooling", "Normalize"}  # with other modules, such as Dense, it would be of what those give
# Published as code, which is never run, though transformers has the architecture: repository of the code -> its model_type there, and
# a repository of that. Names of tensors and settings differ, and transformers maps only the names.
REPLACED = {
    "Alibaba-NLP/new-impl": ("gte", "alibaba-nlp-community/gte-multilingual-base"),
    "jinaai/xlm-roberta-flash-implementation": ("jina_embeddings_v3", "jinaai/jina-embeddings-v3-hf"),
}
MODEL_TYPES = {"new": "Alibaba-NLP/new-impl"}  # that only such code has
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
    stated = read_table(source, below + "config.json")
    refuse_code(name, stated)
    config = vision_tower(stated)
    try:
        family = family_of(str(config.get("model_type")))
    except zoo.ZooError as error:
        raise zoo.ZooError(f"{name}: {error}") from error
    weights = source.weights(below, license_of(source))
    if family.reads == "image":
        processor = image_processor(source)
        check_processor(name, family, processor)
        pair = pair_of(name, config, stated, files=source.files, padding=padding_token(source)) if config != stated else None
        return described(name, config, weights=weights, processor=processor, pair=pair)
    limit = read_table(source, below + "sentence_bert_config.json").get("max_seq_length")
    pool = sentence_pool(read_table(source, f"{parts['Pooling']}config.json")) if "Pooling" in parts else ""
    normalize = bool(pool) and parts.keys() == NORMALIZED
    prompts = read_table(source, "config_sentence_transformers.json").get("prompts") if parts else None
    return described(name, config, weights=weights, files=source.files, pool=pool, normalize=normalize, max_length=limit, prompts=prompts)


def refuse_code(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a model whose architecture is code beside the files, where another repository has it without.

    Raises:
        zoo.ZooError: Naming that repository.
    """
    kind, auto_map = str(config.get("model_type")), config.get("auto_map")
    named = [str(reference).partition("--")[0] for reference in auto_map.values()] if isinstance(auto_map, Mapping) else []
    code = next((repo for repo in [MODEL_TYPES.get(kind, ""), *named] if repo in REPLACED), "")
    if code and kind != REPLACED[code][0]:
        native, repo = REPLACED[code]
        raise zoo.ZooError(
            f"{name}: the architecture of this model (model_type {kind!r}) is code of the repository {code!r}, which is never run; "
            f"transformers has it as {native!r}, with other settings: use a repository of that model_type, such as 'hf/{repo}'"
        )


def vision_tower(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the images' part, where one of a model of images and texts is given, such as CLIP."""
    stated = str(config.get("model_type"))
    kind = None if stated in FAMILIES else towers().get(stated)
    if kind is None:
        return dict(config)
    # Older files tell a part of it, or all, a second time; that one is then right.
    return {**(config.get("vision_config") or {}), **(config.get("vision_config_dict") or {}), "model_type": kind}


def text_tower_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the texts' part of a model of images and texts; empty where it is none of the families."""
    kind = text_tower(str(config.get("model_type")))
    own = {**(config.get("text_config") or {}), **(config.get("text_config_dict") or {})}
    if not kind or own.get("model_type", kind) != kind:
        return {}
    return {**own, "model_type": kind}


def pair_of(
    name: str, image_config: Mapping[str, Any], whole: Mapping[str, Any], *, files: str = "", padding: int | None = None
) -> zoo.Pair | None:
    """Return the text tower of a model of images and texts; None where it is none of the families.

    Args:
        name: Of the whole model, ``hf/…``.
        image_config: Configuration of the images' part.
        whole: Configuration of the whole model.
        files: Where its tokenizer's files are.
        padding: The tokenizer's padding token, where it is known.
    """
    config, family = text_tower_config(whole), family_of(image_config["model_type"])
    if not config or not pools_images(family, image_config):
        return None
    if padding is not None:
        config["pad_token_id"] = padding
    width = int(whole.get(family.projected) or 512) if family.projected else 0
    text = described(f"{name}/text", config, files=files, projection=width)
    own = image_features(family, image_config)
    features = zoo.Features(dim=width or own.dim, layout="BD", prefix_tokens=own.prefix_tokens)
    options: dict[str, Any] = {"pooler": True} | ({"projection": width} if width else {})
    if family.projected:
        return zoo.Pair(text=text, features=features, options=options, scale=math.exp(whole.get("logit_scale_init_value") or 2.6592))
    return zoo.Pair(text=text, features=features, options=options, scale=10.0, bias=-10.0, bias_tensor="logit_bias", loss="sigmoid")


def padding_token(source: Source) -> int | None:
    """Return the id of the padding token as the tokenizer's configuration has it, or None where it does not tell."""
    told = read_table(source, "tokenizer_config.json")
    pad = told.get("pad_token")
    pad = pad.get("content") if isinstance(pad, Mapping) else pad
    known = told.get("added_tokens_decoder")
    entries = known.items() if isinstance(known, Mapping) else ()
    return next(
        (int(key) for key, token in entries if isinstance(token, Mapping) and token.get("content") == pad and key.isdecimal()), None
    )


def image_processor(source: Source) -> dict[str, Any]:
    """Return the configuration of the image processor: of processor_config.json where that has one, as transformers 5 reads it."""
    try:
        inner = read_table(source, "processor_config.json").get("image_processor")
    except FileNotFoundError:  # a cache that was filled when only the other was asked for, without network
        if told := read_table(source, "preprocessor_config.json"):
            return told
        raise
    return inner if isinstance(inner, dict) else read_table(source, "preprocessor_config.json")


def sentence_parts(source: Source) -> dict[str, str]:
    """Return the folders, each with a slash at its end, of the modules that sentence-transformers lists, by the name of their class."""
    told = read_json(source, "modules.json")
    listed = [entry for entry in told if isinstance(entry, dict)] if isinstance(told, list) else []
    return {str(entry.get("type")).rpartition(".")[2]: f"{entry['path']}/" if entry.get("path") else "" for entry in listed}


def sentence_pool(config: Mapping[str, Any]) -> str:
    """Return the pooling of a sentence-transformers model, or an empty string where it is none of ours."""
    mode = {"mean": "avg", "cls": "token", "max": "max", "lasttoken": "last"}.get(str(config.get("pooling_mode")), "")
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    return mode or (POOLING.get(modes[0], "") if len(modes) == 1 else "")


def described(
    name: str,
    config: Mapping[str, Any],
    *,
    weights: zoo.Weights | None = None,
    files: str = "",
    pool: str = "",
    normalize: bool = False,
    max_length: int | None = None,
    prompts: Any = None,
    processor: Mapping[str, Any] | None = None,
    projection: int = 0,
    **facts: Any,
) -> zoo.BackboneSpec:
    """Return the declaration of a model with a configuration of a known family.

    Args:
        name: ``hf/…``.
        config: Content of its config.json.
        weights: Where its weights are.
        files: Where its tokenizer's files are.
        pool: Pooling that its publisher trained it with; empty means the family's.
        normalize: Whether the publisher scales what that gives to length 1.
        max_length: Most tokens, where its publisher limits them.
        prompts: Prefixes that it was trained with, by name.
        processor: Content of its preprocessor_config.json.
        projection: Width of the space of images and texts that a text tower is projected into; 0 for no projection.
        **facts: Further fields of the declaration, such as ``parameters``.
    """
    family = family_of(config["model_type"])
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
        return zoo.BackboneSpec(inputs=image(family, config, processor or {}), **_image_build(family, config), **common)
    return zoo.BackboneSpec(
        inputs=_text(family, config, files, max_length, prompts),
        **_text_build(family, config, pool, projection=projection, normalize=normalize),
        **common,
    )


def _image_build(family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the builder of a model of images with its options, and the features that it gives."""
    options: dict[str, Any] = {"config": cleaned(config)}
    build = "zoo_hf.build:image"
    if family.pooler == "default":
        build, options["pooler"] = "zoo_hf.build:image_with_pooler", pools_images(family, config)
    return {"build": build, "options": options, "features": image_features(family, config)}


def _text(family: Family, config: Mapping[str, Any], files: str, max_length: int | None, prompts: Any) -> zoo.Text:
    """Return the declared input of a model of texts."""
    positions = _positions(family, config)
    return zoo.Text(
        max_length=min(positions, max_length or positions),
        max_positions=positions if max_length and max_length < positions else 0,
        prompts={str(key): str(value) for key, value in prompts.items() if value} if isinstance(prompts, Mapping) else {},
        tokenizer=TOKENIZER,
        files=files,
    )


def _text_build(family: Family, config: Mapping[str, Any], pool: str, *, projection: int, normalize: bool) -> dict[str, Any]:
    """Return the builder of a model of texts with its options, and the features that it gives."""
    options: dict[str, Any] = {"config": cleaned(config)}
    own = family.pooler == "default" and not pool
    if family.pooler:
        options["pooler"] = own  # stated also where it is off: a saved model is rebuilt from its family's declaration
    dim = int(config.get(family.width) or family.default_width)
    if family.composite and own:
        dim = projection or int(config.get("projection_size") or dim)
    if projection:
        options["projection"] = projection
    prefix = int(family.class_token or pool == "token")
    tokens: dict[str, Any] = {"layout": "BND", "pool": pool or family.pool, "prefix_tokens": prefix, "normalize": normalize}
    features = zoo.Features(dim=dim, **({"layout": "BD"} if own else tokens))
    return {"build": "zoo_hf.build:text_with_pooler" if family.pooler else "zoo_hf.build:text", "options": options, "features": features}


def _positions(family: Family, config: Mapping[str, Any]) -> int:
    """Return the most tokens that the position embeddings reach."""
    positions = int(config.get(family.length) or family.positions)
    if family.offset:
        pad = config.get("pad_token_id")
        positions -= 1 + (1 if pad is None else int(pad))
    return positions
