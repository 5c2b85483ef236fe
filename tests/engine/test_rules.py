"""Update rules against torch's own optimisers, to the last bit."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.config import (
    AdagradConfig,
    AdamWConfig,
    MomentumConfig,
    RmspropConfig,
    RuleConfig,
    SgdConfig,
)
from engine.layout import Layout
from engine.rules import make_rule
from engine.rules.arithmetic import fma
from engine.rules.loops import compiled
from engine.rules.rule import ElementwiseRule
from engine.torch_optimiser import torch_optimiser
from tests.engine.problems import RULES, rule_name, use_nearest_roots
from tests.engine.shards import apply_

SIZE = 1003  # so that the last elements fill no vector register
#: torch's fused kernels compute those by themselves and round them otherwise: here they are zeros.
PADDING = 5
STEPS = 50
PLAIN = (
    SgdConfig(learning_rate=0.1),
    MomentumConfig(momentum=0.5),
    AdagradConfig(epsilon=1e-8),
    AdamWConfig(beta1=0.3, weight_decay=0.0),
)
DTYPES = (torch.float32, torch.float64)


def gradients(num: int = STEPS, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SIZE, generator=generator, dtype=dtype) for _ in range(num)]


def start(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(99), dtype=dtype)


@pytest.fixture
def nearest_roots(monkeypatch):
    use_nearest_roots(monkeypatch)


def by_torch(
    config: RuleConfig, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    values = torch.cat([start(dtype), torch.zeros(PADDING, dtype=dtype)])
    optimiser = torch_optimiser(config, [values])
    optimiser.param_groups[0]["lr"] *= scale
    trajectory = []
    for grad in gradients(dtype=dtype):
        values.grad = torch.cat([grad, torch.zeros(PADDING, dtype=dtype)])
        optimiser.step()
        trajectory.append(values[:SIZE].clone())
    return trajectory


def by_rule(
    config: RuleConfig,
    parts: list[slice],
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """The trajectory when each of `parts` is updated on its own."""
    rule, values = make_rule(config), start(dtype)
    slots = [torch.zeros(SIZE, dtype=dtype) for _ in rule.slots]
    trajectory = []
    for step, grad in enumerate(gradients(dtype=dtype), 1):
        for part in parts:
            apply_(rule, values[part], [slot[part] for slot in slots], grad[part], scale, step)
        trajectory.append(values.clone())
    return trajectory


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.usefixtures("nearest_roots")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("config", [*RULES, *PLAIN], ids=rule_name)
def test_every_step_is_that_of_torch_to_the_last_bit(config, dtype):
    ours = by_rule(config, [slice(0, SIZE)], dtype=dtype)
    assert same(ours, by_torch(config, dtype=dtype))


@pytest.mark.usefixtures("nearest_roots")
@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_a_scale_is_a_factor_on_the_learning_rate(config):
    assert same(by_rule(config, [slice(0, SIZE)], scale=0.25), by_torch(config, scale=0.25))


def test_rmsprop_with_torchs_own_roots_differs_by_their_rounding():
    config = RmspropConfig()
    ours, theirs = by_rule(config, [slice(0, SIZE)]), by_torch(config)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("config", RULES, ids=rule_name)
@pytest.mark.parametrize("length", [7, 64, 336])
def test_updating_block_by_block_changes_no_bit(config, length):
    blocks = [slice(i, min(i + length, SIZE)) for i in range(0, SIZE, length)]
    assert same(by_rule(config, blocks), by_rule(config, [slice(0, SIZE)]))


@pytest.mark.parametrize("config", RULES, ids=rule_name)
@pytest.mark.parametrize("num_shards", [2, 3, 10, 63])
def test_the_number_of_shards_changes_no_bit(config, num_shards):
    slices = list(Layout(("all",), ((SIZE,),)).slices(num_shards))
    assert same(by_rule(config, slices), by_rule(config, [slice(0, SIZE)]))


@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_the_gradient_is_only_read(config):
    rule, grad = make_rule(config), gradients(1)[0]
    before = grad.clone()
    apply_(rule, start(), [torch.ones(SIZE) for _ in rule.slots], grad)
    assert torch.equal(grad, before)


@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_a_compiled_formula_does_what_python_makes_of_it(config):
    rule = make_rule(config)
    assert isinstance(rule, ElementwiseRule)
    values, slots, grad = start(torch.float64), [start(torch.float64)] * len(rule.slots), start()
    grad, slots = grad.double() / 3, [slot.square() for slot in slots]
    constants = rule.constants(np.dtype(np.float64), 1.0, 3)
    columns = torch.stack([values, *slots, grad], 1).tolist()
    expected = [rule.formula(*column, *constants) for column in columns]
    apply_(rule, values, slots, grad, step=3)
    assert torch.stack([values, *slots], 1).tolist() == [list(row) for row in expected]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fused_product_is_rounded_once(dtype):
    def formula(value: float, grad: float, other: float) -> tuple[float]:
        return (fma(grad, other, value),)

    x, z = 1.0 + torch.finfo(dtype).eps, -1.0
    number = np.dtype(torch.finfo(dtype).dtype)
    vectors, grad = np.array([[z]], number), np.array([x], number)
    undo, marks = np.empty((2, 1, 1), number), np.empty(2, np.int64)
    update = compiled(formula, 0, 1, number)
    update((number.type(x),), vectors, grad, undo, marks, 1, 1, 0, 1)
    assert vectors[0, 0] == fma(x, x, z) == 2 * torch.finfo(dtype).eps + torch.finfo(dtype).eps ** 2


def sweep_of(config: RuleConfig) -> str:
    """What a rule's loop is compiled to, without what Python calls it by."""
    rule = make_rule(config)
    assert isinstance(rule, ElementwiseRule)
    num_constants = len(rule.constants(np.dtype(np.float32), 1.0, 1))
    loop = compiled(rule.formula, len(rule.slots), num_constants, np.dtype(np.float32))
    (llvm,) = loop.inspect_llvm().values()
    return llvm.split("\ndefine ")[1]


