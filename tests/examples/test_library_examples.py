"""The examples as a reader runs them, without Prefect, Hydra and images."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Runs an example as `python -m` does, then says which modules it had loaded.
RUN = """
import runpy, sys
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def run(command: list[str], folder: Path) -> list[str]:
    """The lines that a command prints; any warning would be an error."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_hand_written_gradient_learns(tmp_path):
    (line,) = run(["-m", "examples.logistic_regression"], tmp_path)
    assert float(line.removeprefix("accuracy ")) > 0.97


@pytest.mark.dask
def test_a_torch_module_learns_from_arrays_in_four_processes(tmp_path):
    rows = [ast.literal_eval(line) for line in run(["-m", "examples.torch_arrays"], tmp_path)]
    losses = [row["loss"] for row in rows if row["event"] == "progress"]
    assert losses[-1] < 0.4
    joined = {row["pid"] for row in rows if row["event"] in ("replica_joined", "shard_serving")}
    assert len(joined) == 4
    assert (tmp_path / "outputs/arrays/checkpoints").is_dir()


@pytest.mark.dask
def test_replicas_train_the_members_of_an_ensemble(tmp_path):
    lines = run(["-m", "examples.ensemble"], tmp_path)
    assert [line[:10].strip() for line in lines] == [
        *(f"member {k}" for k in range(3)),
        "ensemble",
    ]
    assert all(float(line.split()[-1]) > 0.9 for line in lines)


def test_the_library_loads_neither_prefect_nor_hydra_nor_what_knows_images(tmp_path):
    (last,) = run(["-c", RUN, "examples.logistic_regression"], tmp_path)[-1:]
    loaded = set(last.split()[1:])
    assert {"LOADED"} == {last.split()[0]}
    assert "engine" in loaded
    assert not loaded & {"prefect", "hydra", "omegaconf", "webdataset", "simplejpeg", "models"}


def test_a_module_on_arrays_takes_fewer_than_30_lines():
    assert len((ROOT / "examples/torch_arrays.py").read_text().splitlines()) < 30
