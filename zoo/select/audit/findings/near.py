"""Near duplicates: images that differ by compression, brightness, size, a mirror or a small crop, and texts by a few words.

Images are compared in two stages. Grey thumbnails of 8 x 8 pixels, also mirrored, give the nearest few of each image in each split, in
blocks, so that no matrix of all pairs is built; without regard to splits the frames of a video would hide those of the other split. Each
such pair is then aligned: windows of either thumbnail are laid over the other, at 16 x 16, and the highest correlation counts. It does not
change with brightness and contrast. Texts are compared by the tf-idf of four letters or digits in a row, whatever their case and whatever
blanks and punctuation lie between them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from zoo.data.table import PIXELS, Array, Table
from zoo.errors import count, examples
from zoo.select.audit.findings.finding import Finding, found
from zoo.select.audit.reading.facts import GRID, SIDE
from zoo.select.audit.reading.sources import Opened

ALIKE = 0.97  # correlation of an aligned pair, above which it may be a near duplicate, or a cut of one image
CERTAIN = 0.99  # above which it hardly can be anything else
ALIKE_VOLUMES, CERTAIN_VOLUMES = 0.99, 0.999  # the same of volumes, as one organ is much like another, and nothing is aligned
COARSE = 0.85  # of the 8 x 8 thumbnails of a pair that is aligned
ALIKE_TEXTS, CERTAIN_TEXTS = 0.8, 0.9  # the same for the cosine of the n-grams of two texts
NEAREST = 3  # neighbours of an image in each split that are aligned
FEWEST = 12  # letters and digits of a text that is compared
BLOCK = 2048  # rows of a block
FLAT = 4.0  # standard deviation, of 255, under which a thumbnail has nothing to compare
_WINDOWS, _OFFSETS = (0.975, 0.95), 5  # sides of the windows, and their places along each axis
_FLIPS = [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)]  # of a volume, as by a header that is wrong
Pairs = list[tuple[int, int, float]]
Poll = Callable[[], None]


def near_pairs(table: Table, rows: Array, thumbs: Array | None, splits: Array, *, poll: Poll) -> Pairs:
    """Return pairs of rows that are nearly equal, with their similarity, the most similar first.

    Args:
        table: The data.
        rows: The rows to compare.
        thumbs: Thumbnails of all rows, or None of texts.
        splits: The split of each row of the table.
        poll: Called now and then; may raise to stop.
    """
    if len(rows) < 2:
        return []
    if table.reads in PIXELS:
        assert thumbs is not None, "images have thumbnails"
        pairs = _near_images(thumbs[rows].astype(np.float32), splits[rows], volumes=table.reads == "volume", poll=poll)
    else:
        pairs = _near_texts([_letters(table.inputs[row]) for row in rows], poll=poll)
    return sorted(((int(rows[one]), int(rows[other]), score) for one, other, score in pairs), key=lambda pair: -pair[2])


def near_duplicates(data: Opened, pairs: Pairs) -> Iterator[Finding]:
    """Yield the near duplicates of different splits, and of one."""
    splits, table = data.splits, data.table
    certain = {"image": CERTAIN, "volume": CERTAIN_VOLUMES}.get(table.reads, CERTAIN_TEXTS)
    across = [pair for pair in pairs if splits[pair[0]] != splits[pair[1]]]
    within = [pair for pair in pairs if splits[pair[0]] == splits[pair[1]]]
    for level, some in (("leak", [one for one in across if one[2] >= certain]), ("warning", [one for one in across if one[2] < certain])):
        if not some:
            continue
        where = examples([f"{table.name_of(one)} ({splits[one]}) and {table.name_of(other)} ({splits[other]})" for one, other, _ in some])
        what, remedy = ("near duplicates", "keep one of each") if level == "leak" else (_doubtful(table), "look at them")
        message = f"{count(len(some), 'pair')} of {what} in different splits: {where}; {remedy}"
        yield found("near-duplicates", level, message, [pair[:2] for pair in some], [f"{score:.3f}" for *_, score in some])  # type: ignore[arg-type]  # one of two literals
    if within:
        message = f"{count(len(within), 'pair')} of near duplicates in one split; zoo does not keep them together when it holds samples out"
        yield found("near-duplicates", "note", message, [pair[:2] for pair in within], [f"{score:.3f}" for *_, score in within])


def _doubtful(table: Table) -> str:
    return "samples that may be cuts of one" if table.reads in PIXELS else "texts that are much alike"


def _near_images(thumbs: Array, splits: Array, *, volumes: bool, poll: Poll) -> Pairs:
    """Return pairs of positions of similar thumbnails ``(n, 1024)``."""
    some = np.flatnonzero(thumbs.std(1) >= FLAT)
    if len(some) < 2:
        return []
    thumbs = thumbs[some].reshape(-1, *(GRID if volumes else (SIDE, SIDE)))
    flips = [(), *_FLIPS] if volumes else [(), (2,)]
    views = [unit_rows(images if volumes else _pooled(images, 8)) for images in (np.flip(thumbs, axes) for axes in flips)]
    candidates = nearest_pairs(views, splits[some], least=ALIKE_VOLUMES if volumes else COARSE, poll=poll)
    if not volumes:
        candidates = [pair for pair in _aligned(thumbs, candidates, poll) if pair[2] >= ALIKE]
    return [(int(some[one]), int(some[other]), score) for one, other, score in candidates]


def nearest_pairs(views: Sequence[Array], splits: Array, *, least: float, poll: Poll, most: int = NEAREST) -> Pairs:
    """Return pairs of rows whose cosine in any view is at least ``least``, of each row with its ``most`` nearest in each split.

    Args:
        views: Unit vectors of the rows, and of the rows seen otherwise, such as mirrored; the first is compared with all.
        splits: The split of each row.
        least: Lowest cosine.
        poll: Called after each block; may raise to stop.
        most: Neighbours of a row in a split.
    """
    parts = [np.flatnonzero(splits == name) for name in np.unique(splits)]
    best: dict[tuple[int, int], float] = {}
    for start in range(0, len(views[0]), BLOCK):
        block = views[0][start : start + BLOCK]
        scores = np.max([block @ view.T for view in views], axis=0)
        scores[np.arange(len(block)), np.arange(start, start + len(block))] = -1
        for part in parts:
            near = part[np.argpartition(-scores[:, part], min(most, len(part) - 1), axis=1)[:, :most]]
            for row, others in enumerate(near):
                for other in others[scores[row, others] >= least].tolist():
                    best[min(start + row, other), max(start + row, other)] = float(scores[row, other])
        poll()
    return [(one, other, score) for (one, other), score in best.items()]


def _aligned(thumbs: Array, pairs: Pairs, poll: Poll) -> Iterator[tuple[int, int, float]]:
    """Yield pairs with the highest correlation of their thumbnails, one of them whole, the other whole or a window of it."""
    for start in range(0, len(pairs), BLOCK):
        some = pairs[start : start + BLOCK]
        left, right = thumbs[[one for one, *_ in some]], thumbs[[other for _, other, _ in some]]
        best = np.full(len(some), -1.0)
        for mirrored in (right, right[:, :, ::-1]):
            for cut, whole in ((left, mirrored), (mirrored, left)):
                target = unit_rows(_pooled(whole, 16))
                for down, across in _windows(16):
                    best = np.maximum(best, (unit_rows(down @ cut @ across.T) * target).sum(1))
                poll()
        yield from ((one, other, float(score)) for (one, other, _), score in zip(some, best, strict=True))


def _windows(cells: int) -> Iterator[tuple[Array, Array]]:
    """Yield matrices that average a window of a thumbnail to ``cells`` rows and columns: first all of it."""
    yield _averages(cells, 0, SIDE), _averages(cells, 0, SIDE)
    for share in _WINDOWS:
        places = [_averages(cells, start, SIDE * share) for start in np.linspace(0, SIDE * (1 - share), _OFFSETS)]
        yield from ((down, across) for down in places for across in places)


def _averages(cells: int, start: float, length: float) -> Array:
    """Return ``(cells, SIDE)``: the share of each pixel in each of the cells that divide a stretch."""
    edges, pixels = start + length * np.arange(cells + 1) / cells, np.arange(SIDE)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(overlap.clip(0) / (length / cells), dtype=np.float32)


def _pooled(images: Array, cells: int) -> Array:
    step = SIDE // cells
    return np.asarray(images.reshape(-1, cells, step, cells, step).mean((2, 4)))


def unit_rows(values: Array) -> Array:
    """Return rows ``(n, …)`` flattened, without their mean and of length 1; constant ones are 0."""
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))


def _letters(text: object) -> str:
    """Return the letters and digits of a text, in lower case and without blanks."""
    whole = "".join(map(str, text)) if isinstance(text, tuple | list) else str(text)
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", whole).casefold()))


def _near_texts(texts: Sequence[str], *, poll: Poll) -> Pairs:
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]  # ships no types

    some = [row for row, text in enumerate(texts) if len(text) >= FEWEST]
    if len(some) < 2:
        return []
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(4, 4), sublinear_tf=True, dtype=np.float32).fit_transform(
        [texts[row] for row in some]
    )
    pairs: Pairs = []
    for start in range(0, len(some), BLOCK):
        similar = (vectors[start : start + BLOCK] @ vectors[start:].T).tocoo()
        chosen = (similar.data >= ALIKE_TEXTS) & (similar.col > similar.row)
        found_here = zip(similar.row[chosen], similar.col[chosen], similar.data[chosen], strict=True)
        pairs += [(some[start + one], some[start + other], float(score)) for one, other, score in found_here]
        poll()
    return pairs
