"""Update rules against torch's own optimisers, to the last bit."""

import pytest
import torch
from torch import Tensor

from engine.config import AdagradConfig, MomentumConfig, RuleConfig, SgdConfig
from engine.layout import ALIGNMENT, Layout
from engine.rules import make_rule
from engine.torch_optimiser import torch_optimiser
from tests.engine.problems import RULES, rule_name

SIZE = 1000  # so that the last elements fill no vector register
STEPS = 50
PLAIN = (SgdConfig(learning_rate=0.1), MomentumConfig(momentum=0.5), AdagradConfig(epsilon=1e-8))


def gradients(num: int = STEPS, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SIZE, generator=generator) for _ in range(num)]


def start() -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(99))


def by_torch(config: RuleConfig, scale: float = 1.0) -> list[Tensor]:
    values = start()
    optimiser = torch_optimiser(config, [values])
    optimiser.param_groups[0]["lr"] *= scale
    trajectory = []
    for grad in gradients():
        values.grad = grad
        optimiser.step()
        trajectory.append(values.clone())
    return trajectory


def by_rule(config: RuleConfig, parts: list[slice], scale: float = 1.0) -> list[Tensor]:
    """The trajectory when each of `parts` is updated on its own."""
    rule, values = make_rule(config), start()
    slots = [torch.zeros(SIZE) for _ in rule.slots]
    scratch = torch.empty(SIZE)
    trajectory = []
    for step, grad in enumerate(gradients(), 1):
        for part in parts:
            own = [slot[part] for slot in slots]
            rule.apply_(values[part], own, grad[part], scratch[part], scale, step)
        trajectory.append(values.clone())
    return trajectory


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("config", [*RULES, *PLAIN], ids=rule_name)
def test_every_step_is_that_of_torch_to_the_last_bit(config):
    assert same(by_rule(config, [slice(0, SIZE)]), by_torch(config))


@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_a_scale_is_a_factor_on_the_learning_rate(config):
    assert same(by_rule(config, [slice(0, SIZE)], scale=0.25), by_torch(config, scale=0.25))


@pytest.mark.parametrize("config", RULES, ids=rule_name)
@pytest.mark.parametrize("length", [ALIGNMENT, 64, 336])
def test_updating_block_by_block_changes_no_bit(config, length):
    blocks = [slice(i, min(i + length, SIZE)) for i in range(0, SIZE, length)]
    assert same(by_rule(config, blocks), by_rule(config, [slice(0, SIZE)]))


@pytest.mark.parametrize("config", RULES, ids=rule_name)
@pytest.mark.parametrize("num_shards", [1, 2, 3, 10, 63])
def test_the_number_of_shards_changes_no_bit(config, num_shards):
    slices = list(Layout(("all",), ((SIZE,),)).slices(num_shards))
    assert same(by_rule(config, slices), by_torch(config))


@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_the_gradient_is_only_read(config):
    rule, grad = make_rule(config), gradients(1)[0]
    before = grad.clone()
    rule.apply_(start(), [torch.ones(SIZE) for _ in rule.slots], grad, torch.empty(SIZE), 1.0, 1)
    assert torch.equal(grad, before)


def test_the_first_adagrad_step_has_size_gamma():
    values, before = start(), start()
    grad = gradients(1)[0] * 10.0 ** torch.linspace(-3, 3, SIZE)
    rule = make_rule(AdagradConfig(gamma=0.25))
    rule.apply_(values, [torch.zeros(SIZE)], grad, torch.empty(SIZE), 1.0, 1)
    torch.testing.assert_close(values, before - 0.25 * grad.sign(), rtol=1e-6, atol=1e-6)


def test_the_adagrad_rate_is_gamma_over_the_root_of_the_summed_squares():
    values, expected = start().double(), start().double()
    squares, scratch = torch.zeros(SIZE).double(), torch.empty(SIZE).double()
    rule = make_rule(AdagradConfig(gamma=0.25))
    seen = []
    for grad in (grad.double() for grad in gradients(5)):
        seen.append(grad)
        expected -= 0.25 / torch.stack(seen).pow(2).sum(0).sqrt() * grad
        rule.apply_(values, [squares], grad, scratch, 1.0, 1)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


def test_adagrad_takes_no_step_where_every_gradient_was_zero():
    values, before = start(), start()
    rule, squares, scratch = make_rule(AdagradConfig()), torch.zeros(SIZE), torch.empty(SIZE)
    for grad in gradients(3):
        grad[::2] = 0.0
        rule.apply_(values, [squares], grad, scratch, 1.0, 1)
    assert torch.equal(values[::2], before[::2])
    assert (values[1::2] != before[1::2]).all()
    assert torch.isfinite(values).all()
