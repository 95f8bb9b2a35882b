"""The table of families of the plugin's page, which scripts/make_plugin_pages.py writes."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig
from zoo_hf.build import on_meta
from zoo_hf.declared_families import FAMILIES
from zoo_hf.describe import root
from zoo_hf.family import Family, Home

import zoo

LAYERS = {"distilbert": {"n_layers": 3}, "gpt2": {"n_layer": 3}, **{kind: {"num_layers": 3} for kind in ("t5", "mt5", "umt5")}}


def names(kind: str, family: Family) -> str:
    """Return the names of the groups of a model with three layers or its default stages, with N for the last layer."""
    config = {"model_type": kind, **({} if "stage" in family.layers else LAYERS.get(kind, {"num_hidden_layers": 3}))}
    groups = list(zoo.bind(on_meta(config, pooler=True), family.layers).names)
    for numbered in ("layer", "stage"):
        found = [group for group in groups if group.startswith(f"{numbered}.")]
        if found:
            last = f"{numbered}.N" if numbered == "layer" else found[-1]
            groups[groups.index(found[0]) : groups.index(found[-1]) + 1] = [f"{found[0]} … {last}"]
    if "pooler" in groups and "shared" not in groups:
        groups[groups.index("pooler")] = "pooler (if used)"
    return ", ".join(groups)


def pooling(kind: str, family: Family) -> str:
    """Return the pooling that a head has by default."""
    features = root(kind).features
    if features.layout != "BD":
        return f"`{features.pool}`"
    return "its own" if family.pooler == "always" else "its own (`pooler`)"


def opens(home: Home | None, config: Any) -> str:
    """Say with which arguments of ``adapt`` a model opens in transformers."""
    if home is None:
        return "none"
    activation = str(getattr(config, home.activation.lower())) if home.activation.isupper() else home.activation
    hidden = f"head='mlp', hidden=WIDTH, activation='{activation}', " if activation else ""
    options = "".join(f"{name}={value!r}, " for name, value in home.options.items())
    return f"`{hidden}{options}pool='{home.pool}'`" if home.pool else "nothing more"


def rows() -> list[str]:
    """Return a table row per family."""
    lines = ["| `model_type` | reads | default pooling | groups | opens in transformers with `adapt(N, …)` |", "|---|---|---|---|---|"]
    for kind, family in FAMILIES.items():
        home = opens(family.sequence, AutoConfig.for_model(kind))
        lines.append(f"| `{kind}` | {family.reads} | {pooling(kind, family)} | {names(kind, family)} | {home} |")
    return lines
