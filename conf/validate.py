"""From the composed tree to frozen dataclasses, with every problem told in the user's terms."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from conf.compose import Composed
from conf.origin import Blame
from conf.overrides import foreign_key, unknown_key
from conf.schema import Problems, RunConfig
from conf.settings import every_key
from conf.tree import Path, dotted, leaves, mend, put, setting, without_tags

ADAPTER: Final = TypeAdapter(RunConfig)


def resolve(composed: Composed, fallback: dict[str, Any], blame: Blame) -> dict[str, Any]:
    """Replace interpolations by values, one by one, so that a bad one does not hide others.

    A setting without a usable value is told, and takes the value of `fallback`.
    """
    tree = cast(dict[str, Any], OmegaConf.to_container(composed.settings))
    for path, leaf in list(leaves(tree)):
        problem = None
        if isinstance(leaf, str) and "${" in leaf:
            try:
                put(tree, path, _select(composed, dotted(path)))
            except OmegaConfBaseException as error:
                problem = f"{dotted(path)}: {str(error).splitlines()[0]}"
        elif leaf == "???":
            problem = f"{dotted(path)} must be given"
        elif isinstance(leaf, float) and not math.isfinite(leaf):
            problem = f"{dotted(path)} should be a finite number, got {leaf}"
        if problem is not None:
            key = dotted(setting(path))
            blame.tell(problem, [key], doubtful=[key])
            mend(tree, fallback, path)
    return tree


def _select(composed: Composed, key: str) -> Any:
    value = OmegaConf.select(composed.settings, key, throw_on_missing=True)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def validate(
    tree: dict[str, Any],
    fallback: dict[str, Any],
    composed: Composed,
    blame: Blame,
    look: Callable[[RunConfig], Problems],
) -> RunConfig | None:
    """Return the dataclasses; if anything was told, they are not to be used, and may be None.

    Pydantic judges the agreement of a dataclass's fields only when each field is right. So the
    refused values are replaced by those of `fallback`, the same files without overrides, and
    the rest is judged again.
    """
    config = None
    mended: set[Path] = set()
    while config is None:
        try:
            # JSON, because strict validation of Python objects would refuse a list as a tuple.
            config = ADAPTER.validate_json(json.dumps(tree), strict=True)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            paths = [without_tags(details["loc"], tree) for details in problems]
            for details, path in zip(problems, paths, strict=True):
                _tell(details, path, composed, blame)
            if mended.issuperset(paths):  # the files themselves are wrong
                return None
            mended.update(paths)
            for path in paths:
                mend(tree, fallback, path)
    for keys, text in look(config):
        if not blame.faults.in_doubt(keys):
            blame.tell(text, keys)
    return config


def _tell(details: ErrorDetails, path: Path, composed: Composed, blame: Blame) -> None:
    key, refused = dotted(path), dotted(setting(path))
    if details["type"] != "value_error":
        blame.tell(_field_problem(key, details, composed), [refused], doubtful=[refused])
        return
    # A dataclass's own complaint about its fields: those that it names are to blame.
    text = details["msg"].removeprefix("Value error, ")
    named = [f"{key}.{name}" for name in details["input"] if re.search(rf"\b{name}\b", text)]
    if not blame.faults.in_doubt(named or [key]):
        blame.tell(f"{key}: {text}", named or [key], doubtful=[key])


def _field_problem(key: str, details: ErrorDetails, composed: Composed) -> str:
    if details["type"] == "unexpected_keyword_argument":
        return foreign_key(key, composed) if key in every_key() else unknown_key(key)[0]
    if details["type"] == "missing":
        return f"{key} must be given"
    got = json.dumps(details["input"])
    rule = re.sub(r"^\w+ (?=should)", "", details["msg"])  # Input should, String should, ...
    problem = f"{key} {rule}, got {got}"
    if details["type"] == "string_type" and isinstance(details["input"], int | float):
        problem += f"; if text is meant, quote it: \"{key}='{got}'\""
    return problem
