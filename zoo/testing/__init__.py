"""Conformance tests for plugin authors: ``check_backbone("acme/tinyvit")`` is the whole test of a plugin.

Checks are added only with a new ``KIT_VERSION``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from zoo.errors import fault_list
from zoo.testing.declared import features_are_as_declared as features_are_as_declared
from zoo.testing.declared import headless_build_equals_plain_build as headless_build_equals_plain_build
from zoo.testing.declared import licence_is_stated as licence_is_stated
from zoo.testing.declared import listing_imports_no_torch as listing_imports_no_torch
from zoo.testing.declared import padding_changes_nothing as padding_changes_nothing
from zoo.testing.frozen import frozen_features_ignore_mode_and_batch_mates as frozen_features_ignore_mode_and_batch_mates
from zoo.testing.frozen import frozen_prefix_stands_still_and_the_rest_moves as frozen_prefix_stands_still_and_the_rest_moves
from zoo.testing.groups import execution_order as execution_order
from zoo.testing.groups import groups_run_in_order as groups_run_in_order
from zoo.testing.groups import param_groups_hold_each_parameter_once as param_groups_hold_each_parameter_once
from zoo.testing.groups import taps_give_every_group as taps_give_every_group
from zoo.testing.random_values import randomise as randomise
from zoo.testing.saved import saved_model_returns as saved_model_returns
from zoo.testing.subject import Subject as Subject
from zoo.testing.techniques import lora_targets_exist as lora_targets_exist
from zoo.testing.techniques import recompute_gives_equal_gradients as recompute_gives_equal_gradients
from zoo.testing.tokenizers import tokenizer_encodes_as_agreed as tokenizer_encodes_as_agreed
from zoo.testing.tokenizers import tokenizer_returns_after_saving as tokenizer_returns_after_saving
from zoo.testing.tokenizers import tokens_are_the_same_in_every_process as tokens_are_the_same_in_every_process

KIT_VERSION = 3

Check: TypeAlias = Callable[[Subject], None]


def check_backbone(name: str, *, size: Sequence[int] | None = None) -> int:
    """Check that an installed backbone fulfils the contract of a plugin.

    Args:
        name: Its id.
        size: Size of the inputs, such as ``(64, 64)`` pixels or ``(32, 32, 32)`` voxels, for backbones that are slow at their
            declared size. The check of the declared features always uses the latter.

    Returns:
        How many checks ran: all of ``backbone_checks``.

    Raises:
        AssertionError: Listing every failed check and why.
    """
    subject, failures = Subject(name, tuple(size) if size else None), []
    checks = backbone_checks(subject.backbone.spec.modality)
    for check in checks:
        try:
            check(subject)
        except Exception as error:  # any error of a plugin is a failed check, and the others still run
            failures.append(f"{check.__name__.removeprefix('_')}: {str(error) or type(error).__name__}")
    if failures:
        raise AssertionError(fault_list(f"{name} fails {len(failures)} of {len(checks)} checks (kit {KIT_VERSION}):", failures))
    return len(checks)


def backbone_checks(modality: str = "image") -> list[Check]:
    """Return the checks of a modality, for use as parameters of a test; each takes a ``Subject`` and raises where it fails."""
    tokens = [tokenizer_encodes_as_agreed, tokens_are_the_same_in_every_process, tokenizer_returns_after_saving]
    text = [padding_changes_nothing, *tokens] if modality == "text" else []
    return [
        listing_imports_no_torch,
        licence_is_stated,
        headless_build_equals_plain_build,
        features_are_as_declared,
        *text,
        groups_run_in_order,
        frozen_prefix_stands_still_and_the_rest_moves,
        frozen_features_ignore_mode_and_batch_mates,
        param_groups_hold_each_parameter_once,
        taps_give_every_group,
        lora_targets_exist,
        recompute_gives_equal_gradients,
        saved_model_returns,
    ]
