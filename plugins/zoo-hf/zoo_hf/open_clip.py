"""Dual encoders in open_clip's published layout, such as BiomedCLIP: towers of timm, of transformers, or of open_clip itself.

Their files are open_clip_config.json beside open_clip_model.safetensors or open_clip_pytorch_model.bin. Of CoCa the two towers are read,
and not the decoder that writes captions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zoo
from zoo_hf.describe import CANONICAL_TOKENIZER, TOKENIZER, cleaned, padding_token
from zoo_hf.families import family_of
from zoo_hf.open_clip_own import own_text, own_tower, own_width
from zoo_hf.source import Folder, Repository, Source, license_of, read_table

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# Below hf/: what saved towers lead back to. A tokenizer that takes punctuation out is that of another root.
ROOTS = IMAGE_ROOT, TEXT_ROOT, CANONICAL_ROOT = "open_clip_image", "open_clip_text", "open_clip_canonical_text"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # where the file does not tell them: CLIP's
POOLERS = ("cls_last_hidden_state_pooler", "mean_pooler", "cls_pooler")
PROJECTIONS = ("", "linear", "mlp")
LARGEST = 100  # logit scale, before the exponential, and logit bias that are read
RESIZES = ("shortest", "squash")  # how images get their size; longest gives the network other pictures
PREPARED = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")  # fields of a preprocess_cfg
VOCABULARIES, CLIP = ("tokenizer.json", "vocab.json", "tokenizer_config.json"), "openai/clip-vit-base-patch32"
TOKENIZER_KWARGS, CLEANS = ("clean", "strip_sep_token"), ("whitespace", "canonicalize")
CONTEXT = 77  # tokens of a text where the file does not tell them


def is_open_clip(source: Source) -> bool:
    """Return whether a model is in open_clip's layout, and not in that of transformers."""
    if "model_type" in (read_table(source, "config.json") if source.find("config.json") else {}):
        return False
    return source.find(CONFIG) is not None


def roots() -> dict[str, zoo.BackboneSpec]:
    """Return the declarations without weights to which all towers lead back, by the name behind ``hf/``."""
    image = {"model": "vit_base_patch16_224", "proj": "linear"}
    text = {"transformer": {"model_type": "bert"}, "pooler": POOLERS[0], "proj": "mlp"}
    return {
        IMAGE_ROOT: _image_spec(f"hf/{IMAGE_ROOT}", image, {}, 224).replace(base=""),
        TEXT_ROOT: _text_spec(f"hf/{TEXT_ROOT}", text, 512, CONTEXT, "").replace(base=""),
        CANONICAL_ROOT: _text_spec(f"hf/{CANONICAL_ROOT}", text, 512, CONTEXT, "", canonical=True).replace(base=""),
    }


def from_open_clip(name: str, source: Source) -> zoo.BackboneSpec:
    """Describe a dual encoder by its files.

    Raises:
        zoo.ZooError: If a tower is none that is read, or a file cannot be had; all faults of the file at once.
    """
    told = read_table(source, CONFIG)
    if not isinstance(told.get("model_cfg"), Mapping):
        inner = "; it is the inner table alone, as in open_clip's model_configs: write it below that key" if "vision_cfg" in told else ""
        raise zoo.ZooError(f"{name}: {CONFIG} has no table model_cfg{inner}")
    model, prepared = _table(told, "model_cfg"), _table(told, "preprocess_cfg")
    vision, text = _table(model, "vision_cfg"), _table(model, "text_cfg")
    width = model.get("embed_dim")
    image, faults = _image_tower(vision, width, quick_gelu=bool(model.get("quick_gelu")))
    repo = str(text.get("hf_model_name") or "").removeprefix("hf-hub:")
    words = {
        "pooler": str(text.get("hf_pooler_type", text.get("pooler_type", "mean_pooler"))),
        "proj": str(text.get("hf_proj_type", text.get("proj", "mlp")) or ""),
    }
    own: dict[str, Any] = {}
    if not repo:
        own, odd = own_text(text, quick_gelu=bool(model.get("quick_gelu")))
        faults += odd
    kwargs = _table(text, "tokenizer_kwargs")
    faults += _odd_tokenizer(text, kwargs, own=not repo)
    _check(name, repo, words, [*faults, *_odd_values(model, vision, text, prepared)])
    files = _tokenizer(source, text, repo)
    if own.get("whole"):
        own |= _padding(files, of_transformers=bool(text.get("hf_tokenizer_name")), without_separator=bool(kwargs.get("strip_sep_token")))
    length = text.get("context_length") or CONTEXT
    assert isinstance(width, int), "checked above"
    if not repo and not own["projected"] and own["width"] != width:
        raise zoo.ZooError(
            f"{name}: {CONFIG} has no projection of texts (proj_type), whose features have {own['width']} values and not the {width} of "
            "embed_dim; correct one of the two numbers"
        )
    canonical = kwargs.get("clean") == CLEANS[1]
    tower = _text_spec(
        f"{name}/text", own or {"transformer": _encoder(name, repo, source), **words}, width, length, files, canonical=canonical
    )
    spec = _image_spec(name, image, prepared, vision.get("image_size") or 224)
    projected = image.get("proj") != "none"  # a tower of open_clip itself always has one
    if not projected and spec.features.dim != width:
        raise zoo.ZooError(
            f"{name}: {CONFIG} has no projection of images, whose features have {spec.features.dim} values, and embed_dim {width}"
        )
    bias, scale = model.get("init_logit_bias"), model.get("init_logit_scale")
    more: dict[str, Any] = {} if bias is None else {"bias": float(bias), "bias_tensor": "logit_bias", "loss": "sigmoid"}
    pair = zoo.Pair(
        text=tower,
        features=zoo.Features(dim=width, layout="BD"),
        options={"projection": width} if projected else {},
        scale=1 / 0.07 if scale is None else math.exp(scale),
        **more,
    )
    return spec.replace(weights=_weights(source), pair=pair)


