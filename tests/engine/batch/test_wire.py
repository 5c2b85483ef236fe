"""Commands on their way to the shards."""

import json
import math

import pytest

from engine.batch.vector import Combine
from engine.batch.wire import OPERATIONS, from_wire, to_wire
from tests.engine.batch.test_kernels import EVERY


def test_every_command_survives_json():
    assert {type(command) for command in EVERY} == set(OPERATIONS.values())
    for command in EVERY:
        assert from_wire(json.loads(json.dumps(to_wire(command)))) == command


@pytest.mark.parametrize("coefficient", [0.1, 1e-300, -math.pi, 5e-324])
def test_coefficients_survive_json_to_the_last_bit(coefficient):
    command = Combine("x", ((coefficient, "y"),))
    assert from_wire(json.loads(json.dumps(to_wire(command)))) == command


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "combine",
        ["remove", "x"],
        ["combine", "x"],
        ["combine", 1, []],
        ["combine", "x", [["y", 1.0]]],
        ["combine", "x", [[True, "y"]]],
        ["multiply", "x", "y", "z", "w"],
        ["products", "xy", ["z"]],
        ["max_abs", None],
        [["combine"], "x", []],
    ],
)
def test_what_is_not_a_command_is_refused(value):
    with pytest.raises(ValueError, match="not a command"):
        from_wire(value)
