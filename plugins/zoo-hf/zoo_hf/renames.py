"""Published names that transformers renames itself while it loads: its own table of conversions, applied to a state."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def renamed(state_dict: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    """Return tensors by the module's names where transformers knows how to, and by their own otherwise.

    Some are split or joined on the way, such as queries, keys and values that were published as one matrix. What transformers leaves out by
    the class's own list, such as masks that older versions saved, is left out.

    Args:
        state_dict: Tensors by names that are not the module's.
        module: A model of transformers.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    rules = get_model_conversion_mapping(module)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    own, prefix = module.state_dict(), module.base_model_prefix
    state: dict[str, Tensor] = {}
    collected: dict[str, Any] = {}
    for key in sorted(state_dict, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, prefix, own)
        if name not in own:
            if not _ignored(name, module):
                state[key] = state_dict[key]
        elif pattern is None:
            state[name] = state_dict[key]
        else:
            converter = collected.setdefault(name, copy.deepcopy(by_pattern[pattern]))
            converter.add_tensor(name, key, pattern, state_dict[key])
    for name, converter in collected.items():
        made = converter.convert(name, model=module, config=module.config)
        state |= {target: value[0] if isinstance(value, list) else value for target, value in made.items()}
    return state


def _ignored(name: str, module: Any) -> bool:
    return any(re.search(pattern, name) for pattern in module._keys_to_ignore_on_load_unexpected or ())


def completed(state_dict: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    """Return tensors with those that a file may leave out: the other names of tied ones, and tables of sines."""
    state, own = dict(state_dict), module.state_dict().keys()
    for one, other in (module.all_tied_weights_keys or {}).items():
        for target, source in ((one, other), (other, one)):
            if target in own and target not in state and source in state:
                state[target] = state[source]
    for name, part in module.named_modules():
        if hasattr(part, "create_weight") and f"{name}.weight" in own:
            state.setdefault(f"{name}.weight", part.create_weight())
    return state
