"""WebDataset tars and Parquet files made elsewhere: all images, with the labels they had."""

import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from data.duplicates import MAX_NAMED, read_duplicates
from data.manifest import DuplicateCounts
from data.sources.source import SourceError
from data.staging import stage
from tests.data.pictures import encoded, picture, write_archive
from tests.data.sources import listed, opened
from tests.data.staged import config_of

PICTURES = [encoded(picture(seed)) for seed in range(12)]


def write_webdataset(folder, label_of, names=("train-0000.tar", "train-0001.tar", "test-0.tar")):
    folder.mkdir()
    for number, name in enumerate(names):
        with webdataset.TarWriter(str(folder / name)) as sink:
            for i in range(4 * number, 4 * number + 4):
                sink.write({"__key__": f"a/{i:03d}", "jpg": PICTURES[i], **label_of(i)})


def as_number(i):
    return {"cls": i % 3}


@pytest.mark.parametrize(
    ("label_of", "class_names"),
    [
        (as_number, ("0", "1", "2")),
        (lambda i: {"json": {"label": i % 3, "url": "x"}}, ("0", "1", "2")),
        (lambda i: {"json": {"caption": "x"}, "cls": i % 3}, ("0", "1", "2")),
        (lambda i: {"json": {"label": "dce"[i % 3]}, "txt": "x"}, ("c", "d", "e")),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_webdataset_tars_give_all_their_images(tmp_path, label_of, class_names, ending):
    names = [f"{name}.tar{ending}" for name in ("train-0000", "train-0001", "test-0")]
    write_webdataset(tmp_path / "wds", label_of, names)
    source = opened(tmp_path / "wds", "webdataset")
    assert source.class_names == class_names
    found = listed(source)
    names = class_names if class_names[0] == "0" else "dce"
    expected = [(names[i % 3], PICTURES[i]) for i in range(12)]
    assert list(found["train"].values()) == expected[:8]
    assert list(found["test"].values()) == expected[8:]
    assert next(iter(found["train"])) == f"train-0000.tar{ending}/a/000.jpg"


def test_keys_that_come_again_in_another_tar_lose_no_image_and_equal_bytes_are_told(tmp_path):
    (tmp_path / "wds").mkdir()
    for number, name in enumerate(("train-0.tar", "train-1.tar", "test-0.tar")):
        with webdataset.TarWriter(str(tmp_path / "wds" / name)) as sink:
            for i in range(3):  # the last one is the same in all tars
                sink.write(
                    {"__key__": f"{i}", "jpg": PICTURES[3 * number + i if i < 2 else 0], "cls": i}
                )
    config = config_of(tmp_path / "wds", "webdataset", samples_per_tar=2)
    result = stage(config, tmp_path)
    keys = []
    for path in result.folder.glob("train-*.tar"):
        with tarfile.open(path) as tar:
            keys += tar.getnames()
    assert len(keys) == len(set(keys)) == 3 * 6
    assert result.manifest.duplicates == DuplicateCounts(1, 2, 0)
    found = {copy.member for row in read_duplicates(result.folder) for copy in row.copies}
    of_train = {"train-0.tar/0.jpg", "train-0.tar/2.jpg", "train-1.tar/2.jpg"}
    assert found - of_train == {"test-0.tar/2.jpg"}
    assert len(found & of_train) == MAX_NAMED


def test_names_for_numbers_come_from_a_list_beside_the_tars(tmp_path):
    write_webdataset(tmp_path / "wds", as_number)
    (tmp_path / "wds" / "classes.txt").write_text("tench\ngoldfish\nshark\n")
    assert opened(tmp_path / "wds", "webdataset").class_names == ("tench", "goldfish", "shark")
    (tmp_path / "wds" / "classes.txt").write_text("tench\ngoldfish\n")
    with pytest.raises(SourceError, match=r"train-0000.tar/a/002.jpg has label 2, one of 4 outs"):
        opened(tmp_path / "wds", "webdataset")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jpg": b"x"}, r"train.tar: a has no label: expected a.cls"),
        ({"a.jpg": b"x", "a.cls": b""}, r"member 'a.cls': is empty"),
        ({"a.jpg": b"x", "a.json": b"{"}, r"member 'a.json': is no JSON"),
        ({"a.jpg": b"x", "a.json": b"[" * 100_000}, r"member 'a.json': is no JSON"),
        ({"a.jpg": b"x", "a.cls": b"1" * (1 << 21)}, "too many for a label"),
        ({"a.jpg": b"x", "a.cls": b"cat", "b.jpg": b"x", "b.cls": b"1"}, "some labels are numbers"),
        ({"a.jpg": b"x", "a.cls": b"99999999"}, "labels reach from 99999999"),
    ],
)
def test_labels_that_are_none_are_named(tmp_path, files, message):
    (tmp_path / "wds").mkdir()
    write_archive(tmp_path / "wds" / "train.tar", files)
    write_archive(tmp_path / "wds" / "test.tar", {})
    with pytest.raises(SourceError, match=message):
        opened(tmp_path / "wds", "webdataset")


