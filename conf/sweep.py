"""Sweeps: the runs that one command line stands for, and one table over what came of them."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hydra.core.override_parser.types import Override

from conf.compose import Composer
from conf.errors import ConfigurationError, Faults
from conf.load import config_digest, read, run_folder
from conf.overrides import parse
from conf.schema import Problems, RunConfig, contradictions

FIGURES: Final = ("training.num_samples", "training.elapsed_s")


@dataclass(frozen=True)
class Outcome:
    """One run of a flow: its folder, or what ended it."""

    overrides: tuple[str, ...]
    folder: Path | None
    error: Exception | None


def expand(texts: Sequence[str], conf: Composer) -> list[list[str]]:
    """Return the overrides of each run, in the order in which Hydra's basic sweeper starts them.

    Raises:
        ConfigurationError: for a range without steps, which needs another sweeper.
    """
    parsed = parse(texts, Faults())  # what cannot be parsed is told when the run is checked
    values: dict[str, list[str]] = {}
    for place, text in enumerate(texts):
        override = parsed.get(place)
        if override is None or not override.is_sweep_override():
            values[override.get_key_element() if override else text] = [text]
        elif override.is_discrete_sweep():
            values[override.get_key_element()] = _values(override, conf)
        else:
            raise ConfigurationError([f"override {text!r}: give values as a,b or range(a,b)"])
    return [list(run) for run in itertools.product(*values.values())]


def _values(override: Override, conf: Composer) -> list[str]:
    override.config_loader = conf.loader  # glob(*) asks it for a group's options
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def check(
    runs: Sequence[Sequence[str]],
    conf: Composer,
    look: Callable[[RunConfig], Problems] = contradictions,
) -> None:
    """Load the configuration of every run, before the first is started; `look` is as for `read`.

    Raises:
        ConfigurationError: the problems of all runs, each told once.
    """
    problems: list[str] = []
    written: dict[Path, str] = {}
    for run in runs:
        try:
            config = read(conf, run, look)
        except ConfigurationError as error:
            problems += error.problems
            continue
        folder, digest = run_folder(config), config_digest(config)
        if written.setdefault(folder, digest) != digest:
            problems.append(
                f"several runs would write to {folder}: add paths.run_name=null, "
                "then each has a folder of its own"
            )
    if problems:
        raise ConfigurationError(problems)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return a Markdown table: the overrides that differ, the errors, samples and seconds."""
    figures = [_figures(outcome.folder) for outcome in outcomes]
    settings = [dict(text.split("=", 1) for text in outcome.overrides) for outcome in outcomes]
    differing = [
        key
        for key in dict.fromkeys(itertools.chain(*settings))
        if len({setting.get(key) for setting in settings}) > 1
    ]
    errors = sorted({name for row in figures for name in row if name.endswith(".top1_error")})
    names = [*errors, *FIGURES]
    rows = [["run", *differing, *names]]
    for outcome, setting, row in zip(outcomes, settings, figures, strict=True):
        title = str(outcome.folder) if outcome.folder else f"failed: {_line(outcome.error)}"
        rows.append(
            [title, *(setting.get(key, "") for key in differing), *(_text(row, n) for n in names)]
        )
    rows.insert(1, ["---"] * len(rows[0]))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _figures(folder: Path | None) -> dict[str, Any]:
    path = None if folder is None else folder / "summary.json"
    if path is None or not path.exists():
        return {}
    figures: dict[str, Any] = json.loads(path.read_text())
    return figures


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)  # None also where a figure was not finite
    return f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)


def _line(error: Exception | None) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".replace("|", "\\|")
