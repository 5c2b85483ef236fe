"""Draws inside a gradient: a seed for each mini-batch, and torch's own generator."""

import torch

from engine.draws import seed_draws, seed_of

PLACE = {"seed": 1, "epoch": 2, "unit": 3, "start": 4}


def test_each_mini_batch_of_each_epoch_and_run_has_a_seed_of_its_own():
    seeds = {
        seed_of(seed, epoch, unit, start) % 2**32  # what torch's generator takes of it
        for seed in (0, 1, 2**40)
        for epoch in range(4)
        for unit in (0, 1, 11)
        for start in (0, 1, 32, 111)
    }
    assert len(seeds) == 3 * 4 * 3 * 4
    assert seed_of(**PLACE) == seed_of(**PLACE)


def test_after_a_seed_torch_draws_what_it_draws_after_manual_seed():
    seed = seed_of(**PLACE)
    assert 0 <= seed < 2**64
    seed_draws(seed)
    drawn = torch.rand(3)
    torch.manual_seed(seed)
    assert torch.equal(drawn, torch.rand(3))
