"""The manifest is complete, of this version and unchanged, or it is refused by name."""

import hashlib
import json

import pytest

from data.boxes import BoxCounts
from data.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    ClassCounts,
    Manifest,
    ManifestError,
    Quarantined,
    TarEntry,
    read_manifest,
    write_manifest,
)

ENTRY = TarEntry(
    file="train-000000.tar",
    num_samples=2,
    num_bytes=10240,
    sha256="ab" * 32,
    plan_digest="cd" * 32,
    num_pixels=99,
    rgb_sums=(2**60, 2, 3),
    side_counts=(0,) * 12,
    box_counts=BoxCounts(kept=5, clipped=1),
    quarantined=(Quarantined("pets.tar", "train/cat/x.jpg", "is empty: 0 bytes"),),
)
EXAMPLE = Manifest(
    name="pets",
    class_names=("cat", "dög"),
    mean_rgb=(0.1, 1 / 3, 254.99999999999997),
    train=(ENTRY,),
    test=(ENTRY,),
    class_counts=ClassCounts((4,), (3,)),
    max_pixels=1000,
    source="/somewhere",
    fingerprint="as it was",
    staging_digest="0123456789ab",
)


def test_what_is_written_is_read_again_to_the_last_bit(tmp_path):
    write_manifest(tmp_path, EXAMPLE)
    assert read_manifest(tmp_path) == EXAMPLE
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_one_written_before_duplicates_were_looked_for_is_read(tmp_path):
    write_manifest(tmp_path, EXAMPLE)
    path = tmp_path / MANIFEST
    content = json.loads(path.read_bytes())
    del content["duplicates"]
    version, _ = content.pop("format_version"), content.pop("sha256")
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"format_version": version, "sha256": digest, **content}))
    assert read_manifest(tmp_path) == EXAMPLE
    assert EXAMPLE.duplicates is None


def test_quarantined_images_of_all_tars_are_listed():
    assert EXAMPLE.quarantined == ENTRY.quarantined * 2


def test_a_missing_manifest_means_that_staging_has_not_finished(tmp_path):
    with pytest.raises(ManifestError, match=f"{tmp_path / MANIFEST}: no such file.*not finished"):
        read_manifest(tmp_path)


def test_another_format_version_is_refused_naming_both(tmp_path):
    write_manifest(tmp_path, EXAMPLE)
    path = tmp_path / MANIFEST
    content = json.loads(path.read_bytes()) | {"format_version": FORMAT_VERSION + 1}
    path.write_text(json.dumps(content))
    with pytest.raises(
        ManifestError, match=f"version {FORMAT_VERSION + 1}.* reads {FORMAT_VERSION}"
    ):
        read_manifest(tmp_path)


def test_every_flipped_bit_is_noticed(tmp_path):
    write_manifest(tmp_path, EXAMPLE)
    path = tmp_path / MANIFEST
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 37):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        if json_or_none(flipped) == json.loads(whole):
            assert read_manifest(tmp_path) == EXAMPLE  # white space changed
        else:
            with pytest.raises(ManifestError, match=str(path)):
                read_manifest(tmp_path)


def json_or_none(data):
    try:
        return json.loads(data)
    except ValueError:
        return None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff"])
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ManifestError, match="is no manifest"):
        read_manifest(tmp_path)