@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_loops_in_float32_compute_nothing_in_float64_and_use_vector_registers(config):
    body = sweep_of(config)
    assert re.search(r"<\d+ x float>", body)
    assert "double" not in body


@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_no_compiler_moves_anything_across_the_stores_that_a_successor_goes_by(config):
    """Fences that concern this thread alone are no instruction, but compilers keep to them."""
    found = re.findall(
        r'fence syncscope\("singlethread"\) seq_cst|store atomic i64', sweep_of(config)
    )
    fence, store = 'fence syncscope("singlethread") seq_cst', "store atomic i64"
    assert found == [fence, store, fence, store, fence]


def test_who_makes_a_rule_does_not_import_numba():
    code = "import sys, engine.replica_role, engine.shard_role; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_first_adagrad_step_has_size_gamma():
    values, before = start(), start()
    grad = gradients(1)[0] * 10.0 ** torch.linspace(-3, 3, SIZE)
    rule = make_rule(AdagradConfig(gamma=0.25))
    apply_(rule, values, [torch.zeros(SIZE)], grad)
    torch.testing.assert_close(values, before - 0.25 * grad.sign(), rtol=1e-6, atol=1e-6)


def test_the_adagrad_rate_is_gamma_over_the_root_of_the_summed_squares():
    values, expected = start().double(), start().double()
    squares = torch.zeros(SIZE).double()
    rule = make_rule(AdagradConfig(gamma=0.25))
    seen = []
    for grad in (grad.double() for grad in gradients(5)):
        seen.append(grad)
        expected -= 0.25 / torch.stack(seen).pow(2).sum(0).sqrt() * grad
        apply_(rule, values, [squares], grad)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)


def test_adagrad_takes_no_step_where_every_gradient_was_zero():
    values, before = start(), start()
    rule, squares = make_rule(AdagradConfig()), torch.zeros(SIZE)
    for grad in gradients(3):
        grad[::2] = 0.0
        apply_(rule, values, [squares], grad)
    assert torch.equal(values[::2], before[::2])
    assert (values[1::2] != before[1::2]).all()
    assert torch.isfinite(values).all()
