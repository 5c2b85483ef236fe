"""The test reader gives every image of a split, whole, in one fixed order."""

import json
import tarfile

import numpy as np
import pytest

from data.decode import decode_rgb
from data.manifest import ManifestError
from data.test_images import TestReader
from tests.data.pictures import images_of


@pytest.mark.parametrize(("split", "num_samples"), [("test", 6), ("train", 46)])
def test_every_image_comes_once_in_the_order_of_the_tars(pets, split, num_samples):
    reader = TestReader(pets, split)
    assert len(reader) == num_samples
    originals = images_of(num_train=23)
    read = iter(reader)
    for path in sorted(pets.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            for name in [name for name in tar.getnames() if name.endswith(".json")]:
                about = json.loads(tar.extractfile(name).read())
                image, label = next(read)
                np.testing.assert_array_equal(image, decode_rgb(originals[about["name"]], 10**6))
                assert ("cat", "dog")[label] == about["class_name"]
    assert next(read, None) is None


def test_reading_again_gives_the_same(pets):
    reader = TestReader(pets)
    first, second = list(reader), list(reader)
    for (image, label), (other_image, other_label) in zip(first, second, strict=True):
        np.testing.assert_array_equal(image, other_image)
        assert label == other_label


def test_the_test_split_is_the_default(pets):
    assert len(TestReader(pets)) == 6


def test_a_folder_that_is_not_staged_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="not staged"):
        TestReader(tmp_path)
