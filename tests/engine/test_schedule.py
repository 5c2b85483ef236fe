"""The learning-rate schedule, and the configuration that describes a run."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler as optim

from engine.config import ClusterConfig, DownpourConfig, ScheduleConfig
from engine.schedule import scale_at

DROPS = ScheduleConfig(drop_at=(0.5, 0.75), drop_by=(10.0, 4.0))


@pytest.mark.parametrize(
    ("fraction", "scale"),
    [(0.0, 1.0), (0.49, 1.0), (0.5, 0.1), (0.74, 0.1), (0.75, 0.025), (1.0, 0.025)],
)
def test_the_rate_drops_at_each_fraction_by_its_divisor(fraction, scale):
    assert scale_at(DROPS, fraction) == pytest.approx(scale)


def test_without_a_schedule_the_rate_never_changes():
    assert {scale_at(ScheduleConfig(), i / 10) for i in range(11)} == {1.0}


def rates_of_torch(scheduler_class, num_steps: int, **options) -> list[float]:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = scheduler_class(optimiser, **options)
    rates = []
    for _ in range(num_steps):
        rates += scheduler.get_last_lr()
        optimiser.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "scheduler", "options"),
    [
        (DROPS, optim.MultiStepLR, {"milestones": [50], "gamma": 0.1}),
        ({"anneal": "cosine"}, optim.CosineAnnealingLR, {"T_max": 100}),
        ({"anneal": "linear"}, optim.LinearLR, {"start_factor": 1, "end_factor": 0}),
        ({"warm_up": 0.4}, optim.LinearLR, {"start_factor": 0.1}),
    ],
)
def test_the_rates_are_those_of_the_scheduler_of_torch(schedule, scheduler, options):
    if scheduler is optim.LinearLR:
        options = options | {"total_iters": 40 if "warm_up" in schedule else 100}
    num_steps = 75 if schedule is DROPS else 100
    ours = schedule if schedule is DROPS else ScheduleConfig(**schedule)
    rates = [scale_at(ours, step / 100) for step in range(num_steps)]
    assert rates == pytest.approx(rates_of_torch(scheduler, num_steps, **options), rel=1e-6)


def test_the_parts_of_a_schedule_are_the_whole_one():
    whole = ScheduleConfig(drop_at=(0.3, 0.8), drop_by=(10.0, 4.0), anneal="cosine", warm_up=0.4)
    for step in range(100):
        part = (0.0, 0.25) if step < 25 else (0.25, 1.0)
        within = (step / 100 - part[0]) / (part[1] - part[0])
        found = scale_at(replace(whole, part=part), within)
        assert found == pytest.approx(scale_at(whole, step / 100))


@pytest.mark.parametrize("part", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.5)])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(ValidationError, match="want two rising fractions"):
        ScheduleConfig(part=part)


def test_drops_and_annealing_multiply():
    both = ScheduleConfig(drop_at=(0.5,), drop_by=(4.0,), anneal="linear", warm_up=0.8)
    assert scale_at(both, 0.6) == pytest.approx(0.4 / 4 * (0.1 + 0.9 * 0.75))


@pytest.mark.parametrize(
    ("drop_at", "drop_by", "message"),
    [
        ((0.5,), (), "drop_at has 1 entries, drop_by 0"),
        ((0.75, 0.5), (10, 10), "want rising fractions"),
        ((0.0,), (10,), "between 0 and 1"),
        ((1.0,), (10,), "between 0 and 1"),
        ((0.5,), (0.0,), "want divisors above 0"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(drop_at, drop_by, message):
    with pytest.raises(ValidationError, match=message):
        ScheduleConfig(drop_at=drop_at, drop_by=drop_by)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "0.0.0.0"}, "host=0.0.0.0: only loopback"),
        ({"heartbeat_interval_s": 3.0}, "below three times heartbeat_interval_s=3.0"),
        ({"num_replicas": 0}, "num_replicas"),
        ({"num_shards": 0}, "num_shards"),
        ({"shards": 2}, "shards"),
    ],
)
def test_a_cluster_that_cannot_work_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ClusterConfig(**values)


@pytest.mark.parametrize("field", ["n_fetch", "n_push", "minibatch_size", "num_epochs", "prefetch"])
def test_counts_start_at_one(field):
    with pytest.raises(ValidationError, match=field):
        DownpourConfig(**{field: 0})


def test_the_rule_is_chosen_by_its_name():
    config = DownpourConfig(rule={"name": "adagrad", "gamma": 0.5})
    assert (config.rule.name, config.rule.gamma) == ("adagrad", 0.5)
    with pytest.raises(ValidationError, match="momentum"):
        DownpourConfig(rule={"name": "sgd", "momentum": 0.9})
