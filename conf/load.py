"""The one door through which overrides become a checked configuration of frozen dataclasses."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from conf.compose import Composed, Composer, composer, config_names
from conf.errors import ConfigurationError, Faults
from conf.fitting import for_chosen, with_section
from conf.origin import Blame
from conf.overrides import RefusedOverride, check_choice, check_form, check_setting, parse
from conf.schema import Problems, RunConfig, contradictions
from conf.validate import ADAPTER, resolve, validate

# Settings that change where, how fast or how safely a run goes, but not what comes out of it.
# (An asynchronous run differs from time to time anyway; these do not make it another run.)
WITHOUT_EFFECT: Final = (
    "experiment",
    "paths",
    "data.input.cache_bytes",
    "data.input.decode_threads",
    "data.input.prefetch",
    "algorithm.checkpoint_every_s",
    "algorithm.keep_checkpoints",
    "algorithm.prefetch",
    "algorithm.record",
    "cluster.allow_resharding",
    "cluster.dashboard_port",
    "cluster.device",
    "cluster.heartbeat_interval_s",
    "cluster.heartbeat_timeout_s",
    "cluster.host",
    "cluster.max_restarts",
    "cluster.start_timeout_s",
    "evaluation.batch_size",
    "transfer.batch_size",
)


#: Groups whose choice makes what an experiment sets for another member of them void.
_KINDS = ("algorithm", "algorithm/rule")
#: Groups whose choice makes void what an experiment sets in a section. Its limits on images are for
#: its own data set; the scales in data.input are for its network.
_VOID = {"transfer": "transfer", "data": "data.staging"}


def load(config_name: str = "config", overrides: Sequence[str] = ()) -> RunConfig:
    """Compose conf/ with overrides, resolve, check, and return frozen dataclasses.

    Works from any folder, in any thread, and inside a running `hydra.main` job.

    Raises:
        ConfigurationError: its text lists every problem; nothing was started.
    """
    with composer(check_name(config_name)) as conf:
        return read(conf, overrides)


def check_name(config_name: str) -> str:
    """Return `config_name` if conf/ has it.

    Raises:
        ConfigurationError: with the names there are.
    """
    if config_name not in config_names():
        have = ", ".join(config_names())
        raise ConfigurationError([f"no configuration named {config_name!r}; have {have}"])
    return config_name


def read(
    conf: Composer, texts: Sequence[str], look: Callable[[RunConfig], Problems] = contradictions
) -> RunConfig:
    """Do the work of `load` with a composer at hand, which the jobs of a sweep share.

    Args:
        look: finds what no single setting shows; told beside all other problems.
    """
    faults = Faults()
    parsed = parse(texts, faults)
    choices: dict[int, Override] = {}
    settings: dict[int, Override] = {}
    for place, override in parsed.items():
        (choices if conf.options(override.key_or_group) else settings)[place] = override
    choices = _sound(choices, functools.partial(check_choice, conf=conf), faults)
    base = _compose(conf, choices, faults)
    check = functools.partial(check_setting, composed=base, conf=conf)
    settings = _sound(settings, check, faults)
    composed = _compose(conf, choices | settings, faults)
    fallback = resolve(base, {}, Blame({}, {}, Faults()))  # told of `composed`, if at all
    blame = Blame(settings, composed.choices, faults)
    config = validate(resolve(composed, fallback, blame), fallback, composed, blame, look)
    faults.raise_if_any()
    assert config is not None, "a configuration was refused without a reason"
    return config


def _sound(
    overrides: dict[int, Override], check: Callable[[Override], None], faults: Faults
) -> dict[int, Override]:
    sound = {}
    for place, override in overrides.items():
        try:
            check_form(override)
            check(override)
            sound[place] = override
        except RefusedOverride as error:
            faults.add(f"override {override.input_line!r}: {error}", place, error.doubtful)
    return sound


def _compose(conf: Composer, overrides: dict[int, Override], faults: Faults) -> Composed:
    lines = [overrides[place].input_line or "" for place in sorted(overrides)]
    chosen = {override.key_or_group for override in overrides.values()}
    try:
        composed = conf.compose(lines)
        for group in chosen.intersection(_VOID):
            places = [p for p in sorted(overrides) if _within(overrides[p].key_or_group, group)]
            own = [overrides[place].input_line or "" for place in places]
            plain = conf.compose([*own, "experiment=none"])
            composed = with_section(composed, _VOID[group], plain)
    except HydraException as error:
        # What our own checks let through: Hydra's first complaint is the last of ours.
        reason = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        faults.add(f"overrides {lines}: {' '.join(reason.split())}", len(overrides))
        faults.raise_if_any()
        raise
    return for_chosen(composed) if chosen.intersection(_KINDS) else composed


def _within(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")


def config_digest(config: RunConfig) -> str:
    """Return 10 hexadecimal digits of the settings that decide the result of a run."""
    tree = as_tree(config)
    for key in WITHOUT_EFFECT:
        *sections, name = key.split(".")
        functools.reduce(dict.__getitem__, sections, tree).pop(name, None)  # not every algorithm's
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:10]


def run_folder(config: RunConfig) -> Path:
    """Where this run's results go: the same settings find the same folder again."""
    name = config.paths.run_name or f"{config.experiment}-{config_digest(config)}"
    return config.paths.outputs / name


def as_yaml(config: RunConfig) -> str:
    """Write every setting with its resolved value, for people and for the record."""
    return yaml.safe_dump(as_tree(config), sort_keys=False)


def as_tree(config: RunConfig) -> dict[str, Any]:
    """Every setting with its resolved value, as plain values in nested dictionaries."""
    tree: dict[str, Any] = ADAPTER.dump_python(config, mode="json")
    return tree
