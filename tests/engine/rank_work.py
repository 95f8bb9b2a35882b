"""What the tests of several processes let each of them do; run by torchrun as ``-m tests.engine.rank_work FOLDER WORK…``.

Each piece of work is a function of a folder. It returns plain data, which the first process writes as JSON for the test. The
test also runs some of it by itself, as one process alone.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import distributed as dist
from torch import nn

import zoo
import zoo.builtin
from tests.engine.tiny import images, timeless
from tests.engine.tiny import model as tiny
from tests.toy import toy_spec
from tests.toy_text import ToyTextPlugin
from tests.undrawn import leave_out_curves
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.declare import Features
from zoo.engine.distributed import gradient_exchange, rank_devices
from zoo.engine.distributed.gradient_exchange import GradientExchange
from zoo.engine.distributed.ranks import Status
from zoo.engine.distributed.rendezvous import join_processes
from zoo.engine.optim.weight_averaging import refresh_statistics
from zoo.engine.rundir.run_folder import Run
from zoo.engine.runtime.signals import Stopped
from zoo.errors import CorruptInputError, InterruptedRunError
from zoo.models.backbone import Backbone
from zoo.models.task_model import TaskModel
from zoo.registry.registry import Registry, use_registry

WORDS = ("sun", "rain", "cloud", "wind", "snow", "storm", "thunderstorms")


class PlainNet(nn.Module):
    """Convolutions without statistics and without chance: parts of a batch give what the whole gives."""

    def __init__(self, width: int, in_chans: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, stride=2)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(x))
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return x


def plainnet(width: int = 8, in_chans: int = 3) -> PlainNet:
    return PlainNet(width, in_chans)


PLAIN = toy_spec("toy/plain", build="tests.engine.rank_work:plainnet", layers={"stem": "conv1", "stage": "blocks.*"})


class TokenNet(nn.Module):
    """A ViT without dropout: patches of 4 pixels, one vector per patch."""

    def __init__(self, width: int, in_chans: int) -> None:
        super().__init__()
        self.cut, self.positions = nn.Conv2d(in_chans, width, 4, 4), nn.Parameter(0.1 * torch.randn(16, width))
        options: dict[str, Any] = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 2, 2 * width, **options) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.cut(x).flatten(2).mT + self.positions
        for block in self.blocks:
            x = block(x)
        return x


def tokennet(width: int = 8, in_chans: int = 3) -> TokenNet:
    return TokenNet(width, in_chans)


TOKENS = toy_spec(
    "toy/tokens",
    build="tests.engine.rank_work:tokennet",
    layers={"stem": ["cut", "positions"], "stage": "blocks.*"},
    features=Features(dim=8, layout="BND"),
)


class PlainPlugin:
    """A plugin as an object, so that a saved model of ``plain`` can be opened."""

    @zoo.hookimpl
    def zoo_backbones(self) -> list[zoo.BackboneSpec]:
        return [PLAIN, TOKENS]


def plain(classes: int = 3, **options: Any) -> TaskModel:
    torch.manual_seed(0)
    return Backbone(PLAIN, weights=False).adapt(classes, **options)


def text(task: str = "single-label", classes: int = 2) -> TaskModel:
    torch.manual_seed(0)
    return zoo.get("toy/text", weights=False, dropout=0.0).adapt(
        classes, task=task, **({"dropout": 0.0} if task == "token-classification" else {})
    )


def sentences(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    source = np.random.default_rng(seed)
    labels = [("cat", "dog")[index % 2] for index in range(count)]
    return [" ".join([*source.choice(WORDS, source.integers(1, 12)), label]) for label in labels], labels


def tagged(count: int, seed: int = 0) -> tuple[list[list[str]], list[list[str]]]:
    source = np.random.default_rng(seed)
    words, tags = [], []
    for _ in range(count):
        before, after = (list(source.choice(WORDS, source.integers(1, 5))) for _ in range(2))
        words.append([*before, "grey", "wolf", *after])
        tags.append(["O"] * len(before) + ["B-Animal", "I-Animal"] + ["O"] * len(after))
    return words, tags


def numbers(count: int, seed: int = 0) -> tuple[Any, Any]:
    pixels, names = images(count, seed)
    return pixels, np.asarray([[len(name), index % 5] for index, name in enumerate(names)], dtype=np.float32)


def fit(out: Path, net: TaskModel, *data: Any, **options: Any) -> Run:
    return net.fit(*data, out=out, quiet=True, **({"epochs": 3, "batch_size": 8, "lr": 1e-2, "augment": "none", "workers": 0} | options))


def told(run: Run, net: TaskModel) -> dict[str, Any]:
    """Return what two runs are compared by: losses and metrics, and all values of the model."""
    return {
        "history": timeless(run.history),
        "values": {name: tensor.double().flatten().tolist() for name, tensor in net.state_dict().items()},
    }


PHOTOS = (images(33), images(13, seed=1))
TEXTS = (sentences(33), sentences(13, 1))
WORD_LISTS = (tagged(21), tagged(9, 1))

# The recipes and tasks that one and two processes must train alike: the model, the data, the options.
ALIKE: dict[str, tuple[Callable[[], TaskModel], tuple[Any, Any], dict[str, Any]]] = {
    "full": (plain, PHOTOS, {"recipe": "full"}),
    "layer-decay-accumulated-clipped": (plain, PHOTOS, {"recipe": "layer-decay", "accumulate": 2, "clip_grad": 0.1, "batch_size": 4}),
    "linear-probe": (lambda: tiny(), PHOTOS, {"recipe": "linear-probe"}),
    "linear-probe-views": (lambda: tiny(), PHOTOS, {"recipe": "linear-probe", "augment": "light", "views": 2}),
    "top": (plain, PHOTOS, {"recipe": "top"}),
    "lp-ft": (plain, PHOTOS, {"recipe": "lp-ft", "epochs": 4}),
    "gradual-plateau": (plain, PHOTOS, {"recipe": "gradual", "schedule": "plateau"}),
    "lora": (plain, PHOTOS, {"recipe": "lora"}),
    "ema-average-wise-ft": (plain, PHOTOS, {"recipe": "full", "ema": 0.9, "average": 0.5, "wise_ft": 0.5}),
    "l2-sp": (plain, PHOTOS, {"recipe": "full", "l2_sp": 0.1}),
    "balanced": (plain, PHOTOS, {"recipe": "full", "class_weights": "balanced", "balanced_sampling": True}),
    "one-sample-batches": (plain, (images(7), images(7, seed=1)), {"recipe": "full", "batch_size": 1, "epochs": 2}),
    "regression": (lambda: plain(2, task="regression"), (numbers(21), numbers(9, 1)), {"recipe": "full"}),
    "text": (text, TEXTS, {"recipe": "full"}),
    "text-top": (text, TEXTS, {"recipe": "top"}),
    "text-probe": (text, TEXTS, {"recipe": "linear-probe"}),
    "words": (lambda: text("token-classification", 3), WORD_LISTS, {"recipe": "full"}),
    "words-top": (lambda: text("token-classification", 3), WORD_LISTS, {"recipe": "top"}),
    "lr-auto": (plain, PHOTOS, {"recipe": "full", "lr": "auto"}),
    "batch-auto": (plain, PHOTOS, {"recipe": "full", "batch_size": "auto"}),
}


FEW = ("layer-decay-accumulated-clipped", "linear-probe", "text-top", "words-top", "one-sample-batches", "lr-auto")


def alike(out: Path, names: Sequence[str] = FEW) -> dict[str, Any]:
    """Train some of ALIKE."""
    found = {}
    for name in names:
        build, data, options = ALIKE[name]
        net = build()
        found[name] = told(fit(out / name, net, *data, **options), net)
    return found


def all_alike(out: Path) -> dict[str, Any]:
    """Train everything in ALIKE."""
    return alike(out, list(ALIKE))


def objectives(out: Path) -> dict[str, Any]:
    """Train the three objectives of the tests, on networks without BatchNorm, whose statistics are those of a rank."""
    from tests.engine.objectives import Coral, Distilled, Momentum

    target = open_data(images(18, seed=5)[0] // 2, labelled=False)
    makers = {"distilled": lambda base: Distilled(base, plain()), "coral": lambda base: Coral(base, target), "momentum": Momentum}
    found = {}
    for name, make in makers.items():
        net = plain()
        found[name] = told(fit(out / name, net, *PHOTOS, recipe="full", objective=make), net)
    return found


def uneven(out: Path) -> dict[str, Any]:
    """Validate on numbers of samples that no two processes can share evenly."""
    found = {}
    for count in (101, 7, 1):
        for kind, net, data in (
            ("photos", plain(), (images(12), images(count, seed=1))),
            ("words", text("token-classification", 3), (tagged(12), tagged(count, 1))),
        ):
            run = fit(out / f"{kind}{count}", net, *data, recipe="full", epochs=1, batch_size=4)
            found[f"{kind}{count}"] = run.metrics
    return found


class Culprit(Sequence[Any]):
    """Inputs of which one does something when it is read for the n-th time."""

    def __init__(self, inputs: Any, index: int, act: Callable[[], None], reads: int = 1) -> None:
        self.inputs, self.index, self.act, self.reads = inputs, index, act, reads

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Any) -> Any:
        if index == self.index:
            self.reads -= 1
            if self.reads == 0:
                self.act()
        return self.inputs[index]


def cursed(act: Callable[[], None], reads: int = 1) -> Table:
    """Return photos of which number 5 does something; one rank loads it."""
    table = open_data(PHOTOS[0])
    return Table(Culprit(table.inputs, 5, act, reads), table.targets, table.classes, source="the shelf")


def raise_(error: BaseException) -> None:
    raise error


def caught(function: Callable[[], Any]) -> dict[str, str]:
    try:
        return {"kind": "none", "text": str(function())[:80]}
    except (Exception, InterruptedRunError) as error:
        return {"kind": type(error).__name__, "text": str(error)}


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def decisions(out: Path) -> dict[str, Any]:
    """Let one rank meet something between steps, at every depth."""
    ranks = join_processes("cpu", 30.0)
    inner = join_processes("cpu", 30.0)
    third = join_processes("cpu", 30.0)
    fourth = join_processes("cpu", 30.0)

    def nested(error: Exception, forgiven: tuple[type[Exception], ...] = ()) -> None:
        with ranks.together(), ranks.together(forgiven):
            if ranks.rank == 1:
                raise error

    def broken() -> None:
        with third.together((OSError,)):
            if third.rank == 1:
                raise CorruptInputError("a.png is cut off")

    def outer(error: Exception) -> None:
        with inner.together():
            if inner.rank == 1:
                raise error
            with inner.together():
                pass

    means = [torch.tensor([1.0, 4.0]) * (1 + ranks.rank), torch.tensor(7)]  # a counter stays
    ranks.average(means, 0.75 if ranks.rank == 0 else 0.25)

    def waiting() -> float:
        began = time.monotonic()
        with fourth.together():
            if fourth.rank == 1:
                raise Stopped
            while time.monotonic() < began + 20:
                time.sleep(0.05)
                fourth.raise_if_another_rank_failed()
        return 0.0

    began = time.monotonic()
    heeded = caught(waiting) | {"seconds": time.monotonic() - began}
    return {
        "heeded": heeded,
        "means": [mean.tolist() for mean in means],
        "stopped": caught(lambda: nested(Stopped())),
        "declined": caught(lambda: nested(OSError("no room"), (OSError,))),
        "stopped-outside": caught(lambda: outer(Stopped())),
        "again": caught(lambda: nested(Stopped())),
        "gathered": ranks.gather({"rank": ranks.rank}),
        "failed": caught(lambda: nested(ValueError("no such thing"))),
        "failed-outside": caught(lambda: outer(KeyError("no such key"))),
        "broken": caught(broken),
    }


def gpus(out: Path) -> dict[str, Any]:
    """Join as processes that see one GPU each: every one its own, all the same, and one of them none."""
    placed: list[int] = []

    def joined(name: str, device: str = "cuda", visible: int = 1) -> str:
        if dist.is_initialized():
            dist.destroy_process_group()
        init = dist.init_process_group
        with ExitStack() as stack:
            patch = lambda owner, name, value: stack.enter_context(mock.patch.object(owner, name, value))  # noqa: E731
            stack.enter_context(mock.patch.dict(os.environ, LOCAL_RANK=str(3 + int(os.environ["RANK"]))))
            patch(rank_devices, "choose_device", lambda wanted: torch.device(device))
            patch(torch.cuda, "device_count", lambda: visible)
            patch(torch.cuda, "set_device", placed.append)
            patch(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=name))
            patch(dist, "init_process_group", lambda backend, **options: init({"nccl": "gloo"}[backend], **options))
            return f"rank {join_processes('cuda', 30.0).rank}"

    rank = os.environ["RANK"]
    return {
        "own": caught(lambda: joined(f"GPU-{rank}")),
        "shared": caught(lambda: joined("GPU-0")),
        "mixed": caught(lambda: joined(f"GPU-{rank}", ("cuda", "cpu")[int(rank)])),
        "none": caught(lambda: joined(f"GPU-{rank}", visible=1 if rank == "0" else 0)),
        "again": caught(lambda: joined(f"GPU-{rank}")),
        "placed": placed,
    }


def memory(out: Path) -> dict[str, Any]:
    """Run out of memory on rank 1 alone, in the third step."""
    net, calls = plain(), [0]

    def hook(*_: Any) -> None:
        calls[0] += net.training
        if calls[0] == 3 and os.environ.get("RANK") == "1":
            raise MemoryError

    handle = net.backbone.register_forward_pre_hook(hook)
    run = fit(out / "run", net, *PHOTOS, recipe="full")
    handle.remove()
    return told(run, net) | {"calls": calls[0]}


def backward(out: Path) -> dict[str, Any]:
    """Run out of memory on rank 1 alone, in the third step, when the gradients of later layers are sent already."""
    net, calls = plain(), [0]

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 3 and os.environ.get("RANK") == "1":
            raise MemoryError
        return gradient

    handle = net.backbone.conv1.weight.register_hook(hook)
    run = fit(out / "run", net, *PHOTOS, recipe="full")
    handle.remove()
    return told(run, net) | {"calls": calls[0]}


def exchanged(out: Path) -> dict[str, Any]:
    """Add up gradients while the backward computes others, where ranks use different layers, and where one fails on its way."""
    ranks = join_processes("cpu", 30.0)
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))
    layers[2].weight.data = layers[2].weight.data.t()  # its gradient is laid out otherwise
    torch.manual_seed(ranks.rank)
    x, used = torch.randn(4, 16), (ranks.rank, 2, 3, 4)  # layer 5 by none, 0 and 1 by one rank each
    parameters = list(layers.parameters())

    def loss() -> torch.Tensor:
        value = x
        for index in used:
            value = torch.tanh(layers[index](value))
        return value.sum()

    loss().backward()
    wanted = [torch.zeros_like(each) if each.grad is None else each.grad.clone() for each in parameters]
    ranks.add(wanted)
    exchange = GradientExchange(ranks, parameters)
    sent, sums = [], []
    for fails in (False, True, False):
        for parameter in parameters:
            parameter.grad = None
        exchange.begin()
        handle = layers[2].weight.register_hook(lambda _: raise_(MemoryError())) if fails and ranks.rank == 1 else None
        failed = False
        with exchange.sending():
            try:
                loss().backward()
            except MemoryError:
                failed = True
        sent.append(exchange.sent_count)
        extra = torch.tensor([1.0 + ranks.rank])
        if failed:
            exchange.send_zeros()
        else:
            exchange.send_rest()
        exchange.send_values([extra])
        if ranks.agree(Status.OUT_OF_MEMORY if failed else Status.FINE) >= Status.OUT_OF_MEMORY:
            exchange.discard()
        else:
            exchange.finish(ranks.total(exchange.missing))
            sums.append([parameter.grad for parameter in parameters if parameter.grad is not None])
        if handle is not None:
            handle.remove()
    return {
        "equal": all(one.grad is None or torch.equal(one.grad, other) for one, other in zip(parameters, wanted, strict=True)),
        "none": [index for index, parameter in enumerate(parameters) if parameter.grad is None],
        "sent": sent,
        "again": all(torch.equal(*both) for both in zip(*sums, strict=True)),
        "extra": extra.item(),
        "hooks": sum(len(parameter._post_accumulate_grad_hooks or {}) for parameter in parameters),
    }


def accumulated(out: Path) -> dict[str, Any]:
    """Add up gradients of two backwards, where a layer is used in the first only, and two parameters get the same gradient tensor."""
    ranks = join_processes("cpu", 30.0)
    torch.manual_seed(0)
    early, late = nn.Linear(4, 4), nn.Linear(4, 4)
    twins = nn.ParameterList(torch.zeros(4) for _ in range(2))
    parameters = [*early.parameters(), *late.parameters(), *twins]
    torch.manual_seed(ranks.rank)
    x = torch.randn(3, 4)

    def backwards(exchange: GradientExchange | None) -> list[torch.Tensor]:
        for parameter in parameters:
            parameter.grad = None
        (late(early(x)) ** 2).sum().backward()
        with exchange.sending() if exchange else nullcontext():
            ((late(x) + (twins[0] + twins[1])) ** 2).sum().backward()
        return [torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in parameters]

    wanted = backwards(None)
    ranks.add(wanted)
    exchange, gaps = GradientExchange(ranks, parameters), []
    for _ in range(2):
        exchange.begin()
        backwards(exchange)
        exchange.send_rest()
        exchange.finish(ranks.total(exchange.missing))
        gaps += [float((one.grad - other).abs().max()) for one, other in zip(parameters, wanted, strict=True)]  # type: ignore[operator]
    return {"gap": max(gaps)}


def full_memory(out: Path) -> dict[str, Any]:
    """Run out of memory on rank 1 alone, in the third step, where a bucket is copied."""
    net, calls, real = plain(), [0], GradientExchange._send

    def send(exchange: GradientExchange) -> None:
        last = exchange.sent_count == len(exchange._buckets) - 1
        calls[0] += last
        if calls[0] == 3 and last and os.environ.get("RANK") == "1":
            raise MemoryError
        real(exchange)

    with mock.patch.object(GradientExchange, "_send", send):
        run = fit(out / "run", net, *PHOTOS, recipe="full")
    return told(run, net) | {"calls": calls[0]}


def inseparable(out: Path) -> dict[str, Any]:
    """Fail in the forward of a loss of whole batches, on one rank, while the other waits for its rows."""
    from tests.engine.objectives import Coral

    net, calls = plain(), [0]

    def hook(*_: Any) -> None:
        calls[0] += net.training
        if calls[0] == 3 and os.environ["RANK"] == "1":
            raise ValueError("the disc is scratched")

    net.backbone.register_forward_pre_hook(hook)
    target = open_data(images(18, seed=5)[0] // 2, labelled=False)
    options = {"recipe": "full", "objective": lambda base: Coral(base, target), "timeout": 20}
    began = time.monotonic()
    return caught(lambda: fit(out / "run", net, *PHOTOS, **options)) | {"seconds": time.monotonic() - began}


def corrupt(out: Path) -> dict[str, Any]:
    """Meet a sample that cannot be read, and a value that is not finite, on one rank alone."""
    unreadable = cursed(lambda: raise_(OSError("broken data stream")))
    net = plain()
    bad = PHOTOS[0][0].astype(np.float32)
    bad[5] = np.nan
    return {
        "unreadable": caught(lambda: fit(out / "unreadable", plain(), unreadable, PHOTOS[1], recipe="full")),
        "nan": caught(lambda: fit(out / "nan", net, (bad, PHOTOS[0][1]), False, recipe="full")),
        "left": sorted(path.name for path in out.glob("*/*")),
    }


def different(out: Path) -> dict[str, Any]:
    """Give the processes different things to do."""
    rank = int(os.environ["RANK"])
    other = (PHOTOS[0][0], PHOTOS[0][1][1:] + PHOTOS[0][1][:1]) if rank else PHOTOS[0]
    moved = plain()
    with torch.no_grad():
        next(moved.parameters())[0] += rank * 1e-3
    return {
        "options": caught(lambda: fit(out / "a", plain(), *PHOTOS, recipe="full", lr=0.01 + rank, epochs=2 + rank)),
        "data": caught(lambda: fit(out / "b", plain(), other, PHOTOS[1], recipe="full")),
        "values": caught(lambda: fit(out / "c", moved, *PHOTOS, recipe="full")),
        "head": caught(lambda: fit(out / "d", plain(head="mlp", hidden=4 + rank), *PHOTOS, recipe="full")),
        "left": sorted(path.name for path in out.glob("*")),
    }


STEPPED: dict[str, Any] = {"recipe": "full", "epochs": 3, "batch_size": 8}


def whole(out: Path) -> dict[str, Any]:
    """Train without any interruption."""
    net = plain()
    return told(fit(out / "run", net, *PHOTOS, **STEPPED), net)


def stopped(out: Path) -> dict[str, Any]:
    """Send one process a signal, in a step and in a validation, and go on with as many processes."""
    found = {}
    valid = open_data(PHOTOS[1])
    checked = Table(Culprit(valid.inputs, 2, terminate, 2), valid.targets, valid.classes)
    for name, data in (("step", (cursed(terminate, 2), PHOTOS[1])), ("validation", (PHOTOS[0], checked))):
        first = caught(partial(fit, out / name, plain(), *data, **STEPPED))
        net = plain()
        found[name] = {"stop": first} | told(fit(out / name, net, *PHOTOS, resume=True, **STEPPED), net)
    return found


def handed_on(out: Path) -> dict[str, Any]:
    """Go on with what another number of processes began, and leave something for them."""
    net = plain()
    run = fit(out.parent / "begun", net, *PHOTOS, resume=True, **STEPPED)
    left = caught(lambda: fit(out / "left", plain(), cursed(terminate, 2), PHOTOS[1], **STEPPED))
    return told(run, net) | {"left": left}


def biases(out: Path) -> dict[str, Any]:
    """Fit biases anew, which another hardware of each process would do in another way, and refresh statistics of an average."""
    net, other = tiny(), 1.0 + int(os.environ.get("RANK", "0"))
    with mock.patch("zoo.engine.objective.supervised.bias_shift", lambda logits, _loss: torch.full((logits.shape[1],), other)):
        fit(out / "refit", net, images(24), False, recipe="full", augment="light", refit_bias=True, epochs=2)
    averaged = tiny()

    def shifted(model: TaskModel, *given: Any, **options: Any) -> Any:
        found = refresh_statistics(model, *given, **options)
        with torch.no_grad():
            for buffer in model.buffers():
                buffer.add_(int(other))
        return found

    with mock.patch("zoo.engine.train.finalize.refresh_statistics", shifted):
        fit(out / "average", averaged, images(24), False, recipe="full", average=0.5, epochs=2)
    statistics = [buffer.tolist() for buffer in averaged.buffers() if buffer.is_floating_point()]
    return {"biases": net.head.linear.bias.tolist(), "statistics": statistics}


def full_disk(out: Path) -> dict[str, Any]:
    """Let the first process meet a disk that takes no more, when it has trained for three steps."""
    net, calls = plain(), [0]
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def hook(*_: Any) -> None:
        calls[0] += net.training
        if calls[0] == 3 and os.environ["RANK"] == "0":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))

    net.backbone.register_forward_pre_hook(hook)
    started = time.monotonic()
    try:
        found = caught(lambda: fit(out / "run", net, *PHOTOS, **STEPPED, timeout=20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    return found | {"seconds": time.monotonic() - started}


SHARDED: dict[str, tuple[Callable[[], TaskModel], tuple[Any, Any], dict[str, Any]]] = {
    "full": (plain, PHOTOS, {"recipe": "full"}),
    "phases-accumulated-clipped": (plain, PHOTOS, {"recipe": "lp-ft", "epochs": 4, "accumulate": 2, "clip_grad": 0.1, "cache": False}),
    "recompute": (plain, PHOTOS, {"recipe": "full", "recompute": True, "optimizer": "sgd", "optimizer_options": {"momentum": 0.9}}),
    "lora": (plain, PHOTOS, {"recipe": "lora", "cache": False}),
    "text": (text, TEXTS, {"recipe": "full"}),
    "words": (lambda: text("token-classification", 3), WORD_LISTS, {"recipe": "full"}),
}


def sharded(out: Path) -> dict[str, Any]:
    """Train with sharding, where there are several processes; stop and go on; fail on one rank; be refused."""
    several = {"shard": True} if "RANK" in os.environ else {}
    found: dict[str, Any] = {}
    for name, (build, data, options) in SHARDED.items():
        net = build()
        found[name] = told(fit(out / name, net, *data, **options, **several), net)
    if not several:
        return found
    found["stop"] = caught(partial(fit, out / "cut", plain(), cursed(terminate, 2), PHOTOS[1], **STEPPED, shard=True))
    net = plain()
    found["resumed"] = told(fit(out / "cut", net, *PHOTOS, resume=True, **STEPPED, shard=True), net)
    net = plain()
    found["uncut"] = told(fit(out / "uncut", net, *PHOTOS, **STEPPED, shard=True), net)
    found["refused"] = caught(partial(fit, out / "no", plain(), *PHOTOS, recipe="full", ema=0.9, shard=True))
    found["small"] = caught(partial(fit, out / "small", plain(), *PHOTOS, recipe="full", batch_size=1, shard=True))
    net, calls = plain(), [0]

    def hook(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == 3 and os.environ["RANK"] == "1":
            raise ValueError("the disc is scratched")

    net.head.register_forward_pre_hook(hook)
    started = time.monotonic()
    found["failed"] = caught(partial(fit, out / "failed", net, *PHOTOS, **STEPPED, shard=True, timeout=20))
    return found | {"seconds": time.monotonic() - started}


NARROW: dict[str, tuple[Callable[[], TaskModel], tuple[Any, Any]]] = {
    "photos": (plain, PHOTOS),
    "text": (text, TEXTS),
    "norms": (lambda: tiny(), PHOTOS),
}


def narrow(out: Path) -> dict[str, Any]:
    """Train in bf16, with sharding where there are several processes; tell in which types the modules computed."""
    several = {"shard": True} if "RANK" in os.environ else {}
    found: dict[str, Any] = {}
    for name, (build, data) in NARROW.items():
        net, types = build(), set[str]()

        def hook(module: nn.Module, *_: Any, types: set[str] = types) -> None:
            types.update(str(parameter.dtype) for parameter in module.parameters(recurse=False))

        for module in net.modules():
            module.register_forward_hook(hook)
        run = fit(out / name, net, *data, recipe="full", precision="bf16", **several)
        found[name] = told(run, net) | {"types": sorted(types), "end": sorted({str(one.dtype) for one in net.parameters()})}
    return found


WORK: dict[str, Callable[[Path], dict[str, Any]]] = {
    function.__name__: function
    for function in (
        alike,
        all_alike,
        objectives,
        uneven,
        decisions,
        gpus,
        memory,
        backward,
        exchanged,
        accumulated,
        full_memory,
        inseparable,
        corrupt,
        different,
        whole,
        stopped,
        handed_on,
        biases,
        full_disk,
        sharded,
        narrow,
    )
}


def main() -> None:
    torch.set_num_threads(1)
    leave_out_curves()
    gradient_exchange._MIN_BYTES = 1  # several messages per step also for these small networks
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    folder, rank = Path(sys.argv[1]), os.environ.get("RANK", "0")
    for name in sys.argv[2:]:
        started = time.monotonic()
        found = WORK[name](folder / name)
        (folder / f"{name}-{rank}.json").write_text(json.dumps(found))
        print(f"rank {rank}: {name} took {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
