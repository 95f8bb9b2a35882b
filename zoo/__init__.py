"""Transfer learning with any pretrained backbone: ``zoo.get("resnet50").adapt(num_classes=5).fit("train", "val")``.

Nothing here imports torch until a model is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.declare import BackboneSpec as BackboneSpec
from zoo.declare import Features as Features
from zoo.declare import HeadSpec as HeadSpec
from zoo.declare import Image as Image
from zoo.declare import Text as Text
from zoo.declare import Volume as Volume
from zoo.declare import Weights as Weights
from zoo.errors import OptionError as OptionError
from zoo.errors import ZooError as ZooError
from zoo.hookspecs import API_VERSION as API_VERSION
from zoo.hookspecs import hookimpl as hookimpl

if TYPE_CHECKING:
    from zoo import testing as testing
    from zoo import tuning as tuning
    from zoo.adapter import TaskModel as TaskModel
    from zoo.backbone import Backbone as Backbone
    from zoo.backbone import get as get
    from zoo.engine.recipe import Phase as Phase
    from zoo.engine.recipe import Recipe as Recipe
    from zoo.hub import fetch as fetch
    from zoo.layers import LayerGroup as LayerGroup
    from zoo.layers import LayerGroups as LayerGroups
    from zoo.layers import bind as bind
    from zoo.registry import Registry as Registry
    from zoo.registry import list_backbones as list_backbones
    from zoo.saved import load as load

__version__ = "0.1.0"

# What needs torch, or reads plugins, is imported at first use (PEP 562).
_LAZY = {
    "Backbone": "zoo.backbone",
    "LayerGroup": "zoo.layers",
    "LayerGroups": "zoo.layers",
    "Phase": "zoo.engine.recipe",
    "Recipe": "zoo.engine.recipe",
    "Registry": "zoo.registry",
    "TaskModel": "zoo.adapter",
    "bind": "zoo.layers",
    "fetch": "zoo.hub",
    "get": "zoo.backbone",
    "list_backbones": "zoo.registry",
    "load": "zoo.saved",
}
_SUBMODULES = ("testing", "tuning")


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"zoo.{name}")
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, *_SUBMODULES])