def write_parquet(folder, labels, class_label=None, as_struct=True):
    folder.mkdir(parents=True)
    for split, chosen in (("train", range(8)), ("validation", range(8, 12))):
        images = [
            {"bytes": PICTURES[i], "path": f"{i}.jpg"} if as_struct else PICTURES[i] for i in chosen
        ]
        table = pa.table({"image": images, "label": [labels[i % 3] for i in chosen]})
        if class_label:
            features = {"label": {"names": class_label, "_type": "ClassLabel"}}
            meta = {"huggingface": json.dumps({"info": {"features": features}})}
            table = table.replace_schema_metadata(meta)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=3)


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_keeps_the_order_of_its_class_labels(tmp_path, as_struct):
    names = ["tench, Tinca tinca", "goldfish", "great white shark"]
    write_parquet(tmp_path / "hf" / "data", [0, 1, 2], names, as_struct)
    source = opened(tmp_path / "hf", "parquet", test_split="validation")
    assert source.class_names == tuple(names)
    found = listed(source)
    expected = [(names[i % 3], PICTURES[i]) for i in range(12)]
    assert list(found["train"].values()) == expected[:8]
    assert list(found["test"].values()) == expected[8:]


def test_parquet_with_names_as_labels(tmp_path):
    write_parquet(tmp_path / "pq", ["d", "c", "e"])
    assert opened(tmp_path / "pq", "parquet", test_split="validation").class_names == (
        "c",
        "d",
        "e",
    )


def test_odd_parquet_is_named(tmp_path):
    write_parquet(tmp_path / "pq", [0, 1, 2])
    settings = {"test_split": "validation"}
    with pytest.raises(SourceError, match=r"holds no test\*.parquet"):
        opened(tmp_path / "pq", "parquet")
    with pytest.raises(SourceError, match=r"no column img: it has image, label"):
        opened(tmp_path / "pq", "parquet", image_column="img", **settings)
    path = tmp_path / "pq" / "train-00000-of-00001.parquet"
    pq.write_table(pa.table({"image": [None], "label": [0]}), path)
    with pytest.raises(SourceError, match=r"parquet: row 0: expected up to"):
        opened(tmp_path / "pq", "parquet", **settings)
    table = pa.table({"image": PICTURES, "label": [0] * len(PICTURES)})
    pq.write_table(table, path, write_page_checksum=True, compression="none")
    data = bytearray(path.read_bytes())
    data[data.index(PICTURES[3]) + len(PICTURES[3]) // 2] ^= 1  # one bit of a picture
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"parquet: cannot be read as Parquet: .*checksum"):
        opened(tmp_path / "pq", "parquet", **settings)
    path.write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        opened(tmp_path / "pq", "parquet", **settings)
