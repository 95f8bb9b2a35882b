"""The conformance kit for plugin authors: ``check_backbone("acme/tinyvit")`` is the whole test of a plugin.

Public and versioned: a check is only added with a new ``KIT_VERSION``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

import zoo
from zoo.adapter import TaskModel
from zoo.backbone import Backbone
from zoo.construct import build
from zoo.declare import Features, Image, Text, Volume
from zoo.errors import examples, fault_list
from zoo.layers import LayerGroups
from zoo.registry import default_registry
from zoo.tuning import param_groups, taps

KIT_VERSION = 1


@dataclass(frozen=True)
class Subject:
    """One backbone under test, built with random values: nothing is fetched."""

    name: str

    @cached_property
    def backbone(self) -> Backbone:
        """Its handle."""
        return zoo.get(self.name, weights=False)

    def model(self) -> TaskModel:
        """A new model of three classes, the same each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return zoo.get(self.name, weights=False).adapt(3)

    def batch(self, size: int = 2) -> Tensor:
        """A batch of the declared input, the same each time."""
        inputs = self.backbone.spec.inputs
        generator = torch.Generator().manual_seed(0)
        if isinstance(inputs, Text):
            return torch.randint(1, 100, (size, min(inputs.max_length, 16)), generator=generator)
        assert isinstance(inputs, Image | Volume)
        return torch.randn(size, *inputs.shape, generator=generator)

    def prefixes(self) -> list[int]:
        """Frozen prefixes to try: all of them, or for deep backbones the ends and the middle."""
        total = len(self.backbone.groups)
        return list(range(total + 1)) if total <= 6 else [0, 1, total // 2, total - 1, total]


Check: TypeAlias = Callable[[Subject], None]


def check_backbone(name: str) -> int:
    """Hold one installed backbone to the contract of a plugin.

    Args:
        name: Its id.

    Returns:
        How many checks ran.

    Raises:
        AssertionError: Listing every failed check and why.
    """
    subject, failures = Subject(name), []
    checks = backbone_checks()
    for check in checks:
        try:
            check(subject)
        except Exception as error:  # whatever a plugin raises is a failed check, and the others still run
            failures.append(f"{check.__name__.removeprefix('_')}: {str(error) or type(error).__name__}")
    if failures:
        raise AssertionError(fault_list(f"{name} fails {len(failures)} of {len(checks)} checks (kit {KIT_VERSION}):", failures))
    return len(checks)


def backbone_checks() -> list[Check]:
    """Return the checks, for use as parameters of a test; each takes a ``Subject`` and raises where it fails."""
    return [
        listing_imports_no_torch,
        licence_is_stated,
        headless_build_equals_plain_build,
        features_are_as_declared,
        groups_run_in_order,
        frozen_prefix_stands_still_and_the_rest_moves,
        frozen_features_ignore_mode_and_batch_mates,
        param_groups_hold_each_parameter_once,
        taps_give_every_group,
        saved_model_returns,
    ]


def listing_imports_no_torch(subject: Subject) -> None:
    """Importing the plugin's module costs no model library."""
    plugin = default_registry().resolve(subject.name).plugin
    assert plugin is not None, "no plugin declares it"
    module = plugin.module.partition(":")[0]
    code = f"import sys, importlib; importlib.import_module({module!r}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, check=False)
    assert not done.returncode, f"importing {module} imports torch; name functions as 'module:function' instead {done.stderr[-300:]}"


def licence_is_stated(subject: Subject) -> None:
    """Weights come with a licence."""
    spec = subject.backbone.spec
    assert spec.weights is None or spec.license not in ("", "unknown"), (
        "its weights state no licence; write weights=zoo.Weights(…, license='apache-2.0')"
    )


def headless_build_equals_plain_build(subject: Subject) -> None:
    """A build without values, filled from the state of a plain build, gives equal features: no hidden state."""
    plain = subject.backbone.build().eval()
    filled = build(subject.backbone.spec.replace(convert=""), plain.state_dict).eval()
    assert next(filled.parameters()).data_ptr() == next(plain.parameters()).data_ptr()
    with torch.no_grad():
        assert torch.equal(plain(subject.batch()), filled(subject.batch())), "values that are neither parameters nor saved buffers differ"


def features_are_as_declared(subject: Subject) -> None:
    """The declared input gives the declared layout and width."""
    features, declared = subject.backbone.features(subject.batch()), subject.backbone.spec.features
    assert isinstance(features, Tensor), f"forward returns {type(features).__name__}, not a tensor"
    axis = _channel_axis(declared)
    fits = features.ndim == len(declared.layout) and features.shape[0] == 2 and features.shape[axis] == declared.dim
    assert fits, f"forward returns {tuple(features.shape)}; declared are layout {declared.layout} and dim {declared.dim}"


def groups_run_in_order(subject: Subject) -> None:
    """The groups partition the module (``bind`` proves it) and first run in the declared order."""
    order = execution_order(subject.backbone.groups, subject.batch())
    ran = [name for name in subject.backbone.groups.names if name in order]
    assert order == ran, f"they run as {', '.join(order)}; declared is {', '.join(ran)}"


def execution_order(groups: LayerGroups, batch: Tensor) -> list[str]:
    """Return the names of the groups in the order in which a leaf module with parameters of each first runs."""
    order: list[str] = []
    handles = []
    for group in groups:

        def note(_module: nn.Module, _args: object, name: str = group.name) -> None:
            if name not in order:
                order.append(name)

        leaves = (leaf for _, outer in group.modules() for leaf in outer.modules() if any(True for _ in leaf.parameters(recurse=False)))
        handles += [leaf.register_forward_pre_hook(note) for leaf in leaves]
    with torch.no_grad():
        groups.model.eval()(batch)
    for handle in handles:
        handle.remove()
    return order


def frozen_prefix_stands_still_and_the_rest_moves(subject: Subject) -> None:
    """After two AdamW steps in train mode the prefix is bit-equal, buffers included, and every other parameter moved."""
    for k in subject.prefixes():
        model = subject.model().freeze(k)
        before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
        optimizer = torch.optim.AdamW(param_groups(model.groups, model.head, lr=0.01, weight_decay=0.1))
        for _ in range(2):
            model.train()
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(subject.batch(4)), torch.tensor([0, 1, 2, 0]))
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        after = model.backbone.state_dict()
        moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        frozen = {name for group in model.groups[:k] for name, _ in (*group.named_parameters(), *group.named_buffers())}
        assert not moved & frozen, f"with {k} groups frozen these moved: {examples(sorted(moved & frozen))}"
        still = [name for name, _ in model.groups[k:].named_parameters() if name not in moved | frozen]
        assert not still, f"with {k} groups frozen these did not move: {examples(still)}"


