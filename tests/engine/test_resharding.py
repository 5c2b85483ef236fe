"""A run that goes on with another number of shards: what is cut anew, and what is refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from engine import checkpoint
from engine.checkpoint import Checkpoint, CheckpointError, ShardFile
from engine.config import AdagradConfig, SgdConfig
from engine.identity import CheckpointMismatchError
from engine.layout import Layout
from engine.ledger import Range
from engine.problem import Problem
from engine.resharding import cut_anew
from engine.rules import make_rule
from engine.start import begin_from, full_identity, resume_or_begin
from tests.engine.problems import RULES, classifier, rule_name
from tests.engine.test_checkpoint import almost_full_disk

NUMBERS = (1, 2, 3, 4, 5)
COUNTED = (Range(0, 0, 0, 40), Range(1, 2, 8, 24))
Vectors = Mapping[str, torch.Tensor]


def identity(num_shards: int, **other: str) -> dict[str, str]:
    return full_identity({"data": "points"}, classifier(), num_shards, "downpour") | other


def whole_vectors(names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Random parameters and slots of the classifier."""
    generator = torch.Generator().manual_seed(3)
    size = classifier().layout.size
    return {name: torch.randn(size, generator=generator) for name in ("values", *names)}


def left(
    folder: Path,
    vectors: Vectors,
    num_shards: int,
    *,
    versions: Sequence[int] = (),
    final: bool = False,
) -> Checkpoint:
    """Checkpoint 7 of a run that was stopped in its second epoch."""
    partial, shards = checkpoint.partial_folder(folder, 7), []
    for index, part in enumerate(classifier().layout.slices(num_shards)):
        own = {name: vector[part].clone() for name, vector in vectors.items()}
        version = versions[index] if versions else 17
        shards.append(ShardFile(version, checkpoint.write_shard(partial, index, own)))
    return checkpoint.commit(
        folder,
        7,
        identity=identity(num_shards),
        shards=shards,
        counted=COUNTED,
        num_steps=11,
        elapsed_s=1.25,
        final=final,
        keep=2,
    )


def resumed(folder: Path, num_shards: int, *, resharding: bool = True, **other: str) -> Checkpoint:
    problem: Problem = classifier()
    slices = problem.layout.slices(num_shards)
    ours = identity(num_shards, **other)
    return resume_or_begin(folder, ours, problem, SgdConfig(), slices, resharding=resharding)


def together(found: Checkpoint) -> dict[str, torch.Tensor]:
    """Every vector, put together from its shards."""
    parts = [found.read_shard(shard) for shard in range(len(found.shards))]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def facts(found: Checkpoint) -> tuple[object, ...]:
    return found.counted, found.num_steps, found.elapsed_s, found.final


@pytest.mark.parametrize("old", NUMBERS)
@pytest.mark.parametrize("new", NUMBERS)
@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_every_vector_goes_on_to_the_last_bit_and_all_else_as_it_was(tmp_path, rule, old, new):
    vectors = whole_vectors(make_rule(rule).slots)
    before = left(tmp_path, vectors, old)
    start = resumed(tmp_path, new)
    found = together(start)
    assert found.keys() == vectors.keys()
    assert all(torch.equal(found[name], vectors[name]) for name in vectors)
    slices = classifier().layout.slices(new)
    for index, part in enumerate(slices):
        assert start.read_shard(index)["values"].numel() == part.stop - part.start
    assert start.identity == identity(new)
    assert facts(start) == facts(before)
    assert [shard.version for shard in start.shards] == [17] * new
    assert start.id == before.id + (old != new)
    assert resumed(tmp_path, new, resharding=False) == start  # from now on it is of this number


def test_the_checkpoint_it_was_made_of_stays_until_the_next_one(tmp_path):
    before = left(tmp_path, whole_vectors(()), 2)
    start = resumed(tmp_path, 3)
    assert checkpoint.read(before.folder) == before
    (start.folder / "shard-01.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointMismatchError, match="shards: checkpoint 2, this run 3"):
        resumed(tmp_path, 3, resharding=False)
    assert facts(resumed(tmp_path, 3)) == facts(before)


def test_without_the_setting_it_is_refused_by_a_message_that_names_it(tmp_path):
    left(tmp_path, whole_vectors(()), 2)
    with pytest.raises(CheckpointMismatchError) as caught:
        resumed(tmp_path, 3, resharding=False)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  shards: checkpoint 2, this run 3"
    assert lines[-1].startswith("cluster.allow_resharding=true goes on")
    assert [path.name for path in tmp_path.iterdir()] == ["000007"]


@pytest.mark.parametrize("new", [2, 3])
@pytest.mark.parametrize("resharding", [True, False])
@pytest.mark.parametrize("field", ["data", "class_names", "algorithm", "parameters", "units"])
def test_whatever_else_differs_is_refused_with_the_setting_too(tmp_path, field, resharding, new):
    left(tmp_path, whole_vectors(()), 2)
    with pytest.raises(CheckpointMismatchError) as caught:
        resumed(tmp_path, new, resharding=resharding, **{field: "another"})
    text = str(caught.value)
    assert f"  {field}: checkpoint {identity(2).get(field)}, this run another" in text
    assert ("  shards:" in text) == (new == 3 and not resharding)
    assert [path.name for path in tmp_path.iterdir()] == ["000007"]


def test_where_shards_differ_in_version_each_new_one_has_the_lowest_of_its_own(tmp_path):
    left(tmp_path, whole_vectors(()), 3, versions=(17, 16, 18))
    assert [shard.version for shard in resumed(tmp_path, 5).shards] == [17, 17, 16, 16, 18]
    assert [shard.version for shard in resumed(tmp_path, 1).shards] == [16]


def test_a_finished_run_stays_finished(tmp_path):
    final = left(tmp_path, whole_vectors(()), 2, final=True)
    assert resumed(tmp_path, 3) == final
    with pytest.raises(CheckpointMismatchError):
        resumed(tmp_path, 3, resharding=False)


def test_a_full_disk_leaves_what_there_is(tmp_path):
    before = left(tmp_path, whole_vectors(("first", "second")), 2)
    with pytest.raises(OSError, match=r"shard-00.safetensors"), almost_full_disk():
        resumed(tmp_path, 1)
    assert checkpoint.newest(tmp_path, identity(2)) == before
    assert resumed(tmp_path, 1).id == 8


def test_more_shards_than_the_vector_has_lines_are_refused(tmp_path):
    left(tmp_path, whole_vectors(()), 2)
    with pytest.raises(ValueError, match="can be cut into 1 to 6 shards"):
        resumed(tmp_path, 7)


def test_vectors_of_another_length_than_their_slices_are_refused():
    before = Layout(("w",), ((83,),)).slices(2)
    with pytest.raises(CheckpointError, match=r"'values' of shard 0 has 7 elements, want 48"):
        cut_anew(before, slice(0, 16), lambda shard: {"values": torch.zeros(7)})


def test_the_next_phase_begins_with_what_the_last_one_had_on_its_shards(tmp_path):
    before = left(tmp_path / "0", whole_vectors(make_rule(AdagradConfig()).slots), 2)
    begin_from(before, tmp_path / "1", "downpour")
    start = resumed(tmp_path / "1", 3)
    assert all(torch.equal(one, together(before)[name]) for name, one in together(start).items())
    begin_from(before, tmp_path / "1", "downpour", resharding=True)  # it has begun
    assert checkpoint.newest(tmp_path / "1", identity(3)) == start
    with pytest.raises(CheckpointMismatchError, match=r"cluster\.allow_resharding=true"):
        begin_from(before, tmp_path / "1", "downpour")
