"""The four hooks of a plugin. They return values and register nothing, so the plugin of each value is known."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from zoo.declare import BackboneSpec, HeadSpec
from zoo.tasks.task import Task

API_VERSION = 1
"""Version of these hooks and of their declarations; a plugin names the versions that it supports as entry points in ``zoo.api``."""

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]  # a hook specification has no body
    """List the backbones of this plugin.

    The result is cached until the plugin or its requirements change; import no model library at the top of the module.
    """


@hookspec(firstresult=True)  # each plugin has a manager of its own, so this only unwraps the list; every plugin is asked
def zoo_find_backbone(name: str) -> BackboneSpec | None:
    """Resolve a name that no plugin lists: a member of an open family, such as any repository of a hub.

    Return None for names of other plugins. Called only if no listed name matches, so it may import a model library.
    """


@hookspec
def zoo_heads() -> Iterable[HeadSpec]:  # type: ignore[empty-body]  # a hook specification has no body
    """List the task heads of this plugin, chosen with ``adapt(head=…)``."""


@hookspec
def zoo_tasks() -> Iterable[Task]:  # type: ignore[empty-body]  # a hook specification has no body
    """List the tasks of this plugin, chosen with ``adapt(task=…)``. Called only for names that are no built-in task."""
