"""A replica talks only to the shards that hold the tensors that it works on."""

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import checkpoint
from engine.config import AdagradConfig, ClipConfig, DownpourConfig
from engine.gate import Gate
from engine.inprocess import train_in_process
from engine.layout import ALIGNMENT, Layout
from engine.ledger import Progress
from engine.link import RemoteServer
from engine.partition import shards_by_replica
from engine.push import Push
from engine.replay import replay
from tests.engine.problems import NUM_SAMPLES, Ensemble, Members, classifier, ensemble
from tests.engine.rows import Meddler, When
from tests.engine.serving import serving
from tests.engine.shards import vector
from tests.engine.threaded import threaded_run

#: 166 parameters, cut at 32, 80 and 128: member 0 ends in the third shard.
NUM_SHARDS = 4
SHARDS_OF = ((0, 1, 2), (2, 3))


class Misnamed(Ensemble):
    """Asks for what is not there."""

    def tensors_of(self, replica: int) -> list[str]:
        return ["members.0.0.weight", "members.9.0.weight"] if replica else self.layout.names[:1]


class Empty(Ensemble):
    """Leaves one replica without work."""

    def tensors_of(self, replica: int) -> list[str]:
        return [] if replica else self.layout.names[:1]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.data())
def test_the_shards_of_tensors_are_those_that_hold_an_element_of_one(sizes, data):
    layout = Layout(tuple(map(str, range(len(sizes)))), tuple((size,) for size in sizes))
    if not layout.size:
        return
    slices = layout.slices(data.draw(st.integers(1, -(-layout.size // ALIGNMENT))))
    names = data.draw(st.sets(st.sampled_from(layout.names)))
    first = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    elements = {
        i
        for name, (start, stop) in zip(layout.names, pairwise(first), strict=True)
        if name in names
        for i in range(start, stop)
    }
    held = tuple(k for k, s in enumerate(slices) if elements & set(range(s.start, s.stop)))
    assert layout.shards_of(names, slices) == held


def test_replicas_of_an_ensemble_talk_to_the_shards_of_their_member():
    problem = ensemble()
    slices = problem.layout.slices(NUM_SHARDS)
    assert shards_by_replica(problem, 3, slices) == (*SHARDS_OF, SHARDS_OF[0])
    assert shards_by_replica(classifier(), 2, slices) == ((0, 1, 2, 3),) * 2


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            Misnamed,
            r"tensors_of\(1\) names members.9.0.weight: the layout has members.0.0.weight, ",
        ),
        (Empty, r"tensors_of\(1\) gives no parameter: want a tensor or more"),
    ],
)
def test_a_partition_of_nothing_is_refused(kind, message):
    problem = classifier(Members(), kind)
    with pytest.raises(ValueError, match=message):
        train_in_process(problem, config(), num_replicas=2, num_shards=NUM_SHARDS)


@pytest.mark.parametrize("same_host", [True, False])
def test_a_link_to_some_of_the_shards_does_not_touch_the_others(tmp_path, same_host):
    with serving(tmp_path, size=100, num_shards=3, same_host=same_host) as link:
        server = RemoteServer(link.directory, link.segment, link.hello, link.slices, (0, 2))
        before, untouched = link.parameters(), link.slices[1]
        link.segment.parameters[0].zero_()
        link.segment.gradients[0].copy_(vector(100, seed=1))
        pushes = [Push(0, 1, n, 0, Progress(1, n), 1.0) for n in (1, 2)]
        assert server.fetch(0) == [0, 0]
        fetched = link.segment.parameters[0].clone()
        applied = server.push(0, [pushes[0]] * 2)
        assert [answer.version for answer in applied] == [1, 1]
        answers, versions = server.exchange(0, [pushes[1]] * 2, 1)
        assert versions == [answer.version for answer in answers] == [2, 2]
        server.close()
        assert [shard.version for shard in link.shards] == [2, 0, 2]
        assert link.proxies[1].passed == b""
        assert not fetched[untouched].any()
        for k in (0, 2):
            part = link.slices[k]
            assert torch.equal(fetched[part], before[part])
            assert torch.equal(link.segment.parameters[1][part], link.parameters()[part])


def config(**changed) -> DownpourConfig:
    fields = {"minibatch_size": 4, "num_epochs": 20, "validate_every_epochs": 99.0}
    return DownpourConfig(**fields | changed)


def test_only_a_replicas_own_tensors_change():
    problem = classifier(Members(), Ensemble)
    result = train_in_process(problem, config(), num_replicas=1, num_shards=NUM_SHARDS)
    before, after = problem.layout.views(problem.initial()), problem.layout.views(result.parameters)
    changed = {name for name, view in after.items() if not torch.equal(view, before[name])}
    assert changed == set(problem.tensors_of(0))
    assert result.versions[2] == result.versions[0] > result.versions[3] == 0


def test_a_run_of_partitions_survives_losses_and_is_repeated_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.replica_role._REPORT_S", 0.05)
    monkeypatch.setattr("engine.training._TICK_S", 0.02)
    settings = config(
        rule=AdagradConfig(gamma=0.1),
        clip=ClipConfig(max_norm=1.0),
        record=True,
        keep_checkpoints=999,
        checkpoint_every_s=0.05,
        max_checkpoint_share=1.0,
    )
    heard = Meddler(
        When("progress", 2, lambda row: run.hang_up_on("replica", 1)),
        When("progress", 3, lambda row: run.hang_up_on("shard", 2)),
        When("shard_lost", None, lambda row: run.start_shard(row["shard"])),
    )
    roles = {"num_replicas": 3, "num_shards": NUM_SHARDS, "factory": ensemble}
    with threaded_run(tmp_path, settings, heard, **roles) as run:
        run.start_all()
        final = run.drive()
    assert heard.of("replica_lost")
    assert heard.of("shard_lost")
    assert len(heard.of("checkpoint")) > 1
    assert final.num_counted == settings.num_epochs * NUM_SAMPLES

    record = tmp_path / "record" / "000000"
    for shard, replicas in enumerate(((0, 2), (0, 2), (0, 1, 2), (1,))):
        lines = (record / f"shard-{shard:02d}.jsonl").read_text().splitlines()
        assert {json.loads(line)[2] for line in lines} == set(replicas)
    start = checkpoint.read(tmp_path / "checkpoints" / "000000")
    vectors = [(start.read_shard(k), 0) for k in range(NUM_SHARDS)]
    versions = [shard.version for shard in final.shards]
    again = replay(ensemble(), settings, record, vectors, versions)
    assert torch.equal(again, final.read_parameters())


def test_a_snapshot_waits_for_no_push_that_a_shard_will_never_get(tmp_path, monkeypatch):
    cuts: dict[int, set[int]] = {}  # gate -> replicas
    wait_for_cut = Gate.wait_for_cut

    def noted(self, cut):
        cuts.setdefault(id(self), set()).update(replica for replica, _ in cut)
        return wait_for_cut(self, cut)

    monkeypatch.setattr(Gate, "wait_for_cut", noted)
    monkeypatch.setattr("engine.training._TICK_S", 0.02)
    roles = {"num_replicas": 2, "num_shards": NUM_SHARDS, "factory": ensemble}
    settings = config(checkpoint_every_s=0.05, max_checkpoint_share=1.0)
    with threaded_run(tmp_path, settings, Meddler(), **roles) as run:
        run.start_all()
        run.drive()
    assert sorted(map(sorted, cuts.values())) == [[0], [0], [0, 1], [1]]
