"""The folder of one run, and the check that it belongs to the configuration at hand."""

from collections.abc import Collection
from pathlib import Path

import yaml

from tasks.records import write_atomically
from tasks.report.summary import dotted

#: The groups that decide the weights. The others may change between commands on one run.
DECISIVE = ("data", "model", "algorithm")


class ForeignRunError(ValueError):
    """The folder holds a run of another configuration."""


def run_identity(config_yaml: str, without_effect: Collection[str]) -> dict[str, str]:
    """The settings that decide a run's weights, by dotted name.

    Args:
        without_effect: settings of the deciding groups that change no result.
    """
    config = yaml.safe_load(config_yaml)
    settings = dotted({group: config[group] for group in DECISIVE if group in config})
    return {name: str(value) for name, value in settings.items() if name not in without_effect}


def claim_run_folder(folder: Path, config_yaml: str, without_effect: Collection[str]) -> None:
    """Make `folder` the run of this configuration, or refuse when it is that of another.

    Raises:
        ForeignRunError: the run there was trained from other data, another network or algorithm;
            the message lists each setting that differs.
    """
    file = folder / "config.yaml"
    there = file.read_text(encoding="utf-8") if file.exists() else config_yaml
    different = differences(
        run_identity(there, without_effect), run_identity(config_yaml, without_effect)
    )
    if different:
        raise ForeignRunError(
            f"{folder} holds a run of another configuration:\n"
            + "\n".join(f"  {line}" for line in different)
            + f"\nGive this run a name of its own (paths.run_name=NAME), or remove {folder}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if there != config_yaml or not file.exists():
        write_atomically(file, config_yaml)


def differences(there: dict[str, str], here: dict[str, str]) -> list[str]:
    """One line for each setting whose value differs, or that only one of them has."""
    return [
        f"{name}: {there.get(name, 'not set')} there, {here.get(name, 'not set')} now"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
