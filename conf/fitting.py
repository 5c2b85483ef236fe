"""What an experiment sets for its own algorithm does not count for another one that was chosen."""

import copy
from dataclasses import fields
from typing import Any, Final, get_args

from omegaconf import open_dict

from conf.compose import Composed
from conf.errors import overlap
from engine.algorithm import AlgorithmConfig

_MEMBERS: Final = get_args(get_args(AlgorithmConfig)[0])
#: Name of an algorithm -> the settings that it has.
_FIELDS: Final = {
    str(by_name["name"].default): set(by_name)
    for by_name in ({field.name: field for field in fields(member)} for member in _MEMBERS)
}
_ALL: Final = set[str]().union(*_FIELDS.values())


def for_chosen_algorithm(composed: Composed) -> Composed:
    """`composed` less the settings of other algorithms; misspelt ones stay, to be refused."""
    section: Any = composed.settings.algorithm
    foreign = [name for name in section if name in _ALL - _FIELDS[section.name]]
    settings = copy.deepcopy(composed.settings)
    with open_dict(settings):
        for name in foreign:
            del settings.algorithm[name]
    gone = [f"algorithm.{name}" for name in foreign]
    keys = (key for key in composed.keys if not any(overlap(key, other) for other in gone))
    return Composed(settings, composed.choices, frozenset({*keys, "algorithm"}))
