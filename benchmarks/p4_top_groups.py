"""P4: training the last groups only, seconds per epoch after the first, against Hugging Face Trainer with the same layers frozen.

The limit is a bare loop over the suffix, written by hand for each family: forward, backward and AdamW step on activations in
memory. All three train the same network with random values on random pixels or tokens in memory, so that only computation is
measured. An epoch runs from the last step of the previous one to its own last step. Seconds are CPU seconds of one thread; wall
seconds follow.

Run: python benchmarks/p4_top_groups.py
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from typing import Any, NamedTuple

from side_by_side import Clock, alternate, function_result, report


class Case(NamedTuple):
    """A network, the number of its last layer groups that train, and the side of its pictures in pixels, or 0 for texts."""

    network: str
    groups: int
    pixels: int


CASES = {
    "resnet50-stage": Case("timm/resnet50", 1, 160),
    "vit-two-blocks": Case("timm/vit_small_patch16_224", 2, 224),
    "vit-block": Case("timm/vit_small_patch16_224", 1, 224),
    "bert-two-blocks": Case("bench/bert_small", 2, 0),
    "bert-block": Case("bench/bert_small", 1, 0),
}
SIDES = ("zoo", "bare suffix", "Trainer")
TOKENS = 128


def measure(side: str, name: str, samples: str, batch: str, epochs: str, threads: str) -> dict[str, float]:
    """Return the median CPU and wall seconds of the epochs after the first; runs in a process of its own."""
    import torch
    from networks import task_model

    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    case = CASES[name]
    model = task_model(case.network)
    model.freeze(len(model.groups) - case.groups)
    with Clock() as clock:
        {"zoo": _zoo, "bare suffix": _bare, "Trainer": _trainer}[side](model, case, int(samples), int(batch), int(epochs))
    steps = -(-int(samples) // int(batch))
    assert len(clock.cpu) == int(epochs) * steps + 1, "a loop took another number of steps"
    return {"cpu": _per_epoch(clock.cpu, steps), "wall": _per_epoch(clock.wall, steps)}


def _per_epoch(ticks: list[float], steps: int) -> float:
    ends = ticks[steps::steps]
    return statistics.median(after - before for before, after in itertools.pairwise(ends))


def _zoo(model: Any, case: Case, samples: int, batch: int, epochs: int) -> None:
    from networks import Pictures, texts

    from zoo.engine.options.recipe import Phase, Recipe

    recipe = Recipe(name="top", phases=(Phase(name="top", frozen=model.frozen),))
    data: Any = Pictures(samples, case.pixels) if case.pixels else texts(samples)
    own = {"image_size": case.pixels} if case.pixels else {"max_length": TOKENS}
    with tempfile.TemporaryDirectory() as out:
        model.fit(data, False, recipe=recipe, epochs=epochs, batch_size=batch, augment="none", out=f"{out}/run", quiet=True, **own)


def _trainer(model: Any, case: Case, samples: int, batch: int, epochs: int) -> None:
    from networks import Pictures, Words, texts
    from peers import ForTrainer, Pairs, train_by_trainer

    lines, labels = texts(samples)
    data: Any = Pictures(samples, case.pixels) if case.pixels else Pairs(Words().encode(lines, TOKENS), labels)
    train_by_trainer(ForTrainer(model), data, num_train_epochs=epochs, per_device_train_batch_size=batch, learning_rate=1e-3)


def _bare(model: Any, case: Case, samples: int, batch: int, epochs: int) -> None:
    import torch
    from networks import CLASSES

    suffix, shape = _suffix(model, case)
    x, y = torch.randn(samples, *shape), torch.arange(samples) % CLASSES
    optimizer = torch.optim.AdamW(suffix.parameters(), lr=1e-3, weight_decay=0.05)
    suffix.train()
    for _ in range(epochs):
        for indices in torch.randperm(samples).split(batch):  # type: ignore[no-untyped-call]  # of torch
            torch.nn.functional.cross_entropy(suffix(x[indices]), y[indices]).backward()  # type: ignore[no-untyped-call]  # of torch
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _suffix(model: Any, case: Case) -> tuple[Any, tuple[int, ...]]:
    """Return the trainable suffix as a hand-written module, and the shape of one input sample."""
    import torch
    from torch import nn

    class Texts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = model.backbone.encoder.layer[-case.groups :], model.head

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                output = layer(x)
                x = output[0] if isinstance(output, tuple) else output
            logits: torch.Tensor = self.head(x, torch.ones(x.shape[:2], dtype=torch.int64))
            return logits

    if not case.pixels:
        return Texts(), (TOKENS, model.spec.features.dim)
    if case.network == "timm/resnet50":
        return nn.Sequential(model.backbone.layer4, model.head), (1024, case.pixels // 16, case.pixels // 16)
    tokens = (case.pixels // 16) ** 2 + 1
    return nn.Sequential(*model.backbone.blocks[-case.groups :], model.backbone.norm, model.head), (tokens, model.spec.features.dim)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4, help="of one run, at least 2; the first is not counted")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.cases:
        wall: dict[str, list[float]] = {side: [] for side in SIDES}

        def run(side: str, name: str = name, wall: dict[str, list[float]] = wall) -> float:
            sizes = (arguments.samples, arguments.batch, arguments.epochs, arguments.threads)
            result = function_result("p4_top_groups:measure", side, name, *sizes)
            wall[side].append(result["wall"])
            return result["cpu"]

        measured = alternate({side: lambda side=side: run(side) for side in SIDES}, arguments.repeats)  # type: ignore[misc]
        report(f"P4: {name}, CPU seconds per epoch", measured, ours="zoo")
        report(f"P4: {name}, wall seconds per epoch", wall, ours="zoo")


if __name__ == "__main__":
    main()
