"""The list of samples: its order is a seed's and a name's, and nobody holds it in memory."""

import hashlib
import pickle
import random
import tracemalloc

import pytest

from data.config import StagingConfig
from data.listing import make_listing, read_listing
from data.plan import BYTES_BESIDE, plan_tars
from data.sources.source import ByteRange, ListedSource, SourceSample
from data.sources.table import SampleTable

NO_LIMITS = {"train": None, "test": None}


def source_of(num_train=300, num_test=30):
    samples = [
        SourceSample(f"{number}.jpg", number % 2, ByteRange("/a.tar", number, 7 + number), "/a.tar")
        for number in range(num_train + num_test)
    ]
    return ListedSource(("cat", "dog"), samples[:num_train], samples[num_train:])


def planned(tmp_path, source, samples_per_tar=70, seed=3, limits=NO_LIMITS):
    tmp_path.mkdir(exist_ok=True)
    listing = make_listing(tmp_path, "state", source, seed, limits)
    return plan_tars(listing, StagingConfig(samples_per_tar=samples_per_tar), tmp_path, tmp_path)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_order_is_that_of_the_digests_of_seed_split_and_name(tmp_path, seed):
    source = source_of()
    plans = planned(tmp_path, source, seed=seed)
    for split in ("train", "test"):
        expected = sorted(
            (sample.name for sample in source.samples(split)),
            key=lambda name: hashlib.sha256(f"{seed}/{split}/{name}".encode()).digest(),
        )
        assert [s.name for plan in plans[split] for s in plan.samples] == expected


def test_the_order_in_which_a_source_lists_does_not_matter(tmp_path):
    source = source_of()
    mixed = random.Random(0).sample(source.train, len(source.train))
    first = planned(tmp_path / "first", source)["train"]
    second = planned(tmp_path / "second", ListedSource(source.class_names, mixed, source.test))
    assert [p.digest for p in first] == [p.digest for p in second["train"]]


def test_a_limit_takes_the_first_of_the_shuffled(tmp_path):
    whole = planned(tmp_path / "whole", source_of())["train"]
    part = planned(tmp_path / "part", source_of(), limits={"train": 100, "test": None})["train"]
    names = [[sample.name for plan in plans for sample in plan.samples] for plans in (whole, part)]
    assert names[1] == names[0][:100]


def test_a_plan_knows_its_tar_s_size_and_keeps_sample_and_image_together(tmp_path):
    for plan in planned(tmp_path, source_of())["train"]:
        samples = plan.samples
        assert len(samples) == plan.num_samples
        of_images = sum(sample.location.num_bytes for sample in samples)
        assert plan.num_bytes == of_images + BYTES_BESIDE * len(samples)
        for sample in samples:
            number = int(sample.name.removesuffix(".jpg"))
            assert sample.location == ByteRange("/a.tar", number, 7 + number)
            assert sample.label == number % 2


def test_a_pickled_plan_is_small_whatever_it_plans(tmp_path):
    source = source_of(num_train=20_000)
    plans = planned(tmp_path, source, samples_per_tar=10_000)["train"]
    assert all(len(pickle.dumps(plan)) < 1000 for plan in plans)
    assert pickle.loads(pickle.dumps(plans[0])).samples == plans[0].samples


def test_a_listing_that_was_made_again_is_read_again(tmp_path):
    make_listing(tmp_path, "one", source_of(), 0, NO_LIMITS)
    assert read_listing(tmp_path).fingerprint == "one"
    make_listing(tmp_path, "two", source_of(), 0, NO_LIMITS)
    assert read_listing(tmp_path).fingerprint == "two"


def peak_bytes(tmp_path, num_samples):
    def samples():
        for number in range(num_samples):
            location = ByteRange("/a.tar", number, 100_000)
            yield SourceSample(f"n{number % 999:08d}_{number}.JPEG", 0, location, "/a.tar")

    tmp_path.mkdir()
    tracemalloc.start()
    try:
        source = ListedSource(("cat", "dog"), SampleTable.of(samples(), tmp_path), [])
        plans = planned(tmp_path, source, samples_per_tar=1000)["train"]
        assert len(plans) == num_samples // 1000
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_sample_takes_fewer_than_64_bytes_of_memory(tmp_path):
    small, large = (peak_bytes(tmp_path / str(count), count) for count in (20_000, 60_000))
    assert 0 < large - small < 64 * 40_000
