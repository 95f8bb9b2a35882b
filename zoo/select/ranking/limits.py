"""Limits on candidates: parameters, latency, memory and licence, with what each of them excludes. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zoo.declare import PERMISSIVE, BackboneSpec
from zoo.errors import OptionError, count, did_you_mean, fault_list, fault_message, refusals
from zoo.util.numbers import in_units

_BYTES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Excluded(NamedTuple):
    """A candidate outside a limit, with its own value."""

    name: str
    limit: str
    value: float | str

    @property
    def reason(self) -> str:
        """Why it is excluded, in words."""
        return f"{self.limit}: it has {_shown(self.limit, self.value)}"


def reason_of(excluded: Sequence[Excluded]) -> str:
    """Return why a candidate is excluded, by all limits that it is outside of."""
    return "; ".join(one.reason for one in excluded)


@dataclass(frozen=True)
class Limits:
    """The largest allowed values; None is no limit.

    Attributes:
        max_params: Parameters of the backbone without head.
        max_latency_ms: Milliseconds of one forward of one sample on this machine.
        max_memory: Bytes of the weights and of one forward of one sample; a number, or text such as ``500MB``.
        license: ``permissive``, or an SPDX identifier of the weights.
    """

    max_params: float | None = None
    max_latency_ms: float | None = None
    max_memory: float | str | None = None
    license: str | None = None

    def __post_init__(self) -> None:
        faults = refusals(lambda: object.__setattr__(self, "max_memory", bytes_of(self.max_memory)))
        given = {name: getattr(self, name) for name in _MEASURED if not (faults and name == "max_memory")}
        faults += [
            f"{name} is {value!r}; give a number above 0" for name, value in given.items() if value is not None and not _is_positive(value)
        ]
        if faults:
            raise OptionError(fault_message("candidates cannot have these limits:", faults))

    def of_spec(self, spec: BackboneSpec) -> list[Excluded]:
        """Return all limits that a declaration is outside of; a number that it does not tell is measured later."""
        outside = self.of_values(spec.name, {"max_params": spec.parameters, "max_memory": spec.parameters * 4})  # float32
        if self.license is not None and not _is_licensed(spec, self.license):
            outside.append(Excluded(spec.name, "license", spec.license))
        return outside

    def of_values(self, name: str, values: Mapping[str, float]) -> list[Excluded]:
        """Return all limits that one of the values is above."""
        given = {limit: getattr(self, limit) for limit in values}
        return [Excluded(name, limit, value) for limit, value in values.items() if given[limit] is not None and value > given[limit]]

    def to_dict(self) -> dict[str, Any]:
        """Return the limits that are set."""
        return {name: value for name in (*_MEASURED, "license") if (value := getattr(self, name)) is not None}


_MEASURED = ("max_params", "max_latency_ms", "max_memory")


def bytes_of(size: Any) -> float | None:
    """Return the bytes of ``500MB``, ``1.5 GiB`` or a number; None for None.

    Raises:
        OptionError: If it is neither.
    """
    if size is None or (isinstance(size, int | float) and not isinstance(size, bool)):
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", size.lower()) if isinstance(size, str) else None
    if found is None or found[2] not in _BYTES:
        raise OptionError(f"max_memory is {size!r}; give bytes, or a size such as '500MB' or '2GB'")
    return float(found[1]) * _BYTES[found[2]]


def none_left(excluded: Sequence[Excluded], limits: Limits, of: int) -> OptionError:
    """Return the error for candidates of which none is within the limits: how many each excludes, and the nearest."""
    faults = []
    for limit in dict.fromkeys(one.limit for one in excluded):
        those = [one for one in excluded if one.limit == limit]
        given = getattr(limits, limit)
        given = given if isinstance(given, str) else _shown(limit, given)
        name = "license (--license)" if limit == "license" else limit  # the others are named by their flags on the command line
        line = f"{name} is {given} and excludes {len(those)}"
        if limit == "license":
            known = sorted({str(one.value) for one in those})
            faults.append(
                f"{line}, with the licences: {', '.join(known)}{did_you_mean(given.lower(), [*known, 'permissive', *PERMISSIVE])}"
            )
        else:
            nearest = min(those, key=lambda one: one.value)
            faults.append(f"{line}; the nearest is {nearest.name!r} with {nearest.reason.rpartition('has ')[2]}")
    return OptionError(fault_list(f"no candidate is within the limits, of {count(of, 'candidate')}:", faults))


def _shown(limit: str, value: float | str) -> str:
    if isinstance(value, str):
        return repr(value)
    if limit == "max_memory":
        return in_units(value)
    return f"{value:.3g} ms" if limit == "max_latency_ms" else f"{value:,.0f} parameters"


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_licensed(spec: BackboneSpec, wanted: str) -> bool:
    return spec.license in PERMISSIVE if wanted == "permissive" else spec.license == wanted.lower()
