"""Separate LoRA files: a folder in PEFT's layout with LoRA and head, which PEFT and zoo open.

Besides PEFT's ``adapter_config.json`` and ``adapter_model.safetensors`` the folder has ``zoo.json`` with the base model and a
digest of its values, because LoRA of one base is wrong for another.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch
from torch import Tensor, nn

from zoo.declare import BackboneSpec, Text, Weights, from_fields
from zoo.errors import LayerGroupError, SavedModelError, examples
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.saved.config import Attached, Config, read_config, read_model
from zoo.saved.declaration import root_of, spec_of
from zoo.saved.load import assemble
from zoo.saved.metadata import describe, model_card
from zoo.saved.save import check_free, save_tokenizer, writing
from zoo.saved.tensors import backbone_state, read_verified
from zoo.tuning import Lora
from zoo.tuning.efficient.kinds import KINDS, RANK_COUNT, is_update
from zoo.tuning.efficient.lora import attach_to, fold_lora, lora_config, train_all
from zoo.tuning.statistics import keeps_statistics
from zoo.util.atomic_write import write_json, write_text
from zoo.util.file_digest import file_digest
from zoo.weights.load import write

OURS, THEIRS, TENSORS = "zoo.json", "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # prefix of every tensor in PEFT's files
NAME = ".default"  # PEFT's name of an update in memory, which its files omit


class Base(pydantic.BaseModel):
    """The model that LoRA was trained on.

    Attributes:
        weights: Fields of its weights' declaration, with the sha256 if known; None for random values.
        digest: Digest of its values, without those saved in full beside LoRA.
    """

    weights: dict[str, Any] | None
    digest: str


class SavedLora(pydantic.BaseModel):
    """The content of zoo.json.

    Attributes:
        format: Version of this layout.
        lora: The LoRA.
        whole: Names of the modules that are saved in full.
        base: The model that it was trained on.
        model: Description of the model as in config.json, with the digest of ``adapter_model.safetensors``.
    """

    format: Literal[1] = 1
    lora: Attached
    whole: list[str]
    base: Base
    model: Config


def save_lora(model: TaskModel, folder: Path, *, overwrite: bool = False) -> Path:
    """Write the LoRA or another update and the head of a model into ``folder``; with zoo.json, written last, it is complete.

    Norms with running statistics are saved in full like the head, as PEFT's ``modules_to_save``, unless ``freeze_bn`` is set,
    because their statistics move while LoRA trains. Kinds that PEFT computes have its configuration too:
    ``peft.PeftModel.from_pretrained(base, folder)``, with ``base`` the adapted
    model, gives equal logits.

    Raises:
        LayerGroupError: If no LoRA is attached.
        OutputExistsError: If the folder holds anything, unless ``overwrite``.
        OutputPermissionError: If it cannot be written.
        SavedModelError: If writing fails, for example on a full disk.
    """
    if model.lora is None:
        raise LayerGroupError("the model has no LoRA to save; attach it first: zoo.tuning.attach_lora(model, model.groups)")
    check_free(folder, overwrite=overwrite)
    whole = whole_modules(model)
    theirs = _their_config(model, model.lora, whole)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / "staged.safetensors"
        write({_file_name(name): tensor for name, tensor in _own_tensors(model, whole).items()}, staged)
        described = describe(model, keys={}, root=root_of(model.spec), sha256=file_digest(staged))
        base = Base(weights=_source(model), digest=base_digest(model, whole))
        (folder / OURS).unlink(missing_ok=True)
        if isinstance(model.inputs, Text) and model.inputs.files:
            save_tokenizer(model.inputs, folder)
        staged.replace(folder / TENSORS)
        (folder / THEIRS).unlink(missing_ok=True)
        if theirs:
            write_json(folder / THEIRS, theirs)
        write_text(folder / "README.md", f"{model_card(model)}\n\n{_card_text(model, model.lora)}\n")
        saved = SavedLora(lora=Attached(**dataclasses.asdict(model.lora)), whole=whole, base=base, model=described)
        write_json(folder / OURS, saved.model_dump(mode="json"))
    return folder


def _their_config(model: TaskModel, lora: Lora, whole: list[str]) -> dict[str, Any]:
    """Return PEFT's configuration, empty for zoo's own kinds."""
    if not KINDS[lora.kind].config:
        return {}
    source = model.spec.weights
    name = (source.repo if source else "") or model.spec.name
    config = lora_config(model, lora, modules_to_save=whole, base_model_name_or_path=name, inference_mode=True).to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


def _card_text(model: TaskModel, lora: Lora) -> str:
    """Return the section on LoRA of the model card."""
    kind = KINDS[lora.kind]
    sizes = f": rank {lora.rank}, alpha {lora.alpha:g}" if "rank" in kind.options else ""
    beside = f"at {len(lora.targets)} layers of {model.spec.name}"
    held = f"The folder holds {kind.title} and the head, not the backbone{sizes},\n{beside}. `zoo.load` builds the backbone anew and "
    if not kind.config:
        return f"{held}{'merges' if kind.merges else 'attaches'} {kind.title}."
    return f"""{held}merges {kind.title} into it. With PEFT, on the same backbone and head:

