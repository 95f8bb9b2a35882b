"""The four hooks of a plugin. Values are returned, never registered by callback, so provenance stays known."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from zoo.declare import BackboneSpec, HeadSpec
from zoo.tasks.task import Task

API_VERSION = 1
"""Version of these hooks and of the declarations they return; a plugin names those it fits as entry points in ``zoo.api``."""

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


@hookspec
def zoo_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]  # a hook specification has no body
    """List the backbones of this plugin. Called for every listing: import no model library here."""


@hookspec(firstresult=True)
def zoo_find_backbone(name: str) -> BackboneSpec | None:
    """Resolve a name that no plugin lists: a member of an open family, such as any repository of a hub.

    Return None for names that are not yours. Called only after the listed names were searched, so it may import a
    model library.
    """


@hookspec
def zoo_heads() -> Iterable[HeadSpec]:  # type: ignore[empty-body]  # a hook specification has no body
    """List the task heads of this plugin, chosen with ``adapt(head=…)``."""


@hookspec
def zoo_tasks() -> Iterable[Task]:  # type: ignore[empty-body]  # a hook specification has no body
    """List the tasks of this plugin, chosen with ``adapt(task=…)``. Called where a name is asked that is no built-in task."""
