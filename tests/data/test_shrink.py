"""Staging with smaller images: sizes, boxes and pixels fit, and nothing else changes."""

import io
import json
import multiprocessing
import tarfile
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image

from data.boxes import Annotation, Box
from data.config import StagingConfig
from data.listing import make_listing
from data.manifest import read_manifest
from data.plan import plan_tars
from data.sources.source import ByteRange, ListedSource, SourceSample
from data.staging import stage
from data.tars import WORK, write_tar
from data.verify import damaged_tars
from tests.data.pictures import contents, encoded, images_of, picture, write_tree
from tests.data.staged import config_of

SIDE = 32


@pytest.fixture
def tree(tmp_path):
    """Small images, and six of other shapes that are larger than SIDE."""
    images = images_of()
    for seed, size in enumerate([(64, 48), (48, 64), (33, 99)]):
        images[f"train/cat/large{seed}.jpg"] = encoded(picture(seed, *size))
        images[f"test/dog/large{seed}.jpg"] = encoded(picture(seed, *size))
    return write_tree(tmp_path / "tree", images)


def samples_in(folder):
    """Name of the original → (bytes, what the JSON says)."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar}
        for name, data in files.items():
            if name.endswith(".json"):
                about = json.loads(data)
                found[about["name"]] = (files[name.replace(".json", ".jpg")], about)
    return found


def test_larger_images_get_the_smallest_side_and_smaller_ones_keep_their_bytes(tree, tmp_path):
    folder = stage(config_of(tree, smallest_side=SIDE), tmp_path).folder
    sizes = {}
    for name, (data, about) in samples_in(folder).items():
        sizes[name] = Image.open(io.BytesIO(data)).size
        assert sizes[name] == (about["width"], about["height"])
        if "large" not in name:
            assert data == (tree / name).read_bytes()
    assert [sizes[f"train/cat/large{n}.jpg"] for n in range(3)] == [(43, 32), (32, 43), (32, 96)]
    assert list(damaged_tars(folder, read_manifest(folder))) == []


def test_the_pixels_are_those_of_the_rescaled_original(tree, tmp_path):
    folder = stage(config_of(tree, smallest_side=SIDE), tmp_path).folder
    data, _ = samples_in(folder)["train/cat/large0.jpg"]
    original = Image.open(tree / "train/cat/large0.jpg")
    wanted = np.asarray(original.resize((43, 32), Image.Resampling.BICUBIC), np.float32)
    assert np.abs(np.asarray(Image.open(io.BytesIO(data))) - wanted).mean() < 2


def test_counts_labels_and_names_are_those_of_the_original_bytes(tree, tmp_path):
    whole = stage(config_of(tree), tmp_path)
    small = stage(config_of(tree, smallest_side=SIDE), tmp_path)
    assert small.folder != whole.folder
    assert small.manifest.class_counts == whole.manifest.class_counts
    assert samples_in(small.folder).keys() == samples_in(whole.folder).keys()
    assert [e.num_samples for e in small.manifest.entries] == [
        e.num_samples for e in whole.manifest.entries
    ]


def test_the_number_of_workers_changes_no_byte(tree, tmp_path):
    def in_two_processes(work, plans):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            yield from pool.map(work, plans)

    config = config_of(tree, smallest_side=SIDE)
    one = stage(config, tmp_path / "one").folder
    two = stage(config, tmp_path / "two", in_two_processes).folder
    assert contents(one) == contents(two)


def test_another_quality_is_another_staging(tree, tmp_path):
    fine = stage(config_of(tree, smallest_side=SIDE), tmp_path)
    coarse = stage(config_of(tree, smallest_side=SIDE, jpeg_quality=20), tmp_path)
    name = "train/cat/large0.jpg"
    assert len(samples_in(coarse.folder)[name][0]) < len(samples_in(fine.folder)[name][0])


def test_boxes_shrink_with_their_image(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(picture(0, 128, 64)))
    (tmp_path / WORK).mkdir()
    boxes = (Box("cat", 10, 20, 128, 64), Box("cat", 0, 0, 5, 5, difficult=True))
    location = ByteRange(str(path), 0, path.stat().st_size)
    sample = SourceSample("image.jpg", 0, location, str(tmp_path), Annotation(128, 64, boxes))
    source = ListedSource(("cat", "dog"), [sample], [])
    listing = make_listing(tmp_path / WORK, "state", source, 0, {"train": None, "test": None})
    config = StagingConfig(smallest_side=SIDE, decode_all=False)
    (plan,) = plan_tars(listing, config, tmp_path, tmp_path / WORK)["train"]
    write_tar(plan)
    _, about = samples_in(tmp_path)["image.jpg"]
    assert (about["width"], about["height"]) == (64, 32)
    assert [box["box"] for box in about["boxes"]] == [[5, 10, 64, 32], [0, 0, 2.5, 2.5]]
    assert about["boxes"][1]["difficult"] is True
