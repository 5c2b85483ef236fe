"""What an experiment sets for its own choices does not count for others, chosen by the user."""

import copy
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final, get_args

from omegaconf import OmegaConf, open_dict

from conf.compose import Composed
from conf.errors import overlap
from engine.algorithm import AlgorithmConfig
from engine.config import RuleConfig


def _fields(members: Iterable[Any]) -> dict[str, set[str]]:
    """Name of each member of a union of dataclasses -> the settings that it has."""
    by_name = ({field.name: field for field in fields(member)} for member in members)
    return {str(members["name"].default): set(members) for members in by_name}


_ALGORITHMS: Final = _fields(get_args(get_args(AlgorithmConfig)[0]))
_RULES: Final = _fields(get_args(get_args(RuleConfig)[0]))


def for_chosen(composed: Composed) -> Composed:
    """`composed` less what other algorithms and rules have; misspelt keys stay, to be refused."""
    settings: Any = copy.deepcopy(composed.settings)
    algorithm = settings.algorithm
    with open_dict(settings):
        gone = [f"algorithm.{name}" for name in _drop_foreign(algorithm, _ALGORITHMS)]
        if "rule" in algorithm:
            gone += [f"algorithm.rule.{name}" for name in _drop_foreign(algorithm.rule, _RULES)]
    keys = (key for key in composed.keys if not any(overlap(key, other) for other in gone))
    return Composed(settings, composed.choices, frozenset({*keys, "algorithm"}))


def with_section(composed: Composed, section: str, other: Composed) -> Composed:
    """`composed` with a section as `other` has it."""
    settings: Any = copy.deepcopy(composed.settings)
    with open_dict(settings):
        theirs = copy.deepcopy(OmegaConf.select(other.settings, section))
        OmegaConf.update(settings, section, theirs, merge=False)
    return composed._replace(settings=settings)


def _drop_foreign(section: Any, known: dict[str, set[str]]) -> list[str]:
    """Take out of `section` what only others than its own kind know; return the names."""
    every = set[str]().union(*known.values())
    foreign = [name for name in section if name in every - known[section.name]]
    for name in foreign:
        del section[name]
    return foreign
