"""Tables of the regret of the defaults, as docs/benchmarks.md shows them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matrix import SIZES

Record = Mapping[str, Any]
PARTS = {"reports": "report", "chooses": "choose"}


@dataclass(frozen=True)
class Row:
    """What the records of one set, backbone and size say of the defaults.

    Attributes:
        ours: The figure of the defaults by draw.
        leads: By method, its figure less ours, as the mean over the draws that both have.
        seconds: Mean CPU seconds of the defaults; None where no draw was timed.
    """

    ours: Mapping[int, float]
    leads: Mapping[str, float]
    seconds: float | None

    @property
    def regret(self) -> float:
        """How far the best of the others is ahead, at least 0."""
        return max(0.0, *self.leads.values())

    def cells(self, methods: Sequence[str]) -> list[str]:
        """Return the cells of the row: draws, ours with its range, the lead of each method, the regret, and seconds of ours."""
        values = self.ours.values()
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        leads = [f"{self.leads[method]:+.3f}" if method in self.leads else "" for method in methods]
        seconds = "" if self.seconds is None else f"{self.seconds:.0f}"
        return [str(len(values)), f"{statistics.mean(values):.3f}{spread}", *leads, f"{self.regret:.3f}", seconds]


def row_of(records: Sequence[Record], ours: str, figure: str) -> Row | None:
    """Return the row of the records of one set, backbone and size; None without a draw that ours and another method have."""
    values: dict[str, dict[int, float]] = {}
    for record in records:
        values.setdefault(record["method"], {})[record["seed"]] = record[figure]
    mine = values.pop(ours, {})
    both = {method: [value - mine[seed] for seed, value in draws.items() if seed in mine] for method, draws in values.items()}
    leads = {method: statistics.mean(differences) for method, differences in both.items() if differences}
    seconds = [record["seconds"] for record in records if record["method"] == ours and record["seconds"] is not None]
    return Row(mine, leads, statistics.mean(seconds) if seconds else None) if leads else None


def print_tables(records: Sequence[Record], ours: str, methods: Sequence[str], figure: str) -> None:
    """Print the regret of the defaults by size and part of the sets, then a table of each with a row per set and backbone."""
    places: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        if figure in record:
            places.setdefault(tuple(record[key] for key in ("size", "part", "set", "backbone")), []).append(record)
    tables: dict[tuple[str, ...], dict[tuple[str, ...], Row]] = {}
    for place, found in places.items():
        if row := row_of(found, ours, figure):
            tables.setdefault(place[:2], {})[place[2:]] = row
    order = [(size, part) for size in reversed(SIZES) for part in PARTS if (size, part) in tables]
    print("| samples of a class | sets that | pairs | draws | mean regret | worst |\n|---|---|---|---|---|---|")
    for size, part in order:
        rows = tables[size, part].values()
        draws, regrets = [len(row.ours) for row in rows], [row.regret for row in rows]
        drawn = f"{min(draws)} to {max(draws)}" if min(draws) < max(draws) else f"{draws[0]}"
        print(f"| {size} | {PARTS[part]} | {len(rows)} | {drawn} | {statistics.mean(regrets):.3f} | {max(regrets):.3f} |")
    for size, part in order:
        rows = tables[size, part]
        shown = [method for method in methods if any(method in row.leads for row in rows.values())]
        print(f"\nSamples of a class: {size}; sets that {PARTS[part]}; {figure} of ours, and the lead of each method over it:\n")
        print(f"| set | backbone | draws | ours | {' | '.join(shown)} | regret | seconds |\n|{'---|' * (len(shown) + 6)}")
        for place, row in sorted(rows.items()):
            print(f"| {' | '.join((*place, *row.cells(shown)))} |")
