"""Checks of the overrides `key=value` and `group=option`, before Hydra is given them.

Hydra stops at the first problem; here each override is judged by itself, so that all are told.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from conf.compose import Composed, Composer, groups
from conf.errors import Faults, nearest, overlap
from conf.settings import CHOSEN_BY_GROUP, GROUPS, every_key

# ${oc.env:...} and its like run code or read the environment when resolved, and overrides arrive
# over an API whose users see the resolved configuration. ${model.input_size} stays allowed.
RESOLVER: Final = re.compile(r"\$\{.*:", re.DOTALL)


class RefusedOverride(ValueError):
    """One override that cannot be applied, and the settings that are in doubt without it."""

    def __init__(self, text: str, *doubtful: str) -> None:
        super().__init__(text)
        self.doubtful = doubtful


def parse(texts: Sequence[str], faults: Faults) -> dict[int, Override]:
    """Parse what follows Hydra's grammar, by place in the list; the rest becomes faults."""
    parser = OverridesParser.create()
    parsed = {}
    for place, text in enumerate(texts):
        try:
            parsed[place] = parser.parse_override(text)
        except HydraException as error:
            faults.add(f"override {text!r}: {_syntax(text, error)}", place)
    return parsed


def _syntax(text: str, error: HydraException) -> str:
    if "=" not in text:
        return "no '=' in it: want key=value or group=option"
    # The parser's own exceptions know the place, under one name or the other.
    token = getattr(error.__cause__, "offendingToken", None)
    at = getattr(error.__cause__, "startIndex", len(text)) if token is None else token.column
    return f"not understood at character {at + 1}: {error}"


def is_hydra_override(text: str) -> bool:
    """Whether an override is of Hydra itself, as `hydra.verbose=true`; never if malformed."""
    return any(override.is_hydra_override() for override in parse([text], Faults()).values())


def check_form(override: Override) -> None:
    """Refuse what Hydra's command line takes but a configuration does not.

    Raises:
        RefusedOverride: with what to do instead.
    """
    key = override.key_or_group
    if not key:
        raise RefusedOverride("nothing before the '=': want key=value or group=option")
    if override.is_hydra_override():
        raise RefusedOverride("settings of Hydra itself are for the command line only")
    if override.package is not None:
        raise RefusedOverride(f"leave out '@{override.package}': each group has its one place", key)
    if override.is_sweep_override():
        raise RefusedOverride("several values need a sweep: give -m, or a list as key=[a,b]", key)


def check_choice(override: Override, conf: Composer) -> None:
    """Refuse a group override unless it names one of the group's options.

    Raises:
        RefusedOverride: with the options there are.
    """
    group, options = override.key_or_group, conf.options(override.key_or_group)
    # An experiment chooses options of all groups, so that without it they are all in doubt.
    doubtful = tuple(GROUPS) if group == "experiment" else (group.replace("/", "."),)
    if override.is_add() or override.is_force_add():
        raise RefusedOverride("an option is always chosen: leave out the plus sign", *doubtful)
    option, have = override.value(), f"Options: {', '.join(options)}"
    if option is None:
        raise RefusedOverride(f"an option is always chosen. {have}", *doubtful)
    if option not in options:
        close = nearest(str(option), options)
        hint = f"; did you mean {close!r}?" if close else "."
        text = f"group {group!r} has no option {option!r}{hint} {have}"
        raise RefusedOverride(text, *doubtful)


def check_setting(override: Override, composed: Composed, conf: Composer) -> None:
    """Refuse an override of a setting that this composition does not have.

    Raises:
        RefusedOverride: with the nearest key.
    """
    key, value = override.key_or_group, override.value()
    if RESOLVER.search(override.input_line or ""):
        raise RefusedOverride(
            "resolvers such as ${oc.env:...} are for the files of conf/ only", key
        )
    if (group := CHOSEN_BY_GROUP.get(key)) is not None:
        raise RefusedOverride(f"this is decided by the group: write {group}={value}", key)
    if conf.options(group := key.replace(".", "/")) and not isinstance(value, dict):
        raise RefusedOverride(f"to choose an option of the group write {group}={value}", key)
    for leaf in _leaves(key, value):
        _check_key(leaf, composed)
    if override.is_add():
        raise RefusedOverride("this setting exists: leave out the plus sign", key)


def _check_key(key: str, composed: Composed) -> None:
    if key not in every_key():
        text, close = unknown_key(key)
        raise RefusedOverride(text, *close)
    if key not in composed.keys:
        raise RefusedOverride(foreign_key(key, composed), key)


def foreign_key(key: str, composed: Composed) -> str:
    """Say that a setting belongs to another option than the one chosen."""
    around = [group for group in composed.choices if overlap(group.replace("/", "."), key)]
    group = max(around, key=len)
    return f"{key!r} is no setting of {group}={composed.choices[group]}"


def unknown_key(key: str) -> tuple[str, tuple[str, ...]]:
    """Say that there is no such setting, and what is nearest to it, in text and as a key."""
    if key.split(".")[-1] == "_target_":
        return "_target_ is refused: options have names, and code is never named", ()
    close = nearest(key, every_key() | set(groups()))
    if close is not None:
        return f"unknown key {key!r}; did you mean {close!r}?", (close,)
    section = key.rpartition(".")[0]
    known = [k for k in sorted(every_key()) if k.rpartition(".")[0] == section]
    if not known:
        known = [k for k in sorted(every_key()) if "." not in k]
    return f"unknown key {key!r}; known are {', '.join(known)}", ()


def _leaves(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key
