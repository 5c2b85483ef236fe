"""Fetch and push over real sockets: shared memory and plain sockets give the same bits."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.link import Directory, Refused, RemoteServer, ShardAddress, StoppedError
from engine.push import Applied
from engine.rules import make_rule
from engine.segment import Segment
from tests.engine.problems import RULES, rule_name
from tests.engine.serving import Serving, serving
from tests.engine.shards import apply_, vector

SIZE = 100


@pytest.fixture(params=[True, False], ids=["shared memory", "sockets"])
def link(request, tmp_path) -> Iterator[Serving]:
    """Two shards of a vector of 100 values."""
    with serving(tmp_path, same_host=request.param) as link:
        yield link


def inboxes(folder: Path) -> list[Path]:
    return list(folder.glob("inbox-*"))


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("same_host", [True, False])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_pushes_over_sockets_are_steps_of_the_rule(tmp_path, rule, same_host, num_shards):
    expected, math_rule = vector(SIZE, seed=0), make_rule(rule)
    slots = [torch.zeros(SIZE) for _ in math_rule.slots]
    with serving(tmp_path, rule=rule, same_host=same_host, num_shards=num_shards) as link:
        for sequence in range(1, 6):
            link.segment.gradients[sequence % 2].copy_(vector(SIZE, sequence))
            link.push(sequence, slot=sequence % 2)
            apply_(math_rule, expected, slots, vector(SIZE, sequence), step=sequence)
        versions = link.server.fetch(1)
        assert versions == [5] * num_shards
        assert torch.equal(link.segment.parameters[1], expected)
        assert bool(inboxes(tmp_path)) != same_host  # the path that was meant is the one taken


def test_answers_are_those_of_the_shards(link):
    link.segment.gradients[0].copy_(vector(SIZE, 1))
    assert link.push(1) == [Applied(1, 0, duplicate=False)] * 2
    assert link.push(1) == [Applied(1, 0, duplicate=True)] * 2
    assert link.push(2) == [Applied(2, 1, duplicate=False)] * 2


def test_only_the_shard_that_dislikes_its_slice_refuses(link):
    link.segment.gradients[1].copy_(vector(SIZE, 1))
    link.segment.gradients[1][-1] = math.nan
    accepted, refused = link.push(1, slot=1)
    assert accepted == Applied(1, 0, duplicate=False)
    assert isinstance(refused, Refused)
    assert refused.error == "NonFinitePushError"
    assert "replica 0, push 1: 1 of " in refused.message
    assert [shard.version for shard in link.shards] == [1, 0]


def test_a_fenced_replica_reads_so_in_the_answer(link):
    for shard in link.shards:
        shard.fence(0, 1)
    assert {answer.error for answer in link.push(1)} == {"StaleIncarnationError"}


@pytest.mark.parametrize("shard", [0, 1])
def test_a_lost_reply_to_a_push_leads_to_exactly_one_application(link, shard):
    link.segment.gradients[0].copy_(vector(SIZE, 1))
    link.push(1)
    link.proxies[shard].lose_next_reply()
    answers = link.push(2)
    assert link.proxies[shard].replies_lost == 1
    assert [answer.duplicate for answer in answers] == [k == shard for k in range(2)]
    assert [shard.version for shard in link.shards] == [2, 2]


def test_lost_replies_change_no_bit(tmp_path):
    def trained(folder: Path, lossy: bool) -> torch.Tensor:
        folder.mkdir()
        with serving(folder, same_host=False) as link:
            for sequence in range(1, 8):
                if lossy:
                    link.proxies[sequence % 2].lose_next_reply()
                link.segment.gradients[0].copy_(vector(SIZE, sequence))
                link.push(sequence)
            assert sum(proxy.replies_lost for proxy in link.proxies) == 7 * lossy
            return link.parameters()

    assert torch.equal(trained(tmp_path / "a", lossy=True), trained(tmp_path / "b", lossy=False))


def test_a_lost_reply_to_a_fetch_is_asked_for_again(link):
    link.server.fetch(0)
    link.proxies[1].lose_next_reply()
    assert link.server.fetch(0) == [0, 0]
    assert torch.equal(link.segment.parameters[0], vector(SIZE, seed=0))
    assert link.proxies[1].replies_lost == 1


def test_a_shard_that_moved_is_found_at_its_new_address(link, tmp_path):
    link.segment.gradients[0].copy_(vector(SIZE, 1))
    link.push(1)
    (tmp_path / "new").mkdir()
    with serving(tmp_path / "new") as other:
        link.endpoints[1].close()
        link.proxies[1].close()
        moved = ShardAddress(*other.endpoints[1].address, epoch=2)
        timer = threading.Timer(0.05, link.directory.move, (1, moved))
        timer.start()
        assert link.push(2) == [Applied(2, 1, duplicate=False), Applied(1, 0, duplicate=False)]
        timer.join()
        link.proxies.pop(1)
        link.server.close()


def test_a_replica_that_waits_for_a_dead_shard_can_be_stopped(link):
    link.server.fetch(0)
    link.endpoints[0].close()
    link.proxies.pop(0).close()
    timer = threading.Timer(0.05, link.directory.stop)
    timer.start()
    with pytest.raises(StoppedError, match="stopped while asking for shard 0"):
        link.server.fetch(0)
    timer.join()


def test_a_replica_with_another_number_of_parameters_is_refused(link):
    hello = link.hello | {"size": SIZE + 1}
    stranger = RemoteServer(link.directory, link.segment, hello, link.slices)
    with pytest.raises(ValueError, match=r"shard 0 refused: replica has 101 parameters, .* 100"):
        stranger.fetch(0)
    assert [shard.version for shard in link.shards] == [0, 0]


def test_a_replica_that_reaches_another_shard_than_it_wants_is_refused(link):
    swapped = Directory([ShardAddress(*proxy.address, 1) for proxy in reversed(link.proxies)])
    stranger = RemoteServer(swapped, link.segment, link.hello, link.slices)
    with pytest.raises(ValueError, match=r"shard 0 refused: replica wants shard 0, this is shard"):
        stranger.fetch(0)
    assert [shard.version for shard in link.shards] == [0, 0]


def test_a_file_of_the_same_name_on_another_host_is_not_mistaken_for_the_replicas(tmp_path):
    with serving(tmp_path) as link:
        here = link.segment
        link.segment = Segment(tmp_path / "elsewhere", SIZE, torch.float32, new=True)
        link.segment.path = here.path  # same name and size, other nonce
        server = RemoteServer(link.directory, link.segment, link.hello, link.slices)
        server.fetch(0)
        assert inboxes(tmp_path)
        assert torch.equal(link.segment.parameters[0], vector(SIZE, seed=0))
        assert not here.parameters[0].any()
        server.close()


def test_a_gradient_in_an_inbox_can_be_found_by_a_successor(tmp_path, monkeypatch):
    with serving(tmp_path, same_host=False, num_shards=1) as link:
        shard, seen = link.shards[0], []
        monkeypatch.setattr(shard, "_commit", lambda: seen.append(shard.interrupted()))
        link.segment.gradients[0].copy_(vector(SIZE, 1))
        link.push(1)
        (location,) = seen
        data = Path(location.path).read_bytes()[location.offset :]
        assert data == vector(SIZE, 1).numpy().tobytes()
        assert inboxes(tmp_path) == [Path(location.path)]


def test_a_shard_is_told_the_sum_of_squares_of_the_gradient_that_has_just_arrived(
    tmp_path, monkeypatch
):
    with serving(tmp_path, same_host=False, num_shards=1) as link:
        told, push = [], link.shards[0].push
        monkeypatch.setattr(
            link.shards[0], "push", lambda *given: told.append(given[3]) or push(*given)
        )
        for sequence, value in enumerate((1.0, math.nan, 2.0), start=1):
            link.segment.gradients[0].fill_(value)
            link.push(sequence)
        assert told == [SIZE, pytest.approx(math.nan, nan_ok=True), 4 * SIZE]
        assert link.shards[0].version == 2


def test_inboxes_go_with_their_connections(tmp_path):
    with serving(tmp_path, same_host=False) as link:
        link.push(1)
        assert len(inboxes(tmp_path)) == 2
        link.server.close()
        for _ in range(500):
            if not inboxes(tmp_path):
                break
            threading.Event().wait(0.01)
        assert not inboxes(tmp_path)


def test_an_exchange_pushes_and_brings_back_what_it_changed(link):
    link.segment.gradients[0].copy_(vector(SIZE, 1))
    answers, versions = link.exchange(1, buffer=1)
    assert answers == [Applied(1, 0, duplicate=False)] * 2
    assert versions == [1, 1]
    assert torch.equal(link.segment.parameters[1], link.parameters())
    assert not torch.equal(link.segment.parameters[1], vector(SIZE, seed=0))


@pytest.mark.parametrize("shard", [0, 1])
def test_a_lost_reply_to_an_exchange_leads_to_one_application_and_the_newest_values(link, shard):
    link.segment.gradients[0].copy_(vector(SIZE, 1))
    link.exchange(1, buffer=0)
    link.proxies[shard].lose_next_reply()
    answers, versions = link.exchange(2, buffer=0)
    assert link.proxies[shard].replies_lost == 1
    assert [answer.duplicate for answer in answers] == [k == shard for k in range(2)]
    assert versions == [2, 2]
    assert torch.equal(link.segment.parameters[0], link.parameters())


def test_a_refused_exchange_still_brings_the_parameters(link):
    link.segment.gradients[0].fill_(math.nan)
    answers, versions = link.exchange(1, buffer=0)
    assert {answer.error for answer in answers} == {"NonFinitePushError"}
    assert versions == [0, 0]
    assert torch.equal(link.segment.parameters[0], vector(SIZE, seed=0))


#: Bytes into what a replica sends: the hello's message, a push's head, message and gradient.
PLACES = (50, 10, 60, 1000)


@pytest.mark.parametrize("after", PLACES)
def test_a_flipped_bit_in_a_push_is_noticed_and_the_push_applied_once(tmp_path, after, caplog):
    with serving(tmp_path, size=2000, same_host=False) as link:
        link.segment.gradients[0].copy_(vector(2000, 1))
        if after != PLACES[0]:
            link.push(1)
        link.proxies[1].flip_a_bit_after(after)
        link.segment.gradients[0].copy_(vector(2000, 2))
        answers = link.push(2)
        assert link.proxies[1].bits_flipped == 1
        assert not any(answer.duplicate for answer in answers)
        versions = [shard.version for shard in link.shards]
        assert versions == [2 - (after == PLACES[0])] * 2
        assert "was damaged on its way" in caplog.text


@pytest.mark.parametrize("after", [5, 40, 2000])
def test_a_flipped_bit_in_a_fetch_is_noticed_and_the_fetch_repeated(tmp_path, after):
    with serving(tmp_path, size=2000, same_host=False) as link:
        link.server.fetch(0)
        link.proxies[0].flip_a_bit_after(after, replies=True)
        link.segment.parameters[0].zero_()
        link.server.fetch(0)
        assert link.proxies[0].bits_flipped == 1
        assert torch.equal(link.segment.parameters[0], vector(2000, seed=0))
