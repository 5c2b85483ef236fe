"""How a benchmark states what it found: a table for people, one JSON object for machines."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured figure beside a rival's, both from the same run.

    `ratio` is ours / rival where more is better and rival / ours where less is better, so that
    above 1 always means that we win.
    """

    name: str
    unit: str
    ours: float
    rival: float
    rival_name: str
    goal: float  # the least ratio that we claim
    more_is_better: bool = True

    @property
    def ratio(self) -> float:
        return self.ours / self.rival if self.more_is_better else self.rival / self.ours

    @property
    def holds(self) -> bool:
        return self.ratio >= self.goal


def state(benchmark: str, figures: Sequence[Figure]) -> None:
    """Print the table and, as the last line, the JSON object."""
    cores = len(os.sched_getaffinity(0))
    title = f"{benchmark}: {cores} cores, {platform.machine()}, torch {torch.__version__}"
    table = Table("figure", "unit", "ours", "rival", "", "ratio", "goal", "holds", title=title)
    for f in figures:
        numbers = [f"{x:.4g}" for x in (f.ours, f.rival)]
        ratio, goal = f"{f.ratio:.3f}", f"{f.goal:g}"
        table.add_row(f.name, f.unit, *numbers, f.rival_name, ratio, goal, str(f.holds))
    Console(width=140).print(table)
    values = {f.name: asdict(f) | {"ratio": f.ratio, "holds": f.holds} for f in figures}
    print(json.dumps({"benchmark": benchmark, "figures": values}))
