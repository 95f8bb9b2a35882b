"""A small student with and without a teacher, and the teacher itself, on real images and texts. Prints a Markdown table.

ants/bees: MobileNetV2-1.0 probed at 128 pixels teaches MobileNetV2-0.35 at 96; with "ants-small" MobileNetV1-0.25. CIFAR-10: the same
teacher, probed on all training images at 64 pixels, teaches glyphnet at 32 by a file of its predictions; the student has labels of
``--labelled`` images of each class, and with "unlabelled" the other training images without theirs; "cifar-parts" has features, attention
and relations beside logits, of the teacher itself. TREC: all-MiniLM-L6-v2 teaches its own first three layers, with 1,000 questions.
Forgetting: MobileNetV2-0.35 learns ants/bees, and then half of the amazon photos of office things. Images are not augmented, so that the
teacher runs once. Every run takes the last epoch; the spread is that of the seeds, which also draw the labelled images.

Run: ZOO_REGISTRY=../shared/data/registry.toml python benchmarks/distillation.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sets import Samples, few, images, text_model, texts

sys.path.append(str(Path(__file__).with_name("defaults")))
from backbones import backbone

import zoo
from zoo.transfer import Distill, LearnWithoutForgetting

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
TEACHER, STUDENT = "local/mobilenetv2_100", "local/mobilenetv2_035"
LAYERS = 3
LAST = "stage.6"


def pairs(name: str, data: Path) -> tuple[Samples, Samples]:
    train, test = images(name, data)
    return (list(train["file_name"]), list(train["label"])), (list(test["file_name"]), list(test["label"]))


def taught(name: str, train: Samples, folder: Path, **options: Any) -> Any:
    model = zoo.get(name).adapt(len(set(train[1])))
    model.fit(train, False, out=folder / "teacher", quiet=True, **options)
    return model


def scores(
    build: Callable[[int], Any],
    train: Callable[[int], Samples],
    test: Samples,
    methods: Mapping[str, Callable[[Samples], Any]],
    *,
    seeds: int,
    **options: Any,
) -> dict[str, list[float]]:
    """Return the accuracy of each method for each seed."""
    found: dict[str, list[float]] = {name: [] for name in methods}
    for seed in range(seeds):
        data = train(seed)
        for name, method in methods.items():
            with tempfile.TemporaryDirectory() as folder:
                model = build(seed)
                model.fit(data, False, objective=method(data), seed=seed, out=Path(folder) / "run", quiet=True, **options)
                found[name].append(model.evaluate(test, quiet=True)["accuracy"])
                print(seed, name, found[name][-1], file=sys.stderr, flush=True)
    return found


def forgetting(data: Path, seeds: int, folder: Path) -> None:
    """Print the accuracy of both tasks after the second was learned, with and without the outputs of the first."""
    first, first_test = pairs("ants/bees", data)
    second, _ = pairs("amazon to webcam", data)
    train, test = tuple_of(second, 0), tuple_of(second, 1)
    old = taught(STUDENT, first, folder, image_size=96, epochs=5, augment="none")
    old.save(folder / "old")
    print(f"\nants/bees before: {old.evaluate(first_test, quiet=True)['accuracy']:.3f}\n")
    print("| weight of the old outputs | ants/bees after | office things |\n|---|---|---|")
    for weight in (0.0, 1.0, 4.0):
        found = []
        for seed in range(seeds):
            keep, out = (folder / f"{name}-{weight}-{seed}" for name in ("kept", "run"))
            model = zoo.get(folder / "old").adapt(10, seed=seed)
            method = LearnWithoutForgetting(old, weight=weight, keep=keep)
            model.fit(train, False, objective=method, seed=seed, out=out, quiet=True, image_size=96, epochs=5, augment="none")
            found.append([zoo.load(keep).evaluate(first_test, quiet=True)["accuracy"], model.evaluate(test, quiet=True)["accuracy"]])
        told = [f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" for values in zip(*found, strict=True)]
        print(f"| {weight:g} | {' | '.join(told)} |", flush=True)


def tuple_of(samples: Samples, start: int) -> Samples:
    return samples[0][start::2], samples[1][start::2]


def show(title: str, teacher: float, found: Mapping[str, list[float]]) -> None:
    print(f"| {title} | teacher | {teacher:.3f} | |")
    for name, values in found.items():
        wins = "" if name == "alone" else f"{sum(a > b for a, b in zip(values, found['alone'], strict=True))} of {len(values)}"
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        print(f"| {title} | {name} | {statistics.mean(values):.3f}{spread} | {wins} |", flush=True)


def ants(data: Path, seeds: int, folder: Path, *, small: bool = False) -> None:
    train, test = pairs("ants/bees", data)
    teacher = taught(TEACHER, train, folder, recipe="linear-probe", image_size=128)
    build = partial(backbone, "mobilenetv1_025", data) if small else partial(zoo.get, STUDENT)
    last = build().groups.names[-1]
    methods: dict[str, Callable[[Samples], Any]] = {
        "alone": lambda _: None,
        "logits": lambda _: Distill(teacher),
        "logits and features": lambda _: Distill(teacher, features=f"{last}:{LAST}"),
    }
    found = scores(
        lambda seed: build().adapt(2, seed=seed),
        lambda _: train,
        test,
        methods,
        seeds=seeds,
        image_size=96,
        epochs=5,
        augment="none",
    )
    show("ants/bees, MobileNetV1-0.25" if small else "ants/bees", teacher.evaluate(test, quiet=True)["accuracy"], found)


def show_cifar(
    teacher: Any, train: Samples, test: Samples, methods: Mapping[str, Callable[[Samples], Any]], *, seeds: int, labelled: int
) -> None:
    """Print the accuracies of glyphnet on CIFAR-10 by method, of ``labelled`` images of each class."""
    found = scores(
        lambda seed: zoo.get("zoo/glyphnet").adapt(10, in_chans=3, seed=seed),
        lambda seed: few(train, labelled, seed),
        test,
        methods,
        seeds=seeds,
        epochs=40,
        augment="none",
    )
    show(f"CIFAR-10, {labelled} labels of each class", teacher.evaluate(test, quiet=True)["accuracy"], found)


def cifar(data: Path, seeds: int, folder: Path, labelled: int) -> None:
    train, test = pairs("CIFAR-10", data)
    teacher = taught(TEACHER, train, folder, recipe="linear-probe", image_size=64)
    file = teacher.predict_to_file(train[0], folder / "teacher.csv", quiet=True).path
    methods: dict[str, Callable[[Samples], Any]] = {
        "alone": lambda _: None,
        "logits": lambda _: Distill(file),
        "logits, unlabelled": lambda own: Distill(file, weight=0.9, unlabelled=sorted(set(train[0]) - set(own[0]))),
    }
    show_cifar(teacher, train, test, methods, seeds=seeds, labelled=labelled)


def cifar_parts(data: Path, seeds: int, folder: Path, labelled: int) -> None:
    """Features, attention and relations beside logits, of the teacher itself, on labelled images alone and with the others unlabelled."""
    train, test = pairs("CIFAR-10", data)
    teacher = taught(TEACHER, train, folder, recipe="linear-probe", image_size=64)
    parts: dict[str, dict[str, Any]] = {
        "logits": {},
        "logits and features": {"features": f"stage3:{LAST}"},
        "logits and attention": {"attention": "stage2:stage.2,stage3:stage.4"},
        "logits and relations": {"distance_weight": 25.0, "angle_weight": 50.0},  # as Park et al. 2019 beside labels
    }
    methods: dict[str, Callable[[Samples], Any]] = {"alone": lambda _: None}
    for name, options in parts.items():
        methods[name] = lambda _, options=options: Distill(teacher, **options)
    for name, options in parts.items():
        methods[f"{name}, unlabelled"] = lambda own, options=options: Distill(
            teacher, weight=0.9, unlabelled=sorted(set(train[0]) - set(own[0])), **options
        )
    show_cifar(teacher, train, test, methods, seeds=seeds, labelled=labelled)


def trec(data: Path, seeds: int, folder: Path) -> None:
    train, test = texts("TREC", data, 1000, 500)
    teacher = taught(text_model(), train, folder, max_length=32)
    last = f"layer.{LAYERS - 1}:layer.5"
    methods: dict[str, Callable[[Samples], Any]] = {
        "alone": lambda _: None,
        "logits": lambda _: Distill(teacher),
        "logits and features": lambda _: Distill(teacher, features=last),
    }
    classes = len(set(train[1]))
    found = scores(
        lambda seed: zoo.get(text_model(), num_hidden_layers=LAYERS).adapt(classes, seed=seed),
        lambda _: train,
        test,
        methods,
        seeds=seeds,
        max_length=32,
    )
    show(f"TREC, {LAYERS} of 6 layers", teacher.evaluate(test, quiet=True)["accuracy"], found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    sets = ["ants", "ants-small", "cifar", "cifar-parts", "trec", "forgetting"]
    parser.add_argument("--sets", nargs="*", default=sets, choices=sets)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labelled", type=int, default=20)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    print("| data | student | accuracy | above alone |\n|---|---|---|---|")
    for name in options.sets:
        with tempfile.TemporaryDirectory() as folder:
            if name in ("cifar", "cifar-parts"):
                run = cifar if name == "cifar" else cifar_parts
                run(options.data, options.seeds, Path(folder), options.labelled)
            else:
                others = {"ants": ants, "ants-small": partial(ants, small=True), "trec": trec, "forgetting": forgetting}
                others[name](options.data, options.seeds, Path(folder))


if __name__ == "__main__":
    main()
