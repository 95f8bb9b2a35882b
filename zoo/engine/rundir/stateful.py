"""The protocol of objects that a checkpoint stores: ``state_dict`` and ``load_state_dict``, as in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.engine.rundir.checkpoint import Checkpoint
from zoo.errors import SavedModelError, ZooError


class Stateful(Protocol):
    """An object whose state a checkpoint stores.

    A state is flat: names to tensors, or to plain data that JSON can hold. Both methods are collectives.
    """

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state; tensors need not be copied."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Take over what ``state_dict`` returned, in place; an empty mapping if the checkpoint has no state of this object."""


def collect(parts: Mapping[str, Stateful]) -> Checkpoint:
    """Return the states of all parts as one checkpoint."""
    states = {name: part.state_dict() for name, part in parts.items()}
    tensors = {name: {key: value for key, value in state.items() if isinstance(value, Tensor)} for name, state in states.items()}
    plain = {name: {key: value for key, value in state.items() if not isinstance(value, Tensor)} for name, state in states.items()}
    return Checkpoint({name: held for name, held in tensors.items() if held}, {name: held for name, held in plain.items() if held})


def distribute(saved: Checkpoint, parts: Mapping[str, Stateful]) -> None:
    """Load a checkpoint into the parts, in their order and in place.

    Raises:
        SavedModelError: If it does not fit, as one of another run or edited by hand.
    """
    for name, part in parts.items():
        try:
            part.load_state_dict({**saved.tensors.get(name, {}), **saved.plain.get(name, {})})
        except (torch.OutOfMemoryError, ZooError):
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            cause = " ".join(map(str.strip, f"{type(error).__name__}: {error}".splitlines()[:2]))
            raise SavedModelError(
                f"the checkpoint does not belong to this run ({name}: {cause}); start anew in another folder (out, --out)"
            ) from error
