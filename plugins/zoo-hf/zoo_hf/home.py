"""The layout in which transformers opens a fine-tuned model: with its classifier, its labels and its tokenizer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo_hf.build import text_inputs
from zoo_hf.describe import cleaned
from zoo_hf.families import family_of
from zoo_hf.family import Family, Home
from zoo_hf.image_inputs import interpolates, native_size
from zoo_hf.tokenizer import open_tokenizer

PROBLEMS = {"single-label": "single_label_classification", "multi-label": "multi_label_classification", "regression": "regression"}
TOLERANCE = 1e-3  # of the largest logit
TOKENS = 12
DROPOUTS = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "cls_dropout")


def export(model: zoo.TaskModel) -> dict[str, Any] | str:
    """Return the layout of transformers for a model, or the reason why it has none and the head that would have one.

    The claim is proved first: the model of transformers gets the tensors of this one, without a copy, and must give its logits.

    Returns:
        ``keys``: prefix of ours -> prefix of theirs, for the state dict; ``config``: what transformers reads in config.json.
    """
    kind = str(model.spec.options["config"]["model_type"])
    family = family_of(kind)
    home = family.tokens if model.task == "token-classification" else family.sequence
    if home is None:
        return f"the classifiers of {kind} are none of the heads of zoo"
    reason = _misfit(model, family, home)
    if reason:
        return reason
    config = model.backbone.config
    pad = _padding(model, home, config)
    if isinstance(pad, str):
        return pad
    changes = {**home.config, **pad}
    twin = _transformers_model(model, config, family, changes)
    prefix = family.prefix or str(twin.base_model_prefix)
    keys = {"backbone": prefix, **home.keys}
    odd = _fill(twin, model, keys)
    if odd:
        return f"{type(twin).__name__} holds other tensors, for example {odd}"
    if not _agree(model, twin, family):
        return f"{type(twin).__name__} gives other logits"
    published = dict(_published(model, family, prefix))
    return {"keys": keys | published, "config": {**_config(model, twin, config, family), **changes}}


def _misfit(model: zoo.TaskModel, family: Family, home: Home) -> str:
    """Say how the head differs from the home library's, and how to ask for that one."""
    width = model.spec.features.dim
    config: Any = model.backbone.config
    activation = str(getattr(config, home.activation.lower())) if home.activation.isupper() else home.activation
    if family.reads == "image" and interpolates(family, config) and not _native(model, config):
        return (
            f"its classifier takes images of {config.image_size} pixels only, unless it is called with interpolate_pos_encoding=True; "
            f"this model was trained at {model.inputs.height} x {model.inputs.width}"  # type: ignore[union-attr]  # an image
        )
    wanted: dict[str, Any] = {"hidden": width, "activation": activation} if home.head == "mlp" else {}
    wanted |= home.options
    options = model.head_options
    fits = model.head_name == home.head and all(_used(options, key) == value for key, value in wanted.items())
    unit = bool(getattr(getattr(model.head, "pool", None), "normalize", False))  # no classifier of transformers does that
    if fits and not unit and (not home.pool or _pool(model) == home.pool):
        return ""
    task = f", task={model.task!r}" if model.task != "single-label" else ""
    head = f", head={home.head!r}" if home.head == "mlp" else ""
    told = "".join(f", {key}={value!r}" for key, value in wanted.items())
    pool = f", pool={home.pool!r}" if home.pool else ""
    pool += ", normalize=False" if unit and home.pool in ("", model.spec.features.pool) else ""
    how = f"{_pool(model)!r}{' and features of length 1' if unit else ''}"
    return f"its head is {model.head_name!r} with pool {how}; adapt({model.num_classes}{task}{head}{told}{pool}) would open there"


def _used(options: Mapping[str, Any], key: str) -> Any:
    return options.get(key, {"hidden": 256, "activation": "relu", "norm": False, "bias": True}[key])


def _pool(model: zoo.TaskModel) -> str:
    if model.spec.options.get("pooler"):
        return "pooler"
    return str(getattr(getattr(model.head, "pool", None), "how", ""))


def _native(model: zoo.TaskModel, config: Any) -> bool:
    inputs: Any = model.inputs
    return tuple(inputs.size) == native_size(config)


def _padding(model: zoo.TaskModel, home: Home, config: Any) -> dict[str, int] | str:
    """Return the field of the padding token, where the classifier finds the last token by it; or why it would pool the wrong token."""
    if home.pool != "last":
        return {}
    inputs: Any = model.inputs
    try:
        tokenizer = open_tokenizer(inputs.files)
    except zoo.ZooError:  # a folder without tokenizer
        end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
        pad = end if config.pad_token_id is None else config.pad_token_id
        remedy = "its configuration names none; zoo.get(…, pad_token_id=N) does"
        return f"its classifier finds the end of a text by the padding token, and {remedy}" if pad is None else {"pad_token_id": pad}
    pad = tokenizer.padding["input_ids"]
    if tokenizer.encode(["a"], TOKENS)[0]["input_ids"][-1:] == [pad]:
        return "its classifier finds the end of a text by the padding token, and its tokenizer uses the padding token as its end token"
    return {"pad_token_id": pad}


