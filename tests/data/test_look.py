"""A glance trusts only what begins and ends as a plain JPEG; anything else is decoded."""

import numpy as np
import pytest
from PIL import Image

from data.decode import UndecodableImage, decode_rgb
from data.look import glance_at, look_at
from data.staging import stage
from tests.data.hostile.bombs import jpeg_claiming
from tests.data.pictures import encoded, images_of, picture, write_tree
from tests.data.staged import config_of

CAP = 10**6
JPEG = encoded(picture(0, 60, 40))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_a_look_holds_the_whole_image():
    look = look_at(JPEG, CAP)
    assert (look.width, look.height) == (60, 40)
    np.testing.assert_array_equal(look.image, decode_rgb(JPEG, CAP))


@pytest.mark.parametrize("data", [JPEG, encoded(picture(0, 60, 40).convert("L")), JPEG + bytes(9)])
def test_a_glance_at_a_plain_jpeg_gives_its_size_and_decodes_little_or_nothing(data):
    assert glance_at(data, CAP, with_pixels=False) == (60, 40, None)
    width, height, image = glance_at(data, CAP, with_pixels=True)
    assert (width, height) == (60, 40)
    assert image.shape == (5, 8, 3)


@pytest.mark.parametrize(
    "data",
    [
        encoded(picture(0, 60, 40), "PNG"),
        encoded(picture(0, 60, 40).convert("CMYK")),
        encoded(picture(0, 60, 40), exif=exif(6)),
    ],
)
def test_anything_odd_is_decoded_whole(data):
    look, glance = look_at(data, CAP), glance_at(data, CAP, with_pixels=False)
    assert glance[:2] == look[:2]
    np.testing.assert_array_equal(glance.image, look.image)


@pytest.mark.parametrize("data", [b"", b"<html>", JPEG[:-2], JPEG[:300], JPEG[:20] + JPEG[40:]])
def test_a_glance_refuses_what_a_look_refuses(data):
    for see in (look_at, lambda data, cap: glance_at(data, cap, with_pixels=False)):
        with pytest.raises(UndecodableImage):
            see(data, CAP)


def test_a_glance_refuses_too_many_pixels():
    with pytest.raises(UndecodableImage, match="60x40 = 2400 pixels"):
        glance_at(JPEG, 2399, with_pixels=False)


def test_a_glance_refuses_more_pixels_than_so_few_bytes_can_hold():
    with pytest.raises(UndecodableImage, match="7000x7000 pixels, but only"):
        glance_at(jpeg_claiming(7000, 7000), 10**8, with_pixels=False)


def test_staging_by_glances_differs_in_the_mean_only(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of(num_train=40))
    whole, quick = (
        stage(config_of(tree, samples_per_tar=40, decode_all=decode), tmp_path).manifest
        for decode in (True, False)
    )
    assert [entry.sha256 for entry in quick.entries] == [entry.sha256 for entry in whole.entries]
    assert [entry.side_counts for entry in quick.train] == [e.side_counts for e in whole.train]
    assert quick.train[0].num_pixels < whole.train[0].num_pixels
    np.testing.assert_allclose(quick.mean_rgb, whole.mean_rgb, atol=12)


def test_the_mean_comes_from_few_images_of_the_training_set(tmp_path):
    photograph = encoded(picture(0, 60, 40))
    pixels_seen = 8 * 5  # of one, at an eighth of its size
    names = [f"train/{i % 2}/{i}.jpg" for i in range(600)]
    tree = write_tree(
        tmp_path / "tree", dict.fromkeys([*names, "test/0/0", "test/1/1"], photograph)
    )
    for samples_per_tar, seen in ((600, [8]), (512, [4, 4]), (150, [4, 4, 4, 4])):
        config = config_of(tree, samples_per_tar=samples_per_tar, decode_all=False)
        manifest = stage(config, tmp_path).manifest
        assert [entry.num_pixels for entry in manifest.train] == [n * pixels_seen for n in seen]
        assert [entry.num_pixels for entry in manifest.test] == [0]
