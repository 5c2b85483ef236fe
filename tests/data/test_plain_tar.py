"""Plain headers are read without tarfile: the same members, and the same refusals, as with it."""

import io
import os
import random
import tarfile

import pytest

import data.sources.plain_tar
import data.sources.strict_tar
from data.sources.plain_tar import MAX_MEMBER_BYTES, Extent, plain_files
from data.sources.source import SourceError
from data.sources.strict_tar import Member, PlainMembers, tar_members, tar_pieces
from data.tar_format import BLOCK_BYTES

PLAIN = ["train/cat/0.jpg", "train/cat/1.jpg", "x" * 100, "with space.jpg", "a..b/c.d.e"]
ODD = ["./train/cat/2.jpg", "a//b.jpg", "c/./d.jpg", ".hidden", "e/.f", "ü.jpg", "y" * 101]


def archive(path, names, format=tarfile.GNU_FORMAT, sizes=(1, 511, 512, 513, 3000)):
    with tarfile.open(path, "w", format=format) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = sizes[number % len(sizes)]
            tar.addfile(info, io.BytesIO(random.Random(name).randbytes(info.size)))
    return path


@pytest.fixture(params=[1, 3, 1024], autouse=True)
def files_at_a_time(request, monkeypatch):
    monkeypatch.setattr(data.sources.plain_tar, "FILES_AT_A_TIME", request.param)
    return request.param


def outcome(path, of_tars=False):
    """All members with their data, or what was refused after some of them."""
    found = []
    try:
        for name, is_folder, offset, num_bytes, read in tar_members(str(path), of_tars):
            found.append((name, is_folder, offset, num_bytes, None if is_folder else read()))
    except SourceError as error:
        found.append(str(error))
    return found


@pytest.fixture
def without(monkeypatch):
    """Gives the outcome when tarfile reads every header."""

    def by_tarfile(path, of_tars=False):
        with monkeypatch.context() as patch:
            patch.setattr(data.sources.strict_tar, "plain_files", lambda extent, offset: iter(()))
            return outcome(path, of_tars)

    return by_tarfile


