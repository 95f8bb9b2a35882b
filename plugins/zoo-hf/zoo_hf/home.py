"""The layout in which transformers opens a fine-tuned model: with its classifier, its labels and its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo_hf.describe import cleaned
from zoo_hf.families import FAMILIES
from zoo_hf.family import Family, Home
from zoo_hf.image_forward import interpolates, native_size

if TYPE_CHECKING:
    import zoo

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
    family = FAMILIES[kind]
    home = family.tokens if model.task == "token-classification" else family.sequence
    if home is None:
        return f"the classifiers of {kind} are none of the heads of zoo"
    reason = _misfit(model, family, home)
    if reason:
        return reason
    config = model.backbone.config
    twin = _twin(model, config, family)
    keys = {"backbone": family.prefix, **home.keys}
    odd = _fill(twin, model, keys)
    if odd:
        return f"{type(twin).__name__} holds other tensors, for example {odd}"
    if not _agree(model, twin):
        return f"{type(twin).__name__} gives other logits"
    return {"keys": keys | dict(_published(model, family)), "config": _config(model, twin, config, family)}


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
    wanted: dict[str, Any] = {}
    if home.head == "mlp":
        wanted = {"hidden": width, "activation": activation}
    options = model.head_options
    fits = model.head_name == home.head and all(_used(options, key) == value for key, value in wanted.items())
    if fits and (not home.pool or _pool(model) == home.pool):
        return ""
    task = f", task={model.task!r}" if model.task != "single-label" else ""
    head = f", head={home.head!r}" if home.head == "mlp" else ""
    told = "".join(f", {key}={value!r}" for key, value in wanted.items())
    pool = f", pool={home.pool!r}" if home.pool else ""
    return (
        f"its head is {model.head_name!r} with pool {_pool(model)!r}; adapt({model.num_classes}{task}{head}{told}{pool}) would open there"
    )


def _used(options: Mapping[str, Any], key: str) -> Any:
    return options.get(key, {"hidden": 256, "activation": "relu"}[key])


def _pool(model: zoo.TaskModel) -> str:
    if model.spec.options.get("pooler"):
        return "pooler"
    return str(getattr(getattr(model.head, "pool", None), "how", ""))


def _native(model: zoo.TaskModel, config: Any) -> bool:
    inputs: Any = model.inputs
    return tuple(inputs.size) == native_size(config)


def _twin(model: zoo.TaskModel, config: Any, family: Family) -> nn.Module:
    """Return the classifier of transformers without values."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, AutoModelForTokenClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    auto: Any = AutoModelForTokenClassification if model.task == "token-classification" else AutoModelForSequenceClassification
    if model.spec.modality == "image":
        auto = AutoModelForImageClassification
    plain = {key: value for key, value in config.to_dict().items() if key not in ("id2label", "label2id")}
    own: Any
    if family.composite:
        own = CONFIG_MAPPING[family.composite](vision_config=plain, num_labels=model.num_classes)  # type: ignore[call-arg]  # a model of two parts
        own.vision_config._attn_implementation = config._attn_implementation
    else:
        own = type(config).from_dict({**plain, "num_labels": model.num_classes})
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
def _agree(model: zoo.TaskModel, twin: nn.Module) -> bool:
    """Tell whether both give the same logits for one random input."""
    device = next(model.head.parameters()).device
    twin.to(device).eval()
    batch = _batch(model, device)
    training = model.training
    try:
        ours = model.eval()(batch)
        theirs = twin(**batch).logits if isinstance(batch, dict) else twin(batch).logits
    finally:
        model.train(training)
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= TOLERANCE * ours.abs().max() + 1e-6)


def _batch(model: zoo.TaskModel, device: torch.device) -> Any:
    generator = torch.Generator().manual_seed(0)
    inputs: Any = model.inputs
    if model.spec.modality == "image":
        return torch.randn(1, *inputs.shape, generator=generator).to(device)
    vocabulary, tokens = int(model.backbone.config.vocab_size), min(TOKENS, inputs.max_length)  # type: ignore[union-attr,arg-type]  # a configuration
    mask = torch.ones(2, tokens, dtype=torch.int64)
    mask[1, tokens // 2 :] = 0
    ids: Tensor = torch.randint(min(5, vocabulary - 1), vocabulary, (2, tokens), generator=generator)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _published(model: zoo.TaskModel, family: Family) -> Iterator[tuple[str, str]]:
    """Yield the older names under which transformers still publishes parts of a family, where they differ from the modules'."""
    for name, module in model.backbone.named_modules() if family.published else ():
        if name and module._parameters:
            theirs = name
            for pattern, replacement in family.published:
                theirs = re.sub(pattern, replacement, theirs)
            if theirs != name:
                yield f"backbone.{name}", f"{family.prefix}.{theirs}"


def _config(model: zoo.TaskModel, twin: nn.Module, config: Any, family: Family) -> dict[str, Any]:
    """Return config.json for transformers; the names of the classes are written by zoo."""
    told = cleaned(config.to_diff_dict())
    told = {"model_type": family.composite, "vision_config": told} if family.composite else {**told, "model_type": config.model_type}
    dropout: Any = getattr(model.head, "dropout", None)
    rates = {name: dropout.p for name in DROPOUTS if hasattr(config, name) and dropout is not None}
    problem = {"problem_type": PROBLEMS[model.task]} if model.task in PROBLEMS else {}
    return {**told, **rates, **problem, "architectures": [type(twin).__name__], "dtype": "float32"}
