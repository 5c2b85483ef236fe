"""A tar of a tree gives what the tree gives, in one pass; hostile and damaged ones are refused."""

import gzip
import io
import tarfile

import pytest

from data.sources.archive import archive_source
from data.sources.folder import folder_source
from data.sources.source import SourceError
from tests.data.pictures import images_of, write_archive, write_tree

MODES = {"pets.tar": "w", "pets.tar.gz": "w:gz", "pets.tar.bz2": "w:bz2", "pets.tar.xz": "w:xz"}


def read(path):
    return archive_source(str(path), path.parent / "spool", "train", "test")


def listed(source):
    return {
        split: {s.name: (s.label, s.location.read()) for s in source.samples(split)}
        for split in ("train", "test")
    }


@pytest.mark.parametrize(("name", "mode"), MODES.items())
@pytest.mark.parametrize("wrap", ["", "./", "pets-1.0/", "./a/b/"])
def test_an_archive_gives_what_its_tree_gives(tmp_path, name, mode, wrap):
    path = write_archive(tmp_path / name, images_of(), mode, wrap)
    tree = folder_source(str(write_tree(tmp_path / "tree", images_of())), "train", "test", tmp_path)
    assert listed(read(path)) == listed(tree)
    assert read(path).class_names == tree.class_names


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_and_long_names_are_read(tmp_path, format):
    long = "x" * 90 if format == tarfile.USTAR_FORMAT else "x" * 300
    files = {name.replace("/0", f"/{long}0"): data for name, data in images_of().items()}
    with tarfile.open(tmp_path / "pets.tar", "w", format=format) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert {n for split in listed(read(tmp_path / "pets.tar")).values() for n in split} == set(
        files
    )


def test_an_archive_without_splits_divides_as_its_tree_does(tmp_path):
    files = {n.removeprefix("train/"): d for n, d in images_of(num_train=40, num_test=0).items()}
    path = write_archive(tmp_path / "pets.tgz", files, "w:gz", "pets/")
    tree = folder_source(str(write_tree(tmp_path / "tree", files)), "train", "test", tmp_path)
    assert listed(read(path)) == listed(tree)


def test_gzip_of_several_streams_is_read_whole(tmp_path):
    whole = write_archive(tmp_path / "pets.tar", images_of()).read_bytes()
    path = tmp_path / "pets.tar.gz"
    path.write_bytes(gzip.compress(whole[:5000]) + gzip.compress(whole[5000:]))
    assert len(listed(read(path))["train"]) == 20


def test_an_empty_class_folder_is_seen_in_an_archive(tmp_path):
    folder = tarfile.TarInfo("train/emu")
    folder.type = tarfile.DIRTYPE
    path = write_archive(tmp_path / "pets.tar", images_of() | {folder: b""})
    with pytest.raises(SourceError, match=r"pets.tar: no images in train/emu/"):
        read(path)


def member(name, type=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type = type
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (member("../evil.jpg"), "points outside"),
        (member("train/cat/../../../evil.jpg"), "points outside"),
        (member("/etc/evil.jpg"), "points outside"),
        (member("train/cat/x.jpg", tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
        (member("train/cat/x.jpg", tarfile.LNKTYPE, linkname="train/cat/0000.jpg"), "is a link"),
        (member("train/cat/x.jpg", tarfile.CHRTYPE), "is a link, device"),
        (member("train/cat/x.jpg", tarfile.BLKTYPE), "is a link, device"),
        (member("train/cat/x.jpg", tarfile.FIFOTYPE), "is a link, device"),
        (member("train/cat/x.jpg", tarfile.GNUTYPE_SPARSE), "sparse"),
        (member("train/cat/0000.jpg"), "comes twice"),
        (member("./train//cat/0000.jpg"), "comes twice"),
        (member("train/cat/a\nb.jpg"), "not printable"),
        (member("train/cat/a\udcffb.jpg"), "not printable"),
    ],
)
@pytest.mark.parametrize(("name", "mode"), [("pets.tar", "w"), ("pets.tar.gz", "w:gz")])
def test_a_hostile_member_is_refused_with_archive_member_and_offset(
    tmp_path, name, mode, hostile, reason
):
    path = write_archive(tmp_path / name, images_of() | {hostile: b"x"}, mode)
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[-1].offset
    with pytest.raises(SourceError) as caught:
        read(path)
    for part in (str(path), repr(hostile.name), f"at offset {offset}", reason):
        assert part in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "spool"]  # nothing extracted


@pytest.mark.parametrize("claimed", [-1, 1 << 29, 1 << 50, 1 << 70])
@pytest.mark.parametrize("type", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("name", ["pets.tar", "pets.tar.gz"])
def test_a_header_that_lies_about_its_size_is_refused(tmp_path, name, type, claimed):
    header = member("train/cat/x.jpg", type, size=claimed).tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / name
    lie = header + bytes(10_000)
    path.write_bytes(gzip.compress(lie) if name.endswith("gz") else lie)
    with pytest.raises(SourceError, match=f"offset 0: claims {claimed} bytes"):
        read(path)


def test_a_pax_record_that_lies_about_the_size_is_refused(tmp_path):
    lie = member("train/cat/x.jpg", pax_headers={"size": str(1 << 50)}).tobuf(tarfile.PAX_FORMAT)
    path = tmp_path / "pets.tar.gz"
    path.write_bytes(gzip.compress(lie + bytes(10_000)))
    with pytest.raises(SourceError, match=f"'train/cat/x.jpg' at offset 0: claims {1 << 50} bytes"):
        read(path)


@pytest.mark.parametrize("name", ["pets.tar", "pets.tar.gz"])
def test_every_truncation_at_a_block_is_noticed(tmp_path, name):
    whole = write_archive(tmp_path / "whole.tar", images_of(num_train=3, num_test=2)).read_bytes()
    end = len(whole.rstrip(b"\0"))
    end += -end % 512  # of the last member; zeros follow
    path = tmp_path / name
    for length in range(0, end + 1, 512):
        cut = whole[:length]
        path.write_bytes(gzip.compress(cut) if name.endswith("gz") else cut)
        with pytest.raises(SourceError, match=name):
            read(path)


def test_a_truncated_or_damaged_gzip_is_noticed(tmp_path):
    whole = write_archive(tmp_path / "pets.tar.gz", images_of(), "w:gz").read_bytes()
    path = tmp_path / "bad.tar.gz"
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # of the CRC
    for damaged in (whole[: len(whole) // 2], whole[:-4], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(SourceError, match=r"bad.tar.gz: cannot be read"):
            read(path)


def test_a_bad_header_in_the_middle_does_not_end_the_archive_in_silence(tmp_path):
    path = write_archive(tmp_path / "pets.tar", images_of())
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[5].offset
    data[offset + 150] ^= 1  # of the header's checksum
    path.write_bytes(data)
    with pytest.raises(SourceError, match=f"no valid header at offset {offset}"):
        read(path)


def test_tars_run_together_are_refused(tmp_path):
    path = write_archive(tmp_path / "pets.tar", images_of())
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(SourceError, match="data after its end mark"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"x" * 2000])
def test_what_is_no_tar_is_refused(tmp_path, content):
    path = tmp_path / "pets.zip"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"pets.zip: cannot be read as .tar, .tar.gz"):
        read(path)


def test_a_missing_archive_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(SourceError, match="does not exist: expected an archive"):
        read(tmp_path / "nothing.tar")
    with pytest.raises(SourceError, match="is a folder: expected an archive"):
        read(tmp_path)