def offsets_of(path):
    with path.open("rb") as file:
        pieces = plain_files(Extent(file.fileno(), 0, path.stat().st_size), 0)
        return [
            found for files in pieces for found in zip(files.headers_at, files.names, strict=True)
        ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_plain_files_are_read_up_to_whatever_else_comes(tmp_path, format):
    path = archive(tmp_path / "plain.tar", PLAIN, format)
    with tarfile.open(path) as tar:
        assert offsets_of(path) == [(info.offset, info.name) for info in tar]
    path = archive(tmp_path / "odd.tar", [*PLAIN, ODD[0], "train/cat/3.jpg"], format)
    assert [name for _, name in offsets_of(path)] == PLAIN


@pytest.mark.parametrize("odd", [*ODD, "/", "in/ner.tar"])
def test_an_odd_name_is_left_to_tarfile(tmp_path, odd):
    assert offsets_of(archive(tmp_path / "odd.tar", [odd])) == []


def test_an_empty_file_is_left_to_tarfile_which_counts_them(tmp_path):
    assert offsets_of(archive(tmp_path / "empty.tar", PLAIN, sizes=(0,))) == []


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("seed", range(5))
def test_a_mixture_gives_what_tarfile_gives(tmp_path, without, format, seed):
    rng = random.Random(seed)
    names = [name for name in PLAIN + ODD if format != tarfile.USTAR_FORMAT or len(name) <= 100]
    rng.shuffle(names)
    path = archive(tmp_path / "mixed.tar", names, format, (0, 1, 511, 512, 513, 3000))
    assert outcome(path) == without(path)
    assert len(outcome(path)) == len(names)


def test_a_member_larger_than_any_image_is_refused(tmp_path, without):
    path = archive(tmp_path / "large.tar", PLAIN)
    info = tarfile.TarInfo("large.jpg")
    info.size = MAX_MEMBER_BYTES + 1
    path.write_bytes(path.read_bytes().rstrip(b"\0") + bytes(BLOCK_BYTES))
    end = path.stat().st_size // BLOCK_BYTES * BLOCK_BYTES
    with path.open("r+b") as file:
        file.seek(end)
        file.write(info.tobuf())
    os.truncate(path, end + MAX_MEMBER_BYTES + 100 * BLOCK_BYTES)  # of holes
    assert outcome(path) == without(path)
    assert f"claims {MAX_MEMBER_BYTES + 1} bytes" in outcome(path)[-1]


def test_members_of_tars_in_a_tar_are_those_that_tarfile_gives(tmp_path, without):
    with tarfile.open(tmp_path / "outer.tar", "w") as tar:
        for number in range(3):
            inner = archive(tmp_path / f"{number}.tar", [f"{number}/{name}" for name in PLAIN])
            tar.add(inner, inner.name)
            tar.addfile(tarfile.TarInfo(f"between{number}"))
    path = tmp_path / "outer.tar"
    assert outcome(path, of_tars=True) == without(path, of_tars=True)
    assert len(outcome(path, of_tars=True)) == 3 * (len(PLAIN) + 1)


def test_a_global_header_holds_for_the_plain_members_behind_it(tmp_path, without):
    path = tmp_path / "pax.tar"
    with tarfile.open(path, "w", pax_headers={"path": "renamed.jpg"}) as tar:
        tar.addfile(tarfile.TarInfo("one.jpg"))
    assert outcome(path)[0][0] == "renamed.jpg"
    archive(tmp_path / "plain.tar", PLAIN)
    path.write_bytes(path.read_bytes()[: 3 * BLOCK_BYTES] + (tmp_path / "plain.tar").read_bytes())
    assert outcome(path) == without(path)


def test_a_damaged_header_has_the_outcome_that_it_has_with_tarfile(tmp_path, without):
    names = [PLAIN[0], "./b.jpg", PLAIN[1], PLAIN[3], PLAIN[0][::-1]]
    path = archive(tmp_path / "whole.tar", names, tarfile.USTAR_FORMAT, (600,))
    whole, damaged = path.read_bytes(), tmp_path / "damaged.tar"
    rng = random.Random(0)
    headers = range(0, len(names) * 3 * BLOCK_BYTES, 3 * BLOCK_BYTES)
    # Not owner and time: nobody reads them, and only tarfile minds blanks between their digits.
    fields = [*range(0, 100, 3), *range(124, 136), *range(148, 160), *range(256, 270), 350, 511]
    kinds = set()
    for at in headers:
        for place in (at + field for field in fields):
            changed = bytearray(whole)
            changed[place] = rng.choice(b"\0 07/.\xff")
            if rng.random() < 0.7:  # make the checksum fit
                block = changed[at : at + 148] + b" " * 8 + changed[at + 156 : at + BLOCK_BYTES]
                changed[at + 148 : at + 156] = b"%06o\0 " % sum(block)
            damaged.write_bytes(changed)
            found = outcome(damaged)
            assert found == without(damaged), place
            kinds.add(type(found[-1]))
    assert kinds == {str, tuple}


def test_plain_files_come_many_at_a_time(tmp_path, files_at_a_time):
    names = [f"a/{number}.jpg" for number in range(9)]
    path = archive(tmp_path / "plain.tar", ["./" + names[0], *names[1:5], ODD[0], *names[5:]])
    pieces = list(tar_pieces(str(path)))
    several = [piece for piece in pieces if isinstance(piece, PlainMembers)]
    assert max(len(piece.names) for piece in several) == min(4, files_at_a_time)
    assert [name for piece in several for name in piece.names] == names[1:]
    assert sum(isinstance(piece, Member) for piece in pieces) == 2


@pytest.mark.parametrize("again", [PLAIN[0], "./" + PLAIN[0]])
@pytest.mark.parametrize("first", [PLAIN[0], "./" + PLAIN[0]])
def test_a_name_that_comes_twice_is_refused_whoever_read_it(tmp_path, without, first, again):
    path = archive(tmp_path / "twice.tar", [PLAIN[1], first, PLAIN[3], again])
    assert outcome(path) == without(path)
    assert "comes twice in the archive" in outcome(path)[-1]


def test_every_truncation_has_the_outcome_that_it_has_with_tarfile(tmp_path, without):
    whole = archive(tmp_path / "whole.tar", PLAIN).read_bytes()
    path = tmp_path / "cut.tar"
    for length in range(0, 12 * BLOCK_BYTES, 100):
        path.write_bytes(whole[:length])
        assert outcome(path) == without(path), length


def test_a_file_that_became_shorter_while_it_is_listed_is_refused(tmp_path):
    path = archive(tmp_path / "cut.tar", PLAIN)
    members = tar_members(str(path))
    next(members)
    next(members)
    os.truncate(path, 2 * BLOCK_BYTES)
    with pytest.raises(SourceError, match=r"cut.tar"):
        list(members)


def test_listing_reads_headers_only(tmp_path, monkeypatch):
    path = archive(tmp_path / "plain.tar", PLAIN)
    asked, pread = [], os.pread

    def watched(descriptor, num_bytes, offset):
        asked.append(num_bytes)
        return pread(descriptor, num_bytes, offset)

    monkeypatch.setattr(os, "pread", watched)
    assert len(list(tar_members(str(path)))) == len(PLAIN)
    assert asked == [BLOCK_BYTES] * len(PLAIN)