def frozen_features_ignore_mode_and_batch_mates(subject: Subject) -> None:
    """What a frozen prefix puts out in train mode equals eval mode bit for bit, whoever else is in the batch."""
    model = subject.model()
    batch = subject.batch(4)
    for k in subject.prefixes():
        tapped = [group.name for group in model.groups[:k] if any(isinstance(m, nn.Module) for _, m in group.modules())]
        if not tapped:
            continue
        name = tapped[-1]
        outputs = []
        for mode, x in ((False, batch), (True, batch), (True, batch[[0, 0, 0, 0]])):
            model.freeze(k).train(mode)
            with taps(model.groups, name) as output, torch.no_grad():
                model.backbone(x)
            outputs.append(output[name])
        if not all(isinstance(output, Tensor) for output in outputs):
            continue
        assert torch.equal(outputs[0], outputs[1]), f"with {k} groups frozen, {name!r} differs between train and eval mode"
        same = torch.allclose(outputs[1][0], outputs[2][0], rtol=1e-4, atol=1e-4) if outputs[1].shape[0] == 4 else True
        assert same, f"with {k} groups frozen, the output of {name!r} depends on the other samples of the batch"


def param_groups_hold_each_parameter_once(subject: Subject) -> None:
    """Every parameter is in one optimizer group, and rates do not fall towards the head."""
    model = subject.model()
    split = param_groups(model.groups, model.head, lr=1.0, layer_decay=0.5)
    held = [id(parameter) for group in split for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters()), (
        "not every parameter is in exactly one optimizer group"
    )
    rates = [group["lr"] for group in split]
    assert rates == sorted(rates), f"learning rates fall towards the head: {rates}"


def taps_give_every_group(subject: Subject) -> None:
    """Every group that has modules puts something out."""
    groups = subject.backbone.groups
    named = [group.name for group in groups if dict(group.modules()).keys() & set(group.members)]
    with taps(groups, *named) as outputs, torch.no_grad():
        groups.model.eval()(subject.batch())
    silent = [name for name in named if name not in outputs]
    assert not silent, f"these groups never ran: {', '.join(silent)}"


def saved_model_returns(subject: Subject) -> None:
    """A saved model gives equal logits after loading, and is a backbone with the same groups."""
    model = subject.model().eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = model.save(Path(folder) / "saved")
        loaded = zoo.load(path)
        assert torch.equal(model(subject.batch()), loaded(subject.batch())), "logits differ after saving and loading"
        assert zoo.get(path).groups.names == model.groups.names, "groups differ after saving and loading"


def _channel_axis(features: Features) -> int:
    return -1 if features.layout in ("BHWC", "BND", "BD") else 1


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
