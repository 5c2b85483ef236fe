"""What the driver says to whom, and when; shards and replicas answer at once."""

import time
from collections import deque
from unittest.mock import Mock

from engine.config import ClusterConfig
from engine.coordinator_server import Heard
from engine.frames import Message
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.coordinator import Coordinator
from engine.sandblaster.driver import Driver
from engine.sandblaster.portions import cut_data

SHARD, REPLICA = 1, 2


class Wire:
    """In place of the coordinator's server: what was sent, and the answers to it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._answers: deque[Heard] = deque()

    def send(self, peer: int, message: Message) -> None:
        self.sent.append(message["op"])
        match message["op"]:
            case "commands":
                answer = {"op": "answered", "request": message["request"], "scalars": []}
            case "keep":
                answer = {"op": "kept", "keeping": message["keeping"], "kept": {}}
            case "work":
                fields = {name: message[name] for name in ("work", "evaluation")}
                times = {"took_s": 1.0, "computing_s": 1.0, "waiting_s": 0.0}
                answer = {"op": "sum", "slot": 0, "losses": [1.0]} | fields | times
            case _:
                return
        self._answers.append(Heard(peer, answer))

    def next_event(self, _wait_s: float) -> Heard:
        return self._answers.popleft()


def connected() -> tuple[Driver, Wire]:
    """A driver, with one shard and one replica on its wire."""
    config = SandblasterConfig(minibatch_size=1, max_bundle=1)
    cluster = ClusterConfig(num_replicas=1, num_shards=1)
    coordinator = Coordinator(cut_data([2], 1), config, cluster, checkpoint="", epoch=1)
    wire = Wire()
    driver = Driver(wire, Mock(), coordinator, Mock(), check_roles=Mock())
    process, now = {"pid": 0, "worker": "", "index": 0}, time.monotonic()
    coordinator.hear(SHARD, {"op": "hello", "role": "shard"} | process, now)
    serving = {"op": "serving", "host": "", "port": 0, "version": 0}
    coordinator.hear(SHARD, serving | {"restored_from": "checkpoint"}, now)
    coordinator.hear(REPLICA, {"op": "hello", "role": "replica"} | process, now)
    return driver, wire


def test_shards_write_once_the_replicas_have_work_and_the_driver_tells_when_they_have():
    driver, wire = connected()
    done = Mock()
    for number in (1, 2):
        driver.keep("folder", ["x0"], done)
        driver.run([])
        assert "keep" not in wire.sent
        assert driver.evaluate("x1", "g1", None) == 1.0
        assert wire.sent.index("work") < wire.sent.index("keep")
        driver.settle()
        assert done.call_count == number
        wire.sent.clear()


def test_what_is_to_be_kept_is_kept_before_anything_else_is_and_at_the_end():
    driver, wire = connected()
    done = Mock()
    driver.keep("first", ["x0"], done)
    driver.keep("second", ["x1"], done)
    assert done.call_count == 1
    driver.settle()
    assert done.call_count == 2
    assert wire.sent == ["keep", "keep"]
