"""Generate zoo_timm/catalogue.json from the installed timm.

Every architecture is measured without values on the meta device; what its features are is proved with random values on
the smallest architecture of each kind of head (see probe.py and proof.py). About 20 minutes on one core:

    python scripts/make_catalogue.py --results FOLDER --cache .cache/probe.jsonl

``--results`` is the folder of timm's published result tables (results-imagenet.csv). ``--cache`` keeps what was measured,
so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import probe
import proof
import timm
from timm.layers import set_fused_attn

OUT = Path(__file__).parents[1] / "zoo_timm" / "catalogue.json"
LARGE = 100e6  # parameters
Row = dict[str, Any]


def tags(architecture: str) -> dict[str, Any]:
    """Return the configurations of an architecture's pretrained tags."""
    configs = timm.models.get_arch_pretrained_cfgs(architecture)
    return {name: config for name, config in configs.items() if config.has_weights and "." in name}


def jobs() -> Iterator[tuple[str, str, list[int]]]:
    """Yield (key, timm's name, input size): each architecture, then each further input size of its tags."""
    for architecture in timm.list_models():
        size = list(timm.get_pretrained_cfg(architecture).input_size)
        yield architecture, architecture, size
        seen = [size]
        for name, config in tags(architecture).items():
            if list(config.input_size) not in seen:
                seen.append(list(config.input_size))
                yield f"{architecture}@{seen[-1]}", name, seen[-1]


class Cache:
    """What was measured, as one JSON line per job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self.rows: dict[str, Row] = {row["key"]: row for row in map(json.loads, lines)}

    def add(self, key: str, row: Row) -> Row:
        """Keep a row, on disk as well."""
        self.rows[key] = {"key": key} | row
        with self.path.open("a") as file:
            print(json.dumps(self.rows[key]), file=file)
        return self.rows[key]


def measure(cache: Cache) -> None:
    """Measure every job that the cache does not hold."""
    for key, name, size in jobs():
        if key not in cache.rows:
            cache.add(key, (probe.measure if "@" in key else probe.probe)(name, size=size) | {"name": name, "size": size})


def kind_of(row: Row) -> str:
    """Return what architectures with the same seam between features and logits have in common."""
    return json.dumps([row["family"], row["head"], len(row["bare"]), len(row["pooled"]), row["classifiers"], bool(row["prefix_tokens"])])


def prove(cache: Cache) -> dict[str, Row]:
    """Prove the features of the smallest architecture of each kind; return kind -> proof."""
    smallest: dict[str, Row] = {}
    for row in cache.rows.values():
        if "family" in row and row["parameters"] < smallest.get(kind_of(row), {"parameters": 1e12})["parameters"]:
            smallest[kind_of(row)] = row
    proofs: dict[str, Row] = {}
    for kind, row in sorted(smallest.items(), key=lambda item: item[1]["parameters"]):
        key = f"proof {kind}"
        if key not in cache.rows:
            large = row["parameters"] > LARGE
            seam = {"classifiers": row["classifiers"], "pooled": row["pooled"], "bare": bool(row["bare"]), "large": large}
            cache.add(key, proof.prove(row["name"], size=row["size"], **seam) | {"name": row["name"]})
        proofs[kind] = cache.rows[key]
    return proofs


def weights_of(config: Any, name: str) -> str | int:
    """Return 1 for timm's own Hub repository of that name, another repository, a URL, or 0 for none."""
    if config.hf_hub_id:
        return 1 if config.hf_hub_id == f"timm/{name}" else str(config.hf_hub_id)
    url = config.url[0] if isinstance(config.url, tuple | list) else config.url
    return str(url) if url else 0


def top1(results: Path) -> dict[str, float]:
    """Read ImageNet top-1 in percent by timm's name with tag."""
    with (results / "results-imagenet.csv").open() as file:
        return {row["model"]: round(float(row["top1"]), 3) for row in csv.DictReader(file)}


class Table:
    """Values that many rows share, each written once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.places: dict[str, int] = {}

    def index(self, value: Any) -> int:
        """Return the place of a value."""
        key = json.dumps(value)
        if key not in self.places:
            self.places[key] = len(self.values)
            self.values.append(value)
        return self.places[key]


def inputs_of(config: Any) -> list[Any]:
    """Return size, mean, std, interpolation, crop and whether the size is fixed."""
    size, mean, std = list(config.input_size[1:]), list(config.mean), list(config.std)
    return [size, mean, std, config.interpolation, min(1.0, config.crop_pct), bool(config.fixed_input_size)]


def catalogue(cache: Cache, proofs: dict[str, Row], accuracy: dict[str, float]) -> Row:
    """Lay out the catalogue by columns; what an architecture's tags share is written once."""
    inputs, features, licenses = Table(), Table(), Table()
    columns: dict[str, list[Any]] = {key: [] for key in ("name", "features", "inputs", "parameters", "gmacs", "license", "weights", "top1")}
    for architecture in timm.list_models():
        base = cache.rows[architecture]
        told = proofs[kind_of(base)]
        dim = base["pooled"][1 if told["layout"] == "BCHW" and not told["unpooled"] else -1]
        tokens = base["prefix_tokens"] if told["layout"] == "BND" else 0
        feature = features.index([dim, told["layout"], told["pool"], tokens, told["unpooled"]])
        default = timm.get_pretrained_cfg(architecture)
        default_name = f"{architecture}.{default.tag}" if default.tag else architecture
        for name, config in {architecture: default, **tags(architecture)}.items():
            measured = cache.rows.get(f"{architecture}@{list(config.input_size)}", base)
            tagged = default_name if name == architecture else name
            row = {
                "name": name,
                "features": feature,
                "inputs": inputs.index(inputs_of(config)),
                "parameters": measured["parameters"],
                "gmacs": float(f"{measured['gmacs']:.4g}"),
                "license": licenses.index((config.license or "unknown").lower()),
                "weights": weights_of(config, name),
                "top1": accuracy.get(tagged, 0),
            }
            for key, value in row.items():
                columns[key].append(value)
    shared = {"inputs": inputs.values, "features": features.values, "licenses": licenses.values}
    return {"timm": timm.__version__, "shared": shared, "columns": columns}


def main() -> None:
    """Measure, prove, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/probe.jsonl"))
    arguments = parser.parse_args()
    arguments.cache.parent.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    set_fused_attn(False)  # fused attention hides its multiplications
    cache = Cache(arguments.cache)
    measure(cache)
    proofs = prove(cache)
    table = catalogue(cache, proofs, top1(arguments.results))
    OUT.write_text(json.dumps(table, separators=(",", ":")) + "\n")
    print(f"timm {timm.__version__}: {len(table['columns']['name'])} names, {len(proofs)} kinds of heads proved")


if __name__ == "__main__":
    main()
