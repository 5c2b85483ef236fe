"""Queues between a nanny and its worker: what Dask asks of multiprocessing's."""

from queue import Empty

import dask
import pytest
from distributed.utils import get_mp_context

from tasks.cluster import SETTINGS
from tasks.pipe_queue import PipeQueue


@pytest.fixture
def queue():
    with dask.config.set(SETTINGS):
        yield PipeQueue()


def test_messages_come_in_their_order(queue):
    queue.put({"op": "stop"})
    queue.put(None)
    assert queue.get() == {"op": "stop"}
    assert queue.get_nowait() is None
    with pytest.raises(Empty):
        queue.get_nowait()


def test_a_closed_one_takes_no_more_and_gives_what_it_has(queue):
    queue.put("last")
    queue.close()
    queue.join_thread()
    with pytest.raises(ValueError, match="closed"):
        queue.put("too late")
    assert queue.get() == "last"


def test_a_process_from_the_fork_server_has_its_own_end(queue):
    answers = PipeQueue()
    process = get_mp_context().Process(target=echo, args=(queue, answers))
    process.start()
    queue.put("over there")
    assert answers.get() == "over there"
    process.join(30)
    assert process.exitcode == 0


def test_what_a_dead_process_has_said_is_still_there(queue):
    process = get_mp_context().Process(target=queue.put, args=("x" * 4000,))
    process.start()
    process.join(30)
    assert queue.get_nowait() == "x" * 4000


def echo(queue, answers) -> None:
    answers.put(queue.get())
