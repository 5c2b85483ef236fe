"""Odd images are decoded by the stated rules or refused with a reason."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from data.decode import FAST_SCALES, UndecodableImage, decode_rgb, file_extension, smallest_scale
from tests.data.pictures import encoded, picture

CAP = 1_000_000


def decoded(image, kind="PNG", **options):
    return decode_rgb(encoded(image, kind, **options), CAP)


def test_a_plain_jpeg_is_what_pillow_makes_of_it():
    data = encoded(picture(0))
    ours = decode_rgb(data, CAP)
    theirs = np.asarray(Image.open(io.BytesIO(data)))
    assert ours.shape == (16, 20, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_come_back_exactly(kind):
    np.testing.assert_array_equal(decoded(picture(1), kind), np.asarray(picture(1)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_other_formats_come_back_nearly(kind):
    flat = Image.new("RGB", (8, 8), (200, 100, 50))
    assert np.abs(decoded(flat, kind).astype(int) - [200, 100, 50]).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_becomes_three_equal_channels(kind):
    rgb = decoded(picture(2).convert("L"), kind)
    assert rgb.shape == (16, 20, 3)
    assert (rgb[..., :1] == rgb).all()


def test_cmyk_jpeg_is_converted():
    rgb = decoded(Image.new("RGB", (8, 8), (200, 100, 50)).convert("CMYK"), "JPEG")
    assert np.abs(rgb.astype(int) - [200, 100, 50]).max() <= 6


def test_png_under_a_jpeg_name_is_told_by_its_bytes():
    data = encoded(picture(3), "PNG")
    assert file_extension(data) == "png"
    np.testing.assert_array_equal(decode_rgb(data, CAP), np.asarray(picture(3)))


def test_palette_is_looked_up():
    palette = picture(4).quantize(16)
    np.testing.assert_array_equal(decoded(palette), np.asarray(palette.convert("RGB")))


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    assert decoded(image).tolist() == [[[255, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert decoded(Image.fromarray(values), kind)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_rgb_is_scaled_not_clipped():
    values = np.array([[[0, 0x1234, 0xFFFF]]], ">u2")
    assert decode_rgb(png_of_16_bit_rgb(values), CAP).tolist() == [[[0, 0x12, 255]]]


def png_of_16_bit_rgb(values):
    height, width, _ = values.shape

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_floating_point_pixels_are_refused():
    data = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(UndecodableImage, match="floating-point"):
        decode_rgb(data, CAP)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(5), kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    ours = decode_rgb(data, CAP)
    assert ours.shape == ((16, 20, 3) if orientation < 5 else (20, 16, 3))
    assert np.abs(ours.astype(int) - upright).max() <= 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty: 0 bytes"),
        (b"<html>404</html>", "no image of a known format"),
        (b"\xff\xd8\xff\xe0 no jpeg at all", "cannot be decoded"),
        (encoded(picture(0, 200, 200))[:-2], "truncated"),  # no end mark
        (encoded(picture(0, 200, 200))[:2000], "truncated"),
        (encoded(picture(0), "PNG")[:200], "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
    ],
)
def test_what_is_no_whole_image_is_refused_with_its_reason(data, reason):
    with pytest.raises(UndecodableImage, match=reason):
        decode_rgb(data, CAP)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cut_image_is_refused_or_lacks_no_pixel(kind):
    data = encoded(picture(0), kind)
    whole = decode_rgb(data, CAP)
    num_refused = 0
    for length in range(len(data)):
        try:
            np.testing.assert_array_equal(decode_rgb(data[:length], CAP), whole)
        except UndecodableImage:
            num_refused += 1
    assert num_refused >= len(data) - 24  # what closes a PNG holds no pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_too_many_pixels_are_refused_from_the_header(kind):
    huge = bytearray(encoded(Image.new("L", (16, 16)), kind))
    if kind == "PNG":
        huge[16:24] = struct.pack(">II", 30_000, 30_000)
        huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    else:
        place = huge.index(b"\xff\xc0")
        huge[place + 5 : place + 9] = struct.pack(">HH", 30_000, 30_000)
    start = time.process_time()
    with pytest.raises(
        UndecodableImage, match=r"30000x30000 = 900000000 pixels.*max_pixels=1000000"
    ):
        decode_rgb(bytes(huge), CAP)
    assert time.process_time() - start < 0.05


@pytest.mark.parametrize("eighths", FAST_SCALES)
def test_a_jpeg_is_decoded_at_the_scale_asked_for(eighths):
    scaled = decode_rgb(encoded(picture(6, 208, 104)), CAP, eighths)
    assert scaled.shape == (13 * eighths, 26 * eighths, 3)
    rescaled = picture(6, 208, 104).resize(scaled.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(scaled.astype(int) - np.asarray(rescaled)).mean() < 3


@pytest.mark.parametrize("eighths", FAST_SCALES)
def test_a_scaled_pixel_always_covers_whole_pixels_of_the_original(eighths):
    whole = np.asarray(picture(7, 203, 101))
    padded = np.pad(whole, ((0, 3), (0, 5), (0, 0)), mode="edge")  # as JPEG fills its last blocks
    scaled = decode_rgb(encoded(Image.fromarray(whole)), CAP, eighths)
    expected = decode_rgb(encoded(Image.fromarray(padded)), CAP, eighths)
    height, width, _ = scaled.shape
    assert (height, width) == (-(-101 * eighths // 8), -(-203 * eighths // 8))
    assert np.abs(scaled.astype(int) - expected[:height, :width]).mean() < 2


@pytest.mark.parametrize("eighths", FAST_SCALES)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey", "progressive"])
def test_the_rows_asked_for_are_those_of_the_whole_image(eighths, subsampling):
    noise = np.random.default_rng(0).integers(0, 256, (75, 90, 3), dtype=np.uint8)
    options = {"subsampling": subsampling}
    if subsampling == "progressive":
        options = {"progressive": True}
    image = Image.fromarray(noise)
    data = encoded(image.convert("L")) if subsampling == "grey" else encoded(image, **options)
    whole = decode_rgb(data, CAP, eighths)
    for num_rows in range(1, len(whole) + 1):
        rows = decode_rgb(data, CAP, eighths, num_rows)
        assert rows.shape[1:] == whole.shape[1:]
        np.testing.assert_array_equal(rows[:num_rows], whole[:num_rows])


def test_few_rows_of_a_plain_jpeg_are_really_few():
    assert len(decode_rgb(encoded(picture(0, 200, 200)), CAP, num_rows=50)) < 60


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_jpeg_comes_whole_whatever_rows_are_asked_for(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(5), exif=exif)
    np.testing.assert_array_equal(decode_rgb(data, CAP, num_rows=3), decode_rgb(data, CAP))


def test_the_smallest_scale_leaves_the_side_that_is_wanted():
    for smallest_side in range(1, 200, 7):
        for wanted in range(1, 250, 9):
            eighths = smallest_scale(smallest_side, wanted)
            good = [m for m in FAST_SCALES if smallest_side * m / 8 >= wanted]
            assert eighths == min(good, default=8)


def test_decoded_images_can_be_written_to():
    for kind in ("JPEG", "PNG"):
        decoded(picture(0), kind)[0, 0, 0] = 7