```python
from peft import PeftModel

PeftModel.from_pretrained(model, "PATH/TO/THIS/FOLDER")
```"""


def load_lora(folder: Path) -> TaskModel:
    """Build the base model, load LoRA and head, and merge what can be merged; the model is in eval mode.

    Raises:
        SavedModelError: If the folder is damaged, was not written by zoo, or its base model has changed.
        WeightsNotFoundError: If the base model's weights cannot be obtained.
        MissingExtraError: If PEFT is not installed.
    """
    if not (folder / OURS).is_file():
        raise SavedModelError(
            f"{str(folder)!r} holds LoRA without {OURS}, so its base model is not known; "
            f"open it on the model that it was trained on: peft.PeftModel.from_pretrained(MODEL, {str(folder)!r})"
        )
    saved = read_model(folder / OURS, SavedLora)
    verified = read_verified(folder / TENSORS, saved.model.zoo.sha256, "saved LoRA")
    tensors = {key.removeprefix(PREFIX): tensor for key, tensor in verified.items()}
    head = {name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # as in adapt, so that values without weights are the same
        model = assemble(folder, saved.model, _base(folder, saved), head)
    if base_digest(model, saved.whole) != saved.base.digest:
        raise SavedModelError(
            f"{str(folder)!r} was trained on other base weights than {_origin(saved)} has now; "
            f"open it on the model that it was trained on: peft.PeftModel.from_pretrained(MODEL, {str(folder)!r})"
        )
    attach_to(model, Lora(**saved.lora.model_dump()))
    wanted = _own_tensors(model, saved.whole)
    own = {_file_name(name).removeprefix(PREFIX): name for name in wanted}
    if odd := sorted(own.keys() ^ tensors.keys()):
        raise SavedModelError(f"{str(folder / TENSORS)!r} and the model differ in {examples(odd)}; save it again")
    model.load_state_dict({own[key]: tensor for key, tensor in tensors.items()}, strict=False)
    if KINDS[saved.lora.kind].merges:
        fold_lora(model)
    else:
        train_all(model)
    return model.eval()


def whole_modules(model: TaskModel) -> list[str]:
    """Return the names of the modules that are saved in full: the head, and norms whose statistics may have moved.

    PEFT matches names as suffixes. So if the backbone has a ``head`` too, layers of the head are named one by one; modules of the
    backbone that still match a name are saved too.
    """
    names = [f"backbone.{name}" for name, _ in model.backbone.named_modules() if name]
    head = _stateful(model.head, "head") if any(name.endswith("head") for name in names) else ["head"]
    norms = [] if model.freeze_bn else [name for name, module in model.backbone.named_modules() if keeps_statistics(module)]
    whole = [*head, *(f"backbone.{name}" for name in norms)]
    return whole + [name for name in names if name.endswith(tuple(whole)) and name not in whole]


def _stateful(module: nn.Module, name: str) -> list[str]:
    """Return the names of the outermost modules with own tensors."""
    if any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
        return [name]
    return [found for key, child in module.named_children() for found in _stateful(child, f"{name}.{key}")]


def base_digest(model: TaskModel, whole: list[str]) -> str:
    """Return a sha256 of the backbone's values without LoRA and without the modules saved in full."""
    result = hashlib.sha256()
    skipped = tuple(f"{name}.".replace(".base_layer.", ".") for name in whole)
    plain = ((name.replace(".base_layer.", "."), tensor) for name, tensor in model.state_dict().items() if not is_update(name))
    for name, tensor in sorted(plain, key=lambda pair: pair[0]):
        if not name.startswith(skipped):
            value = tensor.detach().cpu().contiguous()
            result.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            result.update(memoryview(value.reshape(-1).view(torch.uint8).numpy()))
    return result.hexdigest()


def _own_tensors(model: TaskModel, whole: list[str]) -> dict[str, Tensor]:
    prefixes = tuple(f"{name}." for name in whole)
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(prefixes) or is_update(name)}
    return {name: tensor for name, tensor in own.items() if RANK_COUNT not in name}


def _file_name(name: str) -> str:
    """Return the name of a tensor in PEFT's file."""
    if not is_update(name):
        return PREFIX + name
    before, _, last = name.rpartition(NAME)
    return PREFIX + before + ("" if before.endswith(".lora_magnitude_vector") else last)


def _source(model: TaskModel) -> dict[str, Any] | None:
    """Return the fields of the declaration of a model's pretrained weights."""
    weights = model.spec.weights
    if not model.pretrained or weights is None:
        return None
    local = not weights.repo and not weights.package
    return dataclasses.asdict(dataclasses.replace(weights, file=str(Path(weights.file).resolve())) if local else weights)


def _base(folder: Path, saved: SavedLora) -> Backbone:
    """Return the backbone that LoRA was trained on."""
    where = str(folder / OURS)
    weights = from_fields(Weights, saved.base.weights, where) if saved.base.weights else None
    spec: BackboneSpec = spec_of(folder, saved.model).replace(weights=weights)
    origin = _saved_base(weights)
    if origin is not None:
        return Backbone(spec, plugin=saved.model.zoo.plugin, state=lambda: backbone_state(origin, read_config(origin)))
    return Backbone(spec, plugin=saved.model.zoo.plugin, weights=None if weights else False, allow_partial=True)


def _saved_base(weights: Weights | None) -> Path | None:
    """Return the folder of a saved model, if the weights are of one; its tensors may have names of another library."""
    if weights is None or weights.repo or weights.package or Path(weights.file).name != "model.safetensors":
        return None
    folder = Path(weights.file).parent
    try:
        read_config(folder)
    except SavedModelError:
        return None
    return folder


def _origin(saved: SavedLora) -> str:
    fields: Mapping[str, Any] = saved.base.weights or {}
    return f"{fields.get('repo') or fields.get('file') or 'random initialisation with seed 0'} ({saved.model.base_model})"
