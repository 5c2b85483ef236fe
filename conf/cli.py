"""The command line of every flow: Hydra's, checked as a whole before anything heavy is imported.

A flow's module is laid out like this:

    from conf.cli import main, preflight

    preflight(__name__)

    from prefect import flow
    ...
    if __name__ == "__main__":
        main(pipeline)
"""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

import hydra
import yaml
from hydra._internal.utils import get_args_parser  # Hydra has no public name for its own flags
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from conf.compose import FOLDER, VERSION_BASE, composer
from conf.errors import ConfigurationError
from conf.load import as_tree, check_name, load
from conf.overrides import is_hydra_override
from conf.schema import Problems, RunConfig, contradictions
from conf.sweep import Outcome, check, expand, summary

REFUSED: Final = {
    "config_dir": "a scheduled run would not find it again: put the files into conf/",
    "config_path": "a scheduled run would not find it again: put the files into conf/",
    "experimental_rerun": "it reads a pickle, which may run any code: give the overrides again",
}
ANSWERED_BY_HYDRA: Final = ("help", "hydra_help", "cfg", "info", "shell_completion")
UNCHECKED: Final = ("help", "hydra_help", "shell_completion")

CONFIG_NAME: Final = "config"

FAILED: Final = 1
MISCONFIGURED: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT


def preflight(module: str, look: Callable[[RunConfig], Problems] = contradictions) -> None:
    """Check the command line if `module` is the program; answer --help, --cfg and --info.

    Call it before importing torch or Prefect: a misspelt key then ends the program, with exit
    code 2, within half a second.

    Args:
        look: as for `conf.load.read`.
    """
    if module != "__main__":
        return
    parser = get_args_parser()
    arguments = parser.parse_args()
    for name, reason in REFUSED.items():
        if getattr(arguments, name):
            parser.error(f"--{name.replace('_', '-')} is not supported, because {reason}")
    asked = any(getattr(arguments, name) for name in ANSWERED_BY_HYDRA)
    try:
        if not any(getattr(arguments, name) for name in UNCHECKED):
            _check(arguments, contradictions if asked else look)
        if arguments.cfg == "job" and not arguments.multirun:
            _show_job(arguments)  # Hydra does not know what a choice makes void
            sys.exit(0)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(MISCONFIGURED)
    if asked:
        _run_hydra(lambda _: None)
        sys.exit(0)


def take_flag(module: str, *names: str) -> str | None:
    """Take a flow's own flag, one of `names`, off the command line if `module` is the program.

    Call it before `preflight`, since Hydra refuses what it does not know. Two of them are refused.
    """
    if module != "__main__":
        return None
    given = [name for name in names if name in sys.argv]
    if len(given) > 1:
        print(f"{' and '.join(given)} exclude each other: give one of them", file=sys.stderr)
        sys.exit(MISCONFIGURED)
    sys.argv[1:] = [text for text in sys.argv[1:] if text not in names]
    return given[0] if given else None


def main(flow: Callable[..., Path]) -> None:
    """Run `flow(config_name=..., overrides=[...])` once, or with -m once for each combination.

    Exit codes: 0, 1 for a failure, 2 for a refused configuration, 130 and 143 for SIGINT and
    SIGTERM. A failed run of a sweep does not keep the others from running.

    Args:
        flow: returns the run's folder.
    """
    signal.signal(signal.SIGTERM, _terminate)
    outcomes: list[Outcome] = []
    sweep_folder: list[Path] = []

    def job(_: DictConfig) -> None:
        settings = HydraConfig.get()
        overrides = list(settings.overrides.task)
        if settings.mode == RunMode.MULTIRUN:
            sweep_folder[:] = [Path(settings.sweep.dir)]
            print(f"run {len(outcomes) + 1} of the sweep: {' '.join(overrides)}", flush=True)
        outcomes.append(_run(flow, settings.job.config_name or CONFIG_NAME, overrides))

    try:
        _run_hydra(job)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        for folder in sweep_folder:
            _write_summary(folder, outcomes)
    sys.exit(max((_exit_code(outcome.error) for outcome in outcomes), default=0))


def _check(arguments: argparse.Namespace, look: Callable[[RunConfig], Problems]) -> None:
    ours = _own_overrides(arguments)
    with composer(check_name(arguments.config_name or CONFIG_NAME)) as conf:
        check(expand(ours, conf) if arguments.multirun else [ours], conf, look)


def _own_overrides(arguments: argparse.Namespace) -> list[str]:
    return [text for text in arguments.overrides if not is_hydra_override(text)]


def _show_job(arguments: argparse.Namespace) -> None:
    """Print the settings of the run, or those of --package, as its config.yaml will have them."""
    tree = as_tree(load(arguments.config_name or CONFIG_NAME, _own_overrides(arguments)))
    for name in (arguments.package or "_global_").split("."):
        if name != "_global_" and name not in tree:
            raise ConfigurationError([f"--package {arguments.package}: there is no such section"])
        tree = tree if name == "_global_" else tree[name]
    print(yaml.safe_dump(tree, sort_keys=False), end="")


def _run_hydra(job: Callable[[DictConfig], None]) -> None:
    decorate = hydra.main(
        version_base=VERSION_BASE, config_path=str(FOLDER), config_name=CONFIG_NAME
    )
    decorate(job)()


def _run(flow: Callable[..., Path], config_name: str, overrides: list[str]) -> Outcome:
    try:
        folder = flow(config_name=config_name, overrides=overrides)
    except Exception as error:  # told in full here: Hydra would cut it short and stop a sweep
        _tell(error)
        return Outcome(tuple(overrides), None, error)
    return Outcome(tuple(overrides), folder, None)


def _tell(error: Exception) -> None:
    """Print one message for what a user can mend, and the traceback for what is our mistake."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1" or not isinstance(error, ValueError | OSError):
        traceback.print_exception(error)
        return
    lines = [str(error), *getattr(error, "__notes__", ())]
    if not isinstance(error, ConfigurationError):
        lines[0] = f"error: {lines[0]}"
        lines.append("(the traceback: HYDRA_FULL_ERROR=1)")
    print("\n".join(lines), file=sys.stderr)


def _exit_code(error: Exception | None) -> int:
    if error is None:
        return 0
    return MISCONFIGURED if isinstance(error, ConfigurationError) else FAILED


def _write_summary(folder: Path, outcomes: list[Outcome]) -> None:
    table = summary(outcomes)
    path = folder / "summary.md"
    path.write_text(table)
    print(f"\n{table}\n{path}")


def _terminate(number: int, _: FrameType | None) -> None:
    # An exception, so that every `finally` between here and the workers' processes is run.
    raise SystemExit(128 + number)
