"""Ledger and reader together: each sample exactly once an epoch, whoever reads, whoever dies."""

import random
from collections import Counter

import pytest
from PIL import Image

from data.config import InputConfig
from data.manifest import read_manifest
from data.minibatches import TrainingReader
from data.staging import stage
from engine.ledger import Ledger, Progress
from tests.data.pictures import encoded, write_tree
from tests.data.staged import config_of

NUM_IMAGES, NUM_EPOCHS = 61, 2
INPUT = InputConfig(side_min=9, side_max=9, crop_size=9, colour_shift_std=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Flat images whose red is their number, in 6 tars: fewer than some numbers of readers."""
    root = tmp_path_factory.mktemp("numbered")
    images = {
        f"{split}/{'ab'[i % 2]}/{i}.png": encoded(Image.new("RGB", (9, 9), (i, 0, 0)), "PNG")
        for split in ("train", "test")
        for i in range(NUM_IMAGES)
    }
    return stage(config_of(write_tree(root / "tree", images), samples_per_tar=11), root).folder


class Replica:
    """Reads its leases in small mini-batches; what it has pushed counts."""

    def __init__(self, folder, number):
        self.reader = TrainingReader(folder, INPUT, seed=3)
        self.red = read_manifest(folder).mean_rgb[0]
        self.holder = (number, 0)
        self.lease = None

    def step(self, ledger):
        """One mini-batch: the (epoch, image) pairs in it."""
        if self.lease is None:
            self.lease = ledger.lease(self.holder)
            if self.lease is None:
                return []
            _, epoch, unit, start, stop = self.lease
            self.minibatches = self.reader.minibatches(epoch, unit, start, stop, 3)
            self.upto = start
        images, _ = next(self.minibatches)
        self.upto += len(images)
        lease = self.lease
        ledger.count(self.holder, Progress(lease.id, self.upto))
        if self.upto == lease.stop:
            self.lease = None
        return [(lease.epoch, round(float(image[0].mean()) + self.red)) for image in images]

    def die(self, ledger):
        """In the middle of whatever it does; the next incarnation knows nothing."""
        progress = Progress(self.lease.id, self.upto) if self.lease else None
        ledger.settle(self.holder, progress)
        self.holder = (self.holder[0], self.holder[1] + 1)
        self.lease = None


EXACTLY_ONCE = Counter((epoch, i) for epoch in range(NUM_EPOCHS) for i in range(NUM_IMAGES))


@pytest.mark.parametrize("deaths", [0, 3])
@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5, 8])
def test_each_sample_counts_exactly_once_per_epoch(folder, num_replicas, deaths):
    replicas = [Replica(folder, number) for number in range(num_replicas)]
    ledger = Ledger(replicas[0].reader.tar_sizes, NUM_EPOCHS, lease_size=7, seed=1)
    rng = random.Random(num_replicas)
    seen, num_dead = Counter(), 0
    while not ledger.complete:
        replica = rng.choice(replicas)
        seen.update(replica.step(ledger))
        if num_dead < deaths and replica.lease and rng.random() < 0.2:
            replica.die(ledger)
            num_dead += 1
    assert num_dead == deaths
    assert seen == EXACTLY_ONCE


@pytest.mark.parametrize("stop_after", [1, 17, 60, 61, 100])
def test_a_run_resumed_from_what_counted_reads_only_the_rest(folder, stop_after):
    first, second = Replica(folder, 0), Replica(folder, 1)
    ledger = Ledger(first.reader.tar_sizes, NUM_EPOCHS, lease_size=7, seed=1)
    seen = Counter()
    while seen.total() < stop_after:
        seen.update(first.step(ledger))
    resumed = Ledger(
        first.reader.tar_sizes, NUM_EPOCHS, lease_size=5, seed=1, counted=ledger.counted()
    )
    while not resumed.complete:
        seen.update(second.step(resumed))
    assert seen == EXACTLY_ONCE
