"""A batch optimisation that goes on with another number of shards."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed import Client

from engine import checkpoint
from engine.batch.names import s, y
from engine.dask_phases import train_phases
from engine.dask_sandblaster import train_sandblaster
from engine.identity import CheckpointMismatchError
from engine.layout import Layout
from engine.sandblaster.record import (
    IterationRecord,
    Kept,
    read_record,
    record_folder,
    write_record,
)
from engine.sandblaster.resharding import reshard_record
from tasks.cluster import open_cluster
from tests.engine.problems import NUM_SAMPLES
from tests.engine.rows import Listener, in_file
from tests.engine.sandblaster import doomed, doomed_phases
from tests.engine.sandblaster.test_phases import last_of, on_disk, whole_loss
from tests.engine.test_dask_train import wait_until_gone
from tests.kills import was_killed

LAYOUT = Layout(("w",), ((83,),))
#: By the record that kept them: one has not changed since the record before.
NAMES = {1: ("x0", s(0), y(0)), 2: ("x1", "grad1")}
MORE = replace(doomed.CLUSTER, num_shards=3, allow_resharding=True)


def identity(num_shards: int, data: str = "points") -> dict[str, str]:
    return {"data": data, "shards": str(num_shards)}


def vector(name: str) -> torch.Tensor:
    """The whole vector of that name."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    return torch.randn(LAYOUT.size, generator=generator)


def kept_by(records: Path, num_shards: int) -> IterationRecord:
    """The record of a run of so many shards, with the vectors that it names."""
    slices = LAYOUT.slices(num_shards)
    kept: list[Kept] = []
    for index, part in enumerate(slices):
        own = {}
        for number, names in NAMES.items():
            folder = record_folder(records, number)
            vectors = {name: vector(name)[part].clone() for name in names}
            digests = checkpoint.write_shard(folder, index, vectors)
            own |= {n: {"folder": folder.name, "sha256": d} for n, d in digests.items()}
        kept.append(own)
    record = IterationRecord(
        number=2,
        epoch=3,
        identity=identity(num_shards),
        optimiser={"iterate": {"loss": 0.1 + 0.2, "point": "x1"}},
        kept=kept,
        num_samples=10,
        elapsed_s=1.5,
    )
    write_record(records, record)
    return record


@pytest.mark.parametrize("old", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("new", [1, 2, 3, 4, 5])
def test_every_vector_of_the_record_goes_on_to_the_last_bit(tmp_path, old, new):
    before = kept_by(tmp_path, old)
    record_folder(tmp_path, 3).mkdir()  # of an iteration that was never committed
    (record_folder(tmp_path, 3) / "shard-00.safetensors").write_bytes(b"torn")
    reshard_record(tmp_path, identity(new), LAYOUT, LAYOUT.slices(new))
    found = read_record(tmp_path, identity(new))
    changed = {"number", "identity", "kept"} if old != new else set()
    for field in set(vars(found)) - changed:
        assert getattr(found, field) == getattr(before, field)
    for index, part in enumerate(LAYOUT.slices(new)):
        assert found.kept[index].keys() == before.kept[0].keys()
        for name, entry in found.kept[index].items():
            path = tmp_path / entry["folder"] / checkpoint.shard_file_name(index)
            read = checkpoint.read_vectors(path, {name: entry["sha256"]})
            assert torch.equal(read[name], vector(name)[part])
    if old != new:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["000003", "record.json"]


def test_a_record_that_differs_in_more_is_refused(tmp_path):
    kept_by(tmp_path, 2)
    with pytest.raises(CheckpointMismatchError, match="data: record points, this run digits"):
        reshard_record(tmp_path, identity(3, "digits"), LAYOUT, LAYOUT.slices(3))


def test_a_run_without_a_record_has_nothing_to_cut(tmp_path):
    reshard_record(tmp_path, identity(3), LAYOUT, LAYOUT.slices(3))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_cluster(MORE) as client:
        yield client


@pytest.mark.dask
def test_a_killed_optimiser_goes_on_at_its_record_on_more_shards(client, tmp_path):
    command = [sys.executable, "-m", "tests.engine.sandblaster.doomed", str(tmp_path), "lbfgs"]
    killed = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    was_killed("sandblaster coordinator", killed.wait(timeout=60))
    before = in_file(tmp_path)
    assert wait_until_gone({row["pid"] for row in before if "pid" in row})
    arguments, refused = (doomed.FACTORY, doomed.CONFIG), replace(MORE, allow_resharding=False)
    with pytest.raises(CheckpointMismatchError, match=r"cluster\.allow_resharding=true"):
        train_sandblaster(client, *arguments, refused, tmp_path, doomed.IDENTITY)

    heard = Listener()
    result = train_sandblaster(client, *arguments, MORE, tmp_path, doomed.IDENTITY, heard)
    committed = [row for row in before if row["event"] == "iteration"][-2:]
    resumed_at = heard.of("start")[0]["resumed_at_samples"]
    assert len(heard.of("shard_serving")) == 3
    (at,) = (row for row in committed if row["samples"] == resumed_at > 0)
    first = next(row for row in heard.of("iteration") if row["iteration"] == at["iteration"] + 1)
    assert first["loss"] < at["loss"]  # by the direction of the history that was cut anew
    assert whole_loss(result.parameters) < first["loss"]


@pytest.mark.dask
@pytest.mark.parametrize("phase", [0, 1, 2])
def test_a_run_of_phases_goes_on_in_its_phase_on_more_shards(client, tmp_path, phase):
    command = [sys.executable, "-m", "tests.engine.sandblaster.doomed_phases", str(tmp_path)]
    killed = subprocess.Popen([*command, str(phase)], cwd=Path(__file__).parents[3])
    was_killed("flow", killed.wait(timeout=60))
    rows = in_file(tmp_path)
    assert wait_until_gone({row["pid"] for row in rows if "pid" in row})

    arguments, heard = (doomed_phases.FACTORY, doomed_phases.CONFIG), Listener()
    result = train_phases(client, *arguments, MORE, tmp_path, {}, heard)
    assert [row["phase"] for row in heard.of("phase")] == [0, 1, 2][phase:]
    resumed_at, told = heard.of("start")[0]["resumed_at_samples"], rows[-1]["samples"]
    lost = 2 * NUM_SAMPLES if phase == 1 else 0  # an iterate is told of before its record
    assert told - lost <= resumed_at <= told + NUM_SAMPLES
    assert result.num_samples >= doomed_phases.CONFIG.num_epochs * NUM_SAMPLES
    ends = [on_disk(last_of(tmp_path, k)) for k in range(3)]
    assert [len(shards) for shards in ends] == [2] * phase + [3] * (3 - phase)
    sums = [torch.cat([shard["squares"] for shard in shards]) for shards in ends]
    assert torch.equal(sums[0], sums[1])
    assert (sums[2] >= sums[1]).all()
    again = train_phases(client, *arguments, MORE, tmp_path, {})
    assert again.already_complete
    assert torch.equal(again.parameters, result.parameters)
