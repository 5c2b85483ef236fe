"""Bad input: one message that says what came, what was expected and what to do."""

from pathlib import Path

import pytest

from conf.errors import ConfigurationError
from data.sources.source import SourceError
from engine.identity import CheckpointMismatchError
from flows.evaluate import evaluate
from flows.run import NotTrainedError
from flows.stage import stage
from flows.train import train
from flows.transfer import transfer
from models.weights import WeightFileError
from tasks.run_folder import ForeignRunError
from tests.flows.conftest import FinishedRun, tiny

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("prefect_server")]


@pytest.mark.parametrize("flow", [evaluate, transfer])
def test_a_run_not_yet_trained_is_told_which_command_trains_it(flow, tmp_path: Path) -> None:
    with pytest.raises(NotTrainedError, match=r"python -m flows.train experiment=quick paths\."):
        flow(overrides=tiny(tmp_path))


def test_a_misspelt_override_of_a_deployment_is_refused_with_the_nearest_key() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'algorithm.n_push'"):
        train(overrides=["algorithm.n_pusch=4"])


def test_the_folder_of_another_run_is_refused_field_by_field(finished: FinishedRun) -> None:
    name = f"paths.run_name={finished.folder.name}"
    with pytest.raises(ForeignRunError, match=r"model.dropout: 0.5 there, 0.25 now"):
        train(overrides=[*finished.overrides, name, "model.dropout=0.25"])


def test_the_checkpoint_of_another_network_is_refused_field_by_field(
    finished: FinishedRun,
) -> None:
    other = [*finished.overrides, "model.name=B", "paths.run_name=other"]
    folder = finished.folder.parent / "other"
    folder.mkdir()
    (folder / "training").symlink_to(finished.folder / "training")
    with pytest.raises(CheckpointMismatchError, match=r"model\.name.*A"):
        train(overrides=other)


def test_the_weights_of_another_network_are_refused(finished: FinishedRun) -> None:
    folder = finished.folder.parent / "damaged"
    folder.mkdir()
    content = bytearray((finished.folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(WeightFileError, match="damaged"):
        evaluate(overrides=[*finished.overrides, "paths.run_name=damaged"])


def test_a_data_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images"
    with pytest.raises(SourceError, match=rf"data.path={path} does not exist"):
        stage(overrides=tiny(tmp_path, "data=folder", f"data.path={path}"))


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"", "empty: 0 bytes"), (b"no image at all", "notes.jpg")]
)
def test_a_file_that_is_no_image_is_named(content: bytes, complaint: str, tmp_path: Path) -> None:
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        folder = tmp_path / "images" / place
        folder.mkdir(parents=True)
        (folder / "notes.jpg").write_bytes(content)
    with pytest.raises(SourceError, match=complaint):
        stage(overrides=tiny(tmp_path, "data=folder", f"data.path={tmp_path}/images"))
