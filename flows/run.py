"""One run as every flow sees it: its configuration, its folder, and what decides its weights."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from conf.load import WITHOUT_EFFECT, as_yaml, load, run_folder
from conf.schema import RunConfig
from data.config import DataConfig
from tasks.artifacts import show_configuration
from tasks.problem import ImageProblemFactory
from tasks.run_folder import claim_run_folder, run_identity
from tasks.training import WEIGHTS, is_trained

#: Characters of a flow run's name.
NAME_WIDTH = 72
#: Overrides that would crowd out in it what makes the run.
UNTOLD = ("paths.staged", "paths.outputs", "paths.archives")


class NotTrainedError(ValueError):
    """The run has no trained network yet."""


@dataclass(frozen=True)
class Run:
    """A configuration and where its results go."""

    config: RunConfig
    overrides: tuple[str, ...]
    folder: Path
    made_from: Mapping[str, str]  # the settings that decide the weights

    @property
    def transfer_data(self) -> list[DataConfig]:
        """The data sets to transfer to."""
        return [DataConfig(name=name, source="builtin") for name in self.config.transfer.datasets]

    def problem(self, staged: Path) -> ImageProblemFactory:
        """The training problem on staged data."""
        return ImageProblemFactory(
            staged=staged,
            input=self.config.data.input,
            model=self.config.model,
            seed=self.config.algorithm.seed,
            side=self.config.evaluation.single_side,
            batch_size=self.config.evaluation.batch_size,
            device=self.config.cluster.device,
        )

    def weights(self) -> Path:
        """The trained weights.

        Raises:
            NotTrainedError: the message says which command trains them.
        """
        weights = self.folder / WEIGHTS
        if not is_trained(weights, self.made_from):
            command = " ".join(["python -m flows.train", *self.overrides])
            raise NotTrainedError(
                f"{self.folder} has no trained network yet. Train it first: {command}"
            )
        return weights


def open_run(config_name: str, overrides: Sequence[str]) -> Run:
    """Load the configuration, claim its folder and show it in the UI.

    Raises:
        ConfigurationError: with every problem of the configuration.
        ForeignRunError: the folder holds a run of another configuration.
    """
    config = load(config_name, overrides)
    folder, text = run_folder(config), as_yaml(config)
    claim_run_folder(folder, text, WITHOUT_EFFECT)
    show_configuration(text, folder.name)
    return Run(config, tuple(overrides), folder, run_identity(text, WITHOUT_EFFECT))


def dated(config_name: str, overrides: Sequence[str], today: date) -> list[str]:
    """Overrides for a run of its own on this day: its usual name, and the date.

    A second run on the day, a late one perhaps, finds the work of the first.
    """
    usual = run_folder(load(config_name, overrides)).name
    return [*overrides, f"paths.run_name={usual}-{today.isoformat()}"]


def dated_if_scheduled(config_name: str, overrides: Sequence[str]) -> list[str]:
    """`dated` when a schedule started this flow run, else the overrides as they are.

    What people start finds its earlier work by its settings; what a schedule starts is meant to
    be done anew each time.
    """
    context = FlowRunContext.get()
    if context and context.flow_run and context.flow_run.auto_scheduled:
        return dated(config_name, overrides, datetime.now(UTC).date())
    return list(overrides)


def run_name() -> str:
    """Name of a flow run in the UI: the flow and what was asked of it, as far as there is room."""
    asked = flow_run.parameters
    told = [text for text in asked.get("overrides") or () if not text.startswith(UNTOLD)]
    words = [flow_run.flow_name, *(told or [asked["config_name"]])]
    return textwrap.shorten(" ".join(words), NAME_WIDTH, placeholder=" ...")
