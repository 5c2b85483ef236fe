"""Configurations of batch optimisers that are refused."""

import pytest
from pydantic import TypeAdapter, ValidationError

from engine.batch.config import LbfgsConfig, MultibatchConfig, OptimiserConfig, WolfeConfig


@pytest.mark.parametrize("config", [LbfgsConfig(history_length=3), WolfeConfig(c1=0.1, c2=0.2)])
def test_a_configuration_survives_being_plain_data(config):
    adapter = TypeAdapter(type(config))
    assert adapter.validate_python(adapter.dump_python(config)) == config


def test_the_name_chooses_the_optimiser():
    plain = {"name": "multibatch", "num_samples": 100, "batch_size": 10}
    config = TypeAdapter(OptimiserConfig).validate_python(plain)
    assert config == MultibatchConfig(num_samples=100, batch_size=10)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"name": "lbfgs", "history_lenght": 5}, "history_lenght"),
        ({"name": "lbfgs", "history_length": 0}, "greater than or equal to 1"),
        ({"name": "newton"}, "'lbfgs', 'owlqn', 'conjugate', 'descent', 'multibatch'"),
        ({"name": "owlqn"}, "l1"),
        ({"name": "conjugate", "line_search": {"name": "armijo"}}, "wolfe"),
        ({"name": "lbfgs", "line_search": {"name": "wolfe", "c1": 0.5, "c2": 0.4}}, "c1=0.5"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(plain, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(OptimiserConfig).validate_python(plain)