def _transformers_model(model: zoo.TaskModel, config: Any, family: Family, changes: Mapping[str, Any]) -> nn.Module:
    """Return the classifier of transformers without values."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, AutoModelForTokenClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    auto: Any = AutoModelForTokenClassification if model.task == "token-classification" else AutoModelForSequenceClassification
    if model.spec.modality == "image":
        auto = AutoModelForImageClassification
    plain = {key: value for key, value in config.to_dict().items() if key not in ("id2label", "label2id")}
    own: Any
    if family.composite:
        own = CONFIG_MAPPING[family.composite](vision_config=plain, num_labels=model.num_classes, **changes)  # type: ignore[call-arg]  # of two parts
        own.vision_config._attn_implementation = config._attn_implementation
    else:
        own = type(config).from_dict({**plain, "num_labels": model.num_classes, **changes})
    own._attn_implementation = config._attn_implementation
    kind = auto._model_mapping[type(own)]
    with torch.device("meta"):
        twin: nn.Module = (kind[0] if isinstance(kind, tuple) else kind)(own)  # DeiT has a second one, for distillation
    return twin


def _fill(twin: nn.Module, model: zoo.TaskModel, keys: Mapping[str, str]) -> str:
    """Give the twin the tensors of the model, in place; return the name of a tensor that only one of them has, or nothing."""
    state: dict[str, Tensor] = {}
    for ours, theirs in keys.items():
        part = model.get_submodule(ours)
        state |= {f"{theirs}.{name}": tensor for name, tensor in part.state_dict().items()}
    own = twin.state_dict()
    odd = [key for key in own.keys() | state.keys() if key not in own or key not in state or own[key].shape != state[key].shape]
    if odd:
        return min(odd)
    twin.load_state_dict(state, assign=True)
    ours_buffers = {keys["backbone"] + "." + name: buffer for name, buffer in model.backbone.named_buffers()}
    for name, buffer in list(twin.named_buffers()):
        if buffer.is_meta and name in ours_buffers:  # not saved, such as the positions' indices
            path, _, last = name.rpartition(".")
            twin.get_submodule(path)._buffers[last] = ours_buffers[name]
    return ""


@torch.no_grad()
def _agree(model: zoo.TaskModel, twin: Any, family: Family) -> bool:
    """Tell whether both give the same logits for one random input."""
    device = next(model.head.parameters()).device
    twin.to(device).eval()
    batch = _batch(model, twin.config, device)
    training = model.training
    try:
        ours = model.eval()(batch)
        theirs = _logits(twin, batch, family)
    finally:
        model.train(training)
    theirs = theirs[:, : ours.shape[1]] if theirs.ndim == 3 else theirs  # some pad the texts themselves
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= TOLERANCE * ours.abs().max() + 1e-6)


def _logits(twin: Any, batch: Any, family: Family) -> Tensor:
    """Return the logits of the classifier of transformers for images, or for texts as the family reads them."""
    if isinstance(batch, Tensor):
        logits: Tensor = twin(batch).logits
        return logits
    read = inspect.signature(twin.forward).parameters.keys()
    logits = twin(**{name: value for name, value in text_inputs(family.inputs, twin.config, batch).items() if name in read}).logits
    return logits


def _batch(model: zoo.TaskModel, config: Any, device: torch.device) -> Any:
    generator = torch.Generator().manual_seed(0)
    inputs: Any = model.inputs
    if model.spec.modality == "image":
        return torch.randn(1, *inputs.shape, generator=generator).to(device)
    vocabulary, tokens = int(model.backbone.config.vocab_size), min(TOKENS, inputs.max_length)  # type: ignore[union-attr,arg-type]  # a configuration
    mask = torch.ones(2, tokens, dtype=torch.int64)
    mask[1, tokens // 2 :] = 0
    ids: Tensor = torch.randint(min(5, vocabulary - 1), vocabulary, (2, tokens), generator=generator)
    pad = getattr(config, "pad_token_id", None)
    ids[ids == pad] = vocabulary - 1 if pad != vocabulary - 1 else vocabulary - 2
    ids = ids if pad is None else ids.masked_fill(mask == 0, pad)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _published(model: zoo.TaskModel, family: Family, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the older names under which transformers still publishes parts of a family, where they differ from the modules'."""
    for name, module in model.backbone.named_modules() if family.published else ():
        if name and module._parameters:
            theirs = name
            for pattern, replacement in family.published:
                theirs = re.sub(pattern, replacement, theirs)
            if theirs != name:
                yield f"backbone.{name}", f"{prefix}.{theirs}"


def _config(model: zoo.TaskModel, twin: nn.Module, config: Any, family: Family) -> dict[str, Any]:
    """Return config.json for transformers; the names of the classes are written by zoo."""
    told = cleaned(config.to_diff_dict())
    told = {"model_type": family.composite, "vision_config": told} if family.composite else {**told, "model_type": config.model_type}
    dropout: Any = getattr(model.head, "dropout", None)
    rates = {name: dropout.p for name in DROPOUTS if hasattr(config, name) and dropout is not None}
    problem = {"problem_type": PROBLEMS[model.task]} if model.task in PROBLEMS else {}
    return {**told, **rates, **problem, "architectures": [type(twin).__name__], "dtype": "float32"}
