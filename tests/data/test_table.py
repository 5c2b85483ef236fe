"""Samples kept in files: what is read is what was appended, whichever part is looked at."""

import functools
import random

import pytest

import data.sources.table
from data.boxes import Annotation, Box
from data.sources.source import NO_LABEL, ByteRange, SourceSample
from data.sources.table import SampleTable, TableWriter, open_table

ANNOTATIONS = [
    None,
    Annotation(),
    Annotation(30, 20, (Box("cat", 1, 2.5, 30, 20), Box("ünder", 0.1, 0, 5, 5, difficult=True))),
    Annotation(30, 20, (), (0, 3), (1,), is_blacklisted=True),
]


def samples_of(count=50, seed=0):
    """In archives, in folders, in a spool: names and paths have little or all in common."""
    rng = random.Random(seed)
    samples = []
    for number in range(count):
        name = f"train/{rng.choice(['cat', 'hönd'])}/{number}.jpg"
        path = rng.choice(["/a/b.tar", "s3://bucket/b.tar", f"/a/{name}", f"{number}.jpg", "spool"])
        location = ByteRange(path, rng.randrange(2**40), rng.randrange(2**26))
        archive = rng.choice(["/a/b.tar", "/a"])
        samples.append(
            SourceSample(name, rng.randrange(9), location, archive, rng.choice(ANNOTATIONS))
        )
    return samples


@pytest.fixture(params=[1, 7, 4096])
def rows_at_a_time(request, monkeypatch):
    monkeypatch.setattr(data.sources.table, "ROWS_AT_A_TIME", request.param)


@pytest.mark.usefixtures("rows_at_a_time")
def test_a_table_gives_the_samples_that_were_appended(tmp_path):
    samples = samples_of()
    table = SampleTable.of(samples, tmp_path)
    assert list(table) == samples
    assert list(map(repr, table)) == list(map(repr, samples))  # 1 is not 1.0 in a plan's digest
    assert [table[i] for i in range(len(table))] == samples
    assert table[7:13] == samples[7:13]
    assert list(table.names()) == [sample.name for sample in samples]
    assert table.labels.tolist() == [sample.label for sample in samples]
    assert table.num_bytes.tolist() == [sample.location.num_bytes for sample in samples]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("rows_at_a_time")
def test_files_of_an_archive_are_appended_as_columns_or_one_by_one(tmp_path):
    columns, single = TableWriter(tmp_path), TableWriter(tmp_path)
    with columns, single:
        for archive, numbers in (("/a.tar", range(5)), ("/b", range(0)), ("/b", range(5, 30))):
            names = [f"träin/{number % 3}/{number}.jpg" for number in numbers]
            sizes, offsets = [n * 7 + 1 for n in numbers], [n * 2**33 for n in numbers]
            columns.append_plain(archive, names, offsets, sizes)
            for name, offset, size in zip(names, offsets, sizes, strict=True):
                location = ByteRange(archive, offset, size)
                single.append(SourceSample(name, NO_LABEL, location, archive))
            columns.extend(samples_of(3))
            single.extend(samples_of(3))
        assert list(map(repr, columns.table())) == list(map(repr, single.table()))
        assert list(columns.table().names()) == list(single.table().names())


def test_images_of_a_folder_and_of_an_archive_share_places(tmp_path):
    names = [f"train/cat/{number}.jpg" for number in range(100)]
    of_folder = [SourceSample(n, 0, ByteRange(f"/a/{n}", 0, 1), "/a") for n in names]
    of_archive = [SourceSample(n, 0, ByteRange("/a.tar", i, 1), "/a") for i, n in enumerate(names)]
    assert len(SampleTable.of(of_folder + of_archive, tmp_path).places) == 2


@pytest.mark.usefixtures("rows_at_a_time")
def test_parts_in_another_order_with_other_labels(tmp_path):
    samples = samples_of()
    table = SampleTable.of(samples, tmp_path)
    order = random.Random(1).sample(range(50), 20)
    part = table.only(order)
    assert list(part) == [samples[i] for i in order]
    assert list(part.names()) == [samples[i].name for i in order]
    assert part.num_bytes.tolist() == [samples[i].location.num_bytes for i in order]
    again = part.only([3, 1], labels=[8, 9])
    assert list(again) == [
        samples[order[3]]._replace(label=8),
        samples[order[1]]._replace(label=9),
    ]
    ranks = list(range(8, -1, -1))
    assert part.relabelled(ranks).labels.tolist() == [ranks[samples[i].label] for i in order]


def test_a_folder_is_taken_off_the_names_and_not_off_the_paths(tmp_path):
    samples = samples_of()
    table = SampleTable.of(samples, tmp_path).without_start("train/")
    assert list(table) == [s._replace(name=s.name.removeprefix("train/")) for s in samples]
    assert list(table.names()) == [sample.name.removeprefix("train/") for sample in samples]


@pytest.mark.usefixtures("rows_at_a_time")
def test_any_part_is_saved_and_opened_again(tmp_path):
    table = SampleTable.of(samples_of(), tmp_path)
    shuffled = table.only(random.Random(1).sample(range(50), 20), labels=range(20))
    for number, part in enumerate((table, shuffled, shuffled.without_start("train/"))):
        part.save(tmp_path, str(number))
        assert list(open_table(tmp_path, str(number), part.places)) == list(part)


def test_an_empty_table_has_nothing(tmp_path):
    table = SampleTable.of([], tmp_path)
    assert (len(table), list(table), list(table.names())) == (0, [], [])
    with pytest.raises(IndexError):
        table[0]


def test_what_cannot_be_written_any_more_hides_no_other_error(tmp_path, monkeypatch):
    full = functools.partial(open, "/dev/full", "w+b")
    monkeypatch.setattr(data.sources.table, "_unnamed", lambda _: full())

    def fail():
        with TableWriter(tmp_path) as writer:
            writer.extend(samples_of(1))
            raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        fail()