def _encoder(name: str, repo: str, source: Source) -> dict[str, Any]:
    """Return the configuration of the text tower of transformers in another repository."""
    # Says why where there is none; the name of a folder could not be downloaded on another machine.
    zoo.fetch(repo, "config.json", owner=f"hf/{repo}" if isinstance(source, Folder) else name)
    found = cleaned(read_table(Repository(repo), "config.json"))
    _check_family(name, repo, found)
    return found


def _tokenizer(source: Source, text: Mapping[str, Any], repo: str) -> str:
    """Return where the tokenizer is: in a folder itself, where the configuration says, and of open_clip's own texts CLIP's."""
    named = str(text.get("hf_tokenizer_name") or repo).removeprefix("hf-hub:")
    if named and not isinstance(source, Folder):
        return named
    return source.files if any(source.find(name) for name in VOCABULARIES) else named or CLIP


def _padding(files: str, *, of_transformers: bool, without_separator: bool) -> dict[str, Any]:
    """Return the padding token of a tower that sees it, and the separator where its texts have a 0 in its place."""
    from zoo_hf.tokenizer import located, open_tokenizer

    if not of_transformers:
        return {"pad": 0}  # open_clip's own tokenizer of CLIP's vocabulary
    if without_separator:
        tokenizer = open_tokenizer(files)
        return {"pad": tokenizer.padding["input_ids"], "left_out": tokenizer.separator}
    told = padding_token(located(files))
    return {"pad": open_tokenizer(files).padding["input_ids"] if told is None else told}


def _odd_tokenizer(text: Mapping[str, Any], kwargs: Mapping[str, Any], *, own: bool) -> list[str]:
    """Return why the tokenizer of a configuration is not read."""
    faults = [f"tokenizer_mode is {text['tokenizer_mode']!r}, which is not read"] if text.get("tokenizer_mode") else []
    unknown = [key for key in kwargs if key not in TOKENIZER_KWARGS]
    faults += [f"tokenizer_kwargs has {key!r}{zoo.did_you_mean(key, TOKENIZER_KWARGS)}, which is not read" for key in unknown]
    if kwargs.get("clean", CLEANS[0]) not in CLEANS:
        faults.append(f"tokenizer_kwargs cleans texts by {kwargs['clean']!r}; read are {' and '.join(map(repr, CLEANS))}")
    if kwargs.get("strip_sep_token") and not own:
        faults.append("strip_sep_token is read with a text tower of open_clip itself only")
    return faults


