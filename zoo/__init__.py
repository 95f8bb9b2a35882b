"""Transfer learning with any pretrained backbone: ``zoo.get("resnet50").adapt(num_classes=5).fit("train", "val")``.

Nothing here imports torch until a model is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo import select as select
    from zoo import testing as testing
    from zoo import transfer as transfer
    from zoo import tuning as tuning
    from zoo.data.dataset import Batch as Batch
    from zoo.data.open import open_data as open_data
    from zoo.declare import WEIGHT_FILES as WEIGHT_FILES
    from zoo.declare import BackboneSpec as BackboneSpec
    from zoo.declare import Features as Features
    from zoo.declare import HeadSpec as HeadSpec
    from zoo.declare import Image as Image
    from zoo.declare import Pair as Pair
    from zoo.declare import Text as Text
    from zoo.declare import Volume as Volume
    from zoo.declare import Weights as Weights
    from zoo.engine.loading.stream import Source as Source
    from zoo.engine.loading.stream import View as View
    from zoo.engine.objective.objective import Objective as Objective
    from zoo.engine.objective.supervised import Supervised as Supervised
    from zoo.engine.options.recipe import Phase as Phase
    from zoo.engine.options.recipe import Recipe as Recipe
    from zoo.errors import OptionError as OptionError
    from zoo.errors import ZooError as ZooError
    from zoo.errors import check_options as check_options
    from zoo.errors import did_you_mean as did_you_mean
    from zoo.hookspecs import API_VERSION as API_VERSION
    from zoo.hookspecs import hookimpl as hookimpl
    from zoo.models.backbone import Backbone as Backbone
    from zoo.models.ensemble import Ensemble as Ensemble
    from zoo.models.find import get as get
    from zoo.models.layers import LayerGroup as LayerGroup
    from zoo.models.layers import LayerGroups as LayerGroups
    from zoo.models.layers import bind as bind
    from zoo.models.task_model import TaskModel as TaskModel
    from zoo.models.wrap import wrap as wrap
    from zoo.registry.registry import Registry as Registry
    from zoo.registry.registry import list_backbones as list_backbones
    from zoo.saved.load import load as load
    from zoo.tasks.find import find_task as find_task
    from zoo.tasks.task import Task as Task
    from zoo.weights.hub import fetch as fetch

__version__ = "0.1.0"

# Every name is imported at first use (PEP 562): some modules need torch or read plugins, and the command ``zoo`` can tell an interrupt
# without a traceback only once this module is done.
_LAZY = {
    "API_VERSION": "zoo.hookspecs",
    "Backbone": "zoo.models.backbone",
    "BackboneSpec": "zoo.declare",
    "Batch": "zoo.data.dataset",
    "Ensemble": "zoo.models.ensemble",
    "Features": "zoo.declare",
    "HeadSpec": "zoo.declare",
    "Image": "zoo.declare",
    "LayerGroup": "zoo.models.layers",
    "LayerGroups": "zoo.models.layers",
    "Objective": "zoo.engine.objective.objective",
    "OptionError": "zoo.errors",
    "Pair": "zoo.declare",
    "Phase": "zoo.engine.options.recipe",
    "Recipe": "zoo.engine.options.recipe",
    "Registry": "zoo.registry.registry",
    "Source": "zoo.engine.loading.stream",
    "Supervised": "zoo.engine.objective.supervised",
    "Task": "zoo.tasks.task",
    "TaskModel": "zoo.models.task_model",
    "Text": "zoo.declare",
    "View": "zoo.engine.loading.stream",
    "Volume": "zoo.declare",
    "WEIGHT_FILES": "zoo.declare",
    "Weights": "zoo.declare",
    "ZooError": "zoo.errors",
    "bind": "zoo.models.layers",
    "check_options": "zoo.errors",
    "did_you_mean": "zoo.errors",
    "fetch": "zoo.weights.hub",
    "find_task": "zoo.tasks.find",
    "get": "zoo.models.find",
    "hookimpl": "zoo.hookspecs",
    "list_backbones": "zoo.registry.registry",
    "load": "zoo.saved.load",
    "open_data": "zoo.data.open",
    "wrap": "zoo.models.wrap",
}
_SUBMODULES = ("select", "testing", "transfer", "tuning")
_MODULES = ("declare", "errors", "hookspecs")  # of the names above, and attributes too


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in (*_SUBMODULES, *_MODULES):
        return importlib.import_module(f"zoo.{name}")
    from zoo.util.missing_attribute import missing_attribute

    raise missing_attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted([*_LAZY, *_SUBMODULES, *(name for name in globals() if name.startswith("__"))])
