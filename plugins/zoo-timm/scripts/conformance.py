"""Conformance of the layer groups: one small architecture of each timm module, built, bound, run and trained for real.

    python scripts/conformance.py [MODULE ...]

prints a line per module: its architecture, its groups, how many frozen prefixes were tried, and what failed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import order
import timm
import torch
import torch.nn.functional as F
import zoo_timm
from torch import Tensor

import zoo

CLASSES = 3
BATCH = 2
STEPS = 2
LARGE = 300e6  # parameters; what has more is tried with four blocks
FLEXIBLE_SIZE = 96  # pixels; architectures that cannot take it run at their own size


@dataclass
class Outcome:
    """What was found for one architecture.

    Attributes:
        name: Name of the backbone.
        groups: Names of its groups.
        prefixes: Lengths of the frozen prefixes that were trained.
        faults: One line per broken promise.
        idle: Parameters that no gradient reached within two steps.
    """

    name: str
    groups: tuple[str, ...] = ()
    prefixes: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    idle: set[str] = field(default_factory=set)


def representatives() -> dict[str, zoo.BackboneSpec]:
    """Return the smallest catalogued architecture of each timm module."""
    listed = {spec.name.removeprefix("timm/"): spec for spec in zoo_timm.zoo_backbones()}
    modules = {module: [listed[name] for name in timm.list_models(module=module) if name in listed] for module in timm.list_modules()}
    return {module: min(specs, key=lambda spec: spec.parameters) for module, specs in modules.items() if specs}


def check(spec: zoo.BackboneSpec) -> Outcome:
    """Build, bind, run in order, and train with a sample of frozen prefixes."""
    outcome = Outcome(spec.name)
    torch.manual_seed(0)
    shallow = {"depth": 4} if spec.parameters > LARGE else {}
    model = zoo.get(spec.name, weights=False, **shallow).adapt(CLASSES)
    outcome.groups = model.groups.names
    x, y = batch(model), torch.arange(BATCH) % CLASSES
    outcome.faults += order.out_of_order(model.backbone.eval(), model.groups, x)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    for k in sorted({0, 1, len(model.groups) // 2, len(model.groups) - 1, len(model.groups)}):
        model.load_state_dict(start)
        outcome.faults += [f"k={k}: {fault}" for fault in train(model, k, x, y, outcome.idle)]
        outcome.prefixes.append(k)
    return outcome


def batch(model: zoo.TaskModel) -> Tensor:
    """Return a batch that the model takes: small where it can, else of its declared size."""
    declared, small = model.inputs.shape, (model.inputs.channels, FLEXIBLE_SIZE, FLEXIBLE_SIZE)
    if model.inputs.fixed_size:
        return torch.randn(BATCH, *declared)
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *small))
    except (AssertionError, RuntimeError):  # its windows do not divide so small a map
        return torch.randn(BATCH, *declared)
    return torch.randn(BATCH, *small)


def train(model: zoo.TaskModel, k: int, x: Tensor, y: Tensor, idle: set[str]) -> Iterator[str]:
    """Take two AdamW steps with ``k`` frozen groups; yield what moved though frozen, and what stood though it had a gradient."""
    model.freeze(k).train()
    before = {name: tensor.clone() for name, tensor in tensors(model)}
    # The tiny epsilon lets a parameter move however small its gradient is.
    optimizer = torch.optim.AdamW(zoo.tuning.param_groups(model.groups, model.head, lr=1e-3, weight_decay=0.05), eps=1e-20)
    reached: set[str] = set()
    for _ in range(STEPS):
        F.cross_entropy(model(x), y).backward()
        reached |= {name for name, parameter in model.named_parameters() if parameter.grad is not None and bool(parameter.grad.any())}
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, tensor in tensors(model) if not torch.equal(tensor, before[name])}
    frozen = {f"backbone.{name}" for group in model.groups[:k] for name, _ in (*group.named_parameters(), *group.named_buffers())}
    yield from (f"{name} moved though it is frozen" for name in sorted(moved & frozen))
    yield from (f"{name} has a gradient and did not move" for name in sorted(reached - moved))
    for group in model.groups[k:]:
        names = {f"backbone.{name}" for name, _ in group.named_parameters()}
        if not names & moved:
            yield f"nothing of {group.name} moved"
        statistics = {f"backbone.{name}" for name, _ in group.named_buffers() if name.endswith("running_mean")}
        yield from (f"{name} of the trainable {group.name} did not move" for name in sorted(statistics - moved - frozen))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    idle |= trainable - reached


def tensors(model: zoo.TaskModel) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer with its name."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def main(wanted: list[str]) -> int:
    """Check the modules named, or all; return the number that failed."""
    failed, specs = 0, representatives()
    unknown = [name for name in wanted if name not in specs]
    if unknown:
        sys.exit(f"timm has no module {', '.join(unknown)}; the modules are: {', '.join(sorted(specs))}")
    for module, spec in sorted(specs.items()):
        if wanted and module not in wanted:
            continue
        start = time.perf_counter()
        try:
            outcome = check(spec)
        except (zoo.ZooError, AssertionError, RuntimeError, ValueError) as error:
            outcome = Outcome(spec.name, faults=[str(error)])
        failed += bool(outcome.faults)
        verdict = "failed" if outcome.faults else "passed"
        idle = f", {len(outcome.idle)} parameters without gradient" if outcome.idle else ""
        seconds = time.perf_counter() - start
        print(f"{verdict} {module}: {spec.name}, {len(outcome.groups)} groups, k in {outcome.prefixes}{idle} ({seconds:.0f} s)", flush=True)
        for fault in outcome.faults[:4]:
            print(f"  - {fault}")
    total = len(wanted) or len(specs)
    print(f"passed {total - failed}/{total}")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