def _table(told: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = told.get(key)
    return dict(found) if isinstance(found, Mapping) else {}


def _odd_values(model: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any], prepared: Mapping[str, Any]) -> list[str]:
    """Return which values are not as they should be; absent ones and null have defaults, but for ``embed_dim``."""
    width, length, size = model.get("embed_dim"), text.get("context_length"), vision.get("image_size")
    unknown = [key for key in prepared if key not in PREPARED]
    faults = [f"preprocess_cfg has {key!r}{zoo.did_you_mean(key, PREPARED)}, which is not known" for key in unknown]
    faults += [] if _is_whole(width) else [f"embed_dim is {width!r}; it is the width of the common space"]
    faults += [] if length is None or _is_whole(length) else [f"context_length is {length!r}; it is a number of tokens"]
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    faults += [] if size is None or all(map(_is_whole, sides)) else [f"image_size is {size!r}; it is in pixels, one number or two"]
    for key in ("init_logit_scale", "init_logit_bias"):
        value = model.get(key)
        faults += [] if value is None or _is_small(value) else [f"{key} is {value!r}; it is a number from -{LARGEST} to {LARGEST}"]
    for key in ("mean", "std"):
        value = prepared.get(key)
        three = isinstance(value, list) and len(value) == 3 and all(map(_is_small, value))
        faults += [] if value is None or three else [f"{key} is {value!r}; it is three numbers"]
    if (resize := str(prepared.get("resize_mode") or RESIZES[0])) not in RESIZES:
        faults.append(
            f"resize_mode is {resize!r}; read are {RESIZES[0]!r}, which resizes the shorter edge and cuts out the centre, and "
            f"{RESIZES[1]!r}, which gives both edges their size"
        )
    return faults


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_small(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _image_tower(vision: Mapping[str, Any], width: Any, *, quick_gelu: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the options of an image tower, of timm where it names one of its models, and the faults of its configuration."""
    if not vision.get("timm_model_name"):
        image, faults = own_tower(vision, width, quick_gelu=quick_gelu)
        return image, faults
    pool, proj = str(vision.get("timm_pool", "avg")), str(vision.get("timm_proj", "linear") or "")
    faults = [] if pool in ("", "avg", "token", "map") else [f"timm_pool is {pool!r}; read are '', 'avg', 'token' and 'map'"]
    faults += [] if proj in ("", "linear", "mlp", "none") else [f"timm_proj is {proj!r}; read are '', 'linear', 'mlp' and 'none'"]
    image = {"model": str(vision["timm_model_name"]), "pool": pool, "proj": proj}
    return image | ({"proj_bias": True} if vision.get("timm_proj_bias") else {}), faults


def _check(name: str, repo: str, words: Mapping[str, str], odd: list[str]) -> None:
    """Raise for towers that are not read, and for odd values; all faults at once."""
    faults = []
    if repo and words["pooler"] not in POOLERS:
        faults.append(f"the pooling of texts is {words['pooler']!r}; read are {', '.join(POOLERS)}")
    if repo and words["proj"] not in PROJECTIONS:
        faults.append(f"hf_proj_type is {words['proj']!r}; read are linear, mlp and none at all")
    if faults := [*faults, *odd]:
        remedy = "a repository with a config.json of transformers is read by that"
        raise zoo.ZooError(f"{name}: {CONFIG} describes what is not read: {'; '.join(faults)}; {remedy}")


def _check_family(name: str, repo: str, config: Mapping[str, Any]) -> None:
    """Raise where the text tower's family is none of texts whose layer groups are literal."""
    family = family_of(str(config.get("model_type")))
    if family.reads != "text" or isinstance(family.layers, str):
        raise zoo.ZooError(
            f"{name}: its text tower is {repo!r} of the family {config.get('model_type')!r}, which is no encoder of texts here; "
            "read are those like BERT and RoBERTa"
        )


def _image_spec(name: str, image: Mapping[str, Any], prepared: Mapping[str, Any], size: Any) -> zoo.BackboneSpec:
    from zoo_hf.open_clip_timm import image_width

    side = tuple(size) if isinstance(size, list | tuple) else int(size)
    own = "model" not in image
    tower = {**image, "size": side if isinstance(side, tuple) else (side, side)} if own else dict(image)
    return zoo.BackboneSpec(
        name=name,
        build="zoo_hf.open_clip_build:image_tower",
        layers="zoo_hf.open_clip_build:image_layers",
        options={"tower": tower},
        convert="zoo_hf.open_clip_build:convert_image",
        inputs=zoo.Image(
            size=side,
            mean=tuple(prepared.get("mean") or MEAN),
            std=tuple(prepared.get("std") or STD),
            interpolation=str(prepared.get("interpolation") or "bicubic"),
            squash=prepared.get("resize_mode") == "squash",
        ),
        features=zoo.Features(dim=own_width(image) if own else image_width(image["model"]), layout="BD"),
        base=f"hf/{IMAGE_ROOT}",
    )


def _text_spec(name: str, tower: Mapping[str, Any], width: int, length: int, files: str, *, canonical: bool = False) -> zoo.BackboneSpec:
    return zoo.BackboneSpec(
        name=name,
        build="zoo_hf.open_clip_build:text_tower",
        layers="zoo_hf.open_clip_build:text_layers",
        options={"tower": dict(tower), "width": width},
        convert="zoo_hf.open_clip_build:convert_text",
        inputs=zoo.Text(max_length=length, tokenizer=CANONICAL_TOKENIZER if canonical else TOKENIZER, files=files),
        features=zoo.Features(dim=width, layout="BD"),
        base=f"hf/{CANONICAL_ROOT if canonical else TEXT_ROOT}",
    )


def _weights(source: Source) -> zoo.Weights:
    """Return the declaration of the weights; whether a repository has any is asked when they are needed."""
    if isinstance(source, Folder):
        found = next((name for name in WEIGHTS if source.find(name)), WEIGHTS[0])
        return zoo.Weights(file=str(Path(source.path) / found), license=license_of(source))
    return zoo.Weights(repo=source.repo, revision=source.revision, file=WEIGHTS[0], license=license_of(source))
