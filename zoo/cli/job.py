"""The backbone, the model and the job that the settings of a command describe."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments.data_by_task import data_by_task
from zoo.cli.output.stdout import deferred_log
from zoo.cli.start_up import uncollected
from zoo.errors import OptionError

if TYPE_CHECKING:
    from zoo.engine.train.job import Job
    from zoo.models.backbone import Backbone
    from zoo.transfer.method import Method


def find_declared(name: str, settings: dict[str, Any]) -> Backbone:
    """Look up a backbone as declared, once per command.

    Raises for unknown names of backbones and heads before torch is imported and processes are started.
    """
    from zoo.models.find import find_backbone
    from zoo.registry.registry import default_registry

    if settings["head"]:
        default_registry().head(settings["head"])
    return find_backbone(name)


def job_of(declared: Backbone, data: Any, settings: dict[str, Any], *, whole: bool = False, divided: bool = True) -> Job:
    """Return the job of the settings: the model, with as many outputs as the data have classes, and the data.

    Args:
        declared: The backbone as declared.
        data: The source.
        settings: See ``zoo.cli.commands.training.read_settings``.
        whole: Open all rows of all splits, and leave it to the caller to divide them.
        divided: Hold samples out where no validation data are given, however few there are; see ``resolve_job``.
    """
    from zoo.data.open import open_train_valid
    from zoo.data.sources.read import kind_of
    from zoo.engine.options.model_selection import whole_up_to
    from zoo.tasks.find import find_task
    from zoo.transfer.names import HEADS

    backbone, config, task = configured_backbone(declared, settings), settings["config"], settings["task"]
    reads = kind_of(backbone.spec.inputs, task)
    data, settings = data_by_task(data, task), settings | {"valid": data_by_task(settings["valid"], task)}
    with deferred_log() as deferred:
        opening = {"task": task, "classes": settings["classes"], "reads": reads, **config.opening}
        if "auto" in settings:
            from zoo.select.recipe_search.auto import open_with_hold_out

            if settings["valid"] is False:
                raise OptionError("--no-valid: --recipe auto judges by held-out samples; leave it out, or name a recipe")
            tables = open_with_hold_out(*(partial(open_train_valid, data, valid, **opening) for valid in (settings["valid"], False)))
        else:
            few = whole_up_to(config, find_task(task), judged=divided or settings["objective"] is not None)
            tables = open_train_valid(data, False if whole else settings["valid"], **opening, whole_up_to=few)
    first = tables[0]
    try:
        with uncollected():
            model = backbone.adapt(
                1 if first.targets is None else find_task(task).outputs(first.targets, first.classes),
                task=task,
                head=settings["head"] or HEADS.get(settings["objective"] or "", "linear"),
                in_chans=settings["in_chans"],
                labels=first.classes or None,
                seed=config.seed,
                **settings["head_options"],
            )
        from zoo.engine.train.job import Tables, make_job

        def opened() -> Tables:
            deferred.replay()  # the log of opening the data belongs into the run
            return tables

        validated = settings["valid"] is not False if whole else tables[1] is not None
        with deferred_log() if "auto" in settings else nullcontext():  # the choice logs it too
            return make_job(model, config, opened, validated=validated, objective=_objective(settings), quiet=bool(settings["quiet"]))
    except BaseException:
        deferred.replay()
        raise


def _objective(settings: dict[str, Any]) -> Method | None:
    from zoo.transfer.names import make_method

    return make_method(settings["objective"], settings["objective_options"]) if settings["objective"] else None


def configured_backbone(declared: Backbone, settings: Mapping[str, Any]) -> Backbone:
    """Return the backbone with its options, including the image size if the architecture is fixed to one."""
    from zoo.declare import Image
    from zoo.models.backbone import configured

    spec = declared.spec
    options, size = dict(settings["model_options"]), settings["fit"].get("image_size")
    if isinstance(spec.inputs, Image) and spec.inputs.fixed_size and size is not None:
        options.setdefault("img_size", size)
    weights = False if settings["weights"] in ("none", False) else settings["weights"]
    if weights is None and spec.weights and (spec.weights.repo or spec.weights.url):
        from zoo.weights.locate import fetch_published

        fetch_published(spec.weights, spec.name)  # before torch and a model library are imported
    return configured(declared, weights=weights, allow_partial=bool(settings["allow_partial"]), options=options)
