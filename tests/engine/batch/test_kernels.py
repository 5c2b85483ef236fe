"""Commands on vectors, whole and in slices."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.batch.kernels import carry_out, merge
from engine.batch.local import LocalStore
from engine.batch.stacks import BLOCK
from engine.batch.vector import (
    Align,
    Combine,
    Command,
    KeepSigns,
    MaxAbs,
    Multiply,
    Orthant,
    Products,
    PseudoGradient,
    SumAbs,
    check_replayable,
    copy,
    dot,
    num_scalars,
)

EVERY: tuple[Command, ...] = (
    Combine("sum", ((0.5, "x"), (-2.0, "y"))),
    Combine("zero", ()),
    Multiply("product", "x", "y"),
    PseudoGradient("pseudo", "x", "y", 0.7),
    Orthant("orthant", "x", "pseudo"),
    Align("aligned", "y", "x", "pseudo"),
    KeepSigns("kept", "y", "x"),
    Products(("x", "sum"), ("x", "y", "kept")),
    SumAbs("pseudo"),
    MaxAbs("sum"),
)


def vectors(size: int, seed: int = 0) -> dict[str, Tensor]:
    """x and y of small whole numbers, with many zeros: sums of them have no rounding."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randint(-2, 3, (2, size), generator=generator).double()
    return {"x": x, "y": y}


def by_elements(x: float, y: float) -> dict[str, float]:
    """What `EVERY` writes for one element, case by case."""
    sign = (x > 0) - (x < 0)
    if x:
        pseudo = y + 0.7 * sign
    elif y > 0.7:
        pseudo = y - 0.7
    elif y < -0.7:
        pseudo = y + 0.7
    else:
        pseudo = 0.0
    return {
        "sum": x / 2 - 2 * y,
        "zero": 0.0,
        "product": x * y,
        "pseudo": pseudo,
        "orthant": sign if x else (pseudo < 0) - (pseudo > 0),
        "aligned": y if x or y * pseudo < 0 else 0.0,
        "kept": y if (y > 0 and x > 0) or (y < 0 and x < 0) else 0.0,
    }


def test_every_command_does_what_it_says_element_by_element():
    store = LocalStore(**vectors(500))
    scalars = store.run(EVERY)
    elements = zip(store.vectors["x"].tolist(), store.vectors["y"].tolist(), strict=True)
    expected = [by_elements(x, y) for x, y in elements]
    for name in expected[0]:
        assert store.vectors[name].tolist() == pytest.approx([e[name] for e in expected])
    dense = {name: vector.tolist() for name, vector in store.vectors.items()}
    products = [
        sum(p * q for p, q in zip(dense[a], dense[b], strict=True))
        for a in ("x", "sum")
        for b in ("x", "y", "kept")
    ]
    rest = [sum(map(abs, dense["pseudo"])), max(map(abs, dense["sum"]))]
    assert scalars == pytest.approx([*products, *rest])


def on_shards(commands: Sequence[Command], cuts: Sequence[int], whole: dict[str, Tensor]):
    """Carry out a batch on slices; the scalars, and the slices put together again."""
    bounds = [0, *cuts, len(whole["x"])]
    slices = [
        {name: vector[a:b].clone() for name, vector in whole.items()} for a, b in pairwise(bounds)
    ]
    shares = []
    for shard in slices:
        targets = [c.target for c in commands if not num_scalars(c)]
        shard.update({target: torch.empty_like(shard["x"]) for target in targets})
        shares.append([scalar for c in commands for scalar in carry_out(c, shard)])
    names = slices[0]
    return merge(commands, shares), {n: torch.cat([shard[n] for shard in slices]) for n in names}


@given(
    cuts=st.lists(st.integers(1, 299), unique=True, max_size=6).map(sorted),
    seed=st.integers(0, 1000),
)
def test_shards_together_give_what_one_store_gives(cuts, seed):
    whole = vectors(300, seed)
    store = LocalStore(**whole)
    expected = store.run(EVERY)
    scalars, joined = on_shards(EVERY, cuts, whole)
    assert scalars == pytest.approx(expected, rel=1e-14)
    for name, vector in store.vectors.items():
        assert torch.equal(joined[name], vector)


def test_a_batch_carried_out_again_changes_nothing():
    store = LocalStore(**vectors(100))
    scalars = store.run(EVERY)
    before = {name: vector.clone() for name, vector in store.vectors.items()}
    store.run(EVERY[:6])  # interrupted
    assert store.run(EVERY) == scalars
    assert all(torch.equal(before[name], vector) for name, vector in store.vectors.items())


@pytest.mark.parametrize(
    "batch",
    [
        (Combine("x", ((1.0, "x"),)),),
        (dot("x", "y"), copy("x", "y")),
        (copy("z", "x"), copy("y", "z"), copy("x", "y")),
    ],
)
def test_a_batch_that_could_not_be_carried_out_again_is_refused(batch):
    with pytest.raises(ValueError, match="could not be carried out again"):
        check_replayable(batch)


def test_a_batch_that_reads_an_unknown_vector_changes_nothing():
    store = LocalStore(**vectors(10))
    with pytest.raises(KeyError, match=r"reads \['nowhere'\], the store has \['x', 'y', 'z'\]"):
        store.run((copy("z", "x"), dot("z", "nowhere")))
    assert set(store.vectors) == {"x", "y"}


def test_sums_of_single_precision_vectors_are_accumulated_in_double_precision():
    x = torch.full((3 * BLOCK + 5,), 0.1)
    exact = len(x) * float(x[0])
    assert LocalStore(x=x).run((SumAbs("x"),))[0] == pytest.approx(exact, rel=1e-13)
    square = LocalStore(x=x).run((dot("x", "x"),))[0]
    # BLAS adds in as many lanes as the processor has: 2e-13 off on some. In single precision 1e-4.
    assert square == pytest.approx(exact * float(x[0]), rel=1e-12)


def test_a_nan_is_the_largest_absolute_value_whichever_shard_has_it():
    for position in (0, 99):
        whole = vectors(100)
        whole["x"][position] = math.nan
        scalars, _ = on_shards((MaxAbs("x"),), [50], whole)
        assert math.isnan(scalars[0])
