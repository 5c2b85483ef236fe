"""PASCAL VOC: several classes in an image, difficult ones apart, boxes, and people who act."""

import pytest

from data.sources.source import SourceError
from data.staging import stage
from tests.data.miniature.check import samples
from tests.data.pictures import encoded, picture, write_archive, write_tree
from tests.data.sources import opened
from tests.data.staged import config_of

# id: [(class, box, difficult)]
IMAGES = {
    "000001": [("cat", (1, 2, 9, 9), 0), ("dog", (3, 3, 8, 8), 0)],
    "000002": [("dog", (1, 1, 20, 16), 0), ("cat", (2, 2, 4, 4), 1)],
    "000005": [("cat", (1, 1, 5, 5), 0), ("cat", (2, 2, 6, 6), 1)],
    "000007": [("emu", (1, 1, 5, 5), 1)],
}
SPLITS = {"trainval": ["000001", "000002"], "test": ["000005", "000007"]}
NAMES = ("VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar")
SETTINGS = {"train_split": "trainval", "archives": NAMES}


def voc_xml(objects, actions=()):
    body = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{b[0]}</xmin>"
        f"<ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox>"
        f"<part><name>head</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>1</xmax><ymax>1</ymax>"
        "</bndbox></part></object>"
        for name, b, difficult in objects
    )
    size = "<size><width>20</width><height>16</height><depth>3</depth></size>"
    return f"<annotation><filename>x</filename>{size}{body}</annotation>".encode()


def verdict(image_id, name):
    found = [difficult for thing, _, difficult in IMAGES[image_id] if thing == name]
    return "-1" if not found else " 1" if 0 in found else " 0"  # two spaces before these


def voc_files(split, lists=True):
    files = {}
    for image_id in SPLITS[split]:
        files[f"Annotations/{image_id}.xml"] = voc_xml(IMAGES[image_id])
        files[f"JPEGImages/{image_id}.jpg"] = encoded(picture(int(image_id)))
    files[f"ImageSets/Main/{split}.txt"] = "".join(f"{i}\n" for i in SPLITS[split]).encode()
    for name in ("cat", "dog", "emu") if lists else ():
        lines = [f"{image_id} {verdict(image_id, name)}\n" for image_id in SPLITS[split]]
        files[f"ImageSets/Main/{name}_{split}.txt"] = "".join(lines).encode()
    return files


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "voc"
    folder.mkdir()
    for name, split in zip(NAMES, SPLITS, strict=True):
        write_archive(folder / name, voc_files(split), wrap="VOCdevkit/VOC2007/")
    return folder


def facts(source):
    return {
        sample.name: (sample.label, sample.annotation.present, sample.annotation.difficult)
        for split in ("train", "test")
        for sample in source.samples(split)
    }


FACTS = {
    "000001.jpg": (0, (0, 1), ()),
    "000002.jpg": (1, (1,), (0,)),
    "000005.jpg": (0, (0,), ()),
    "000007.jpg": (2, (), (2,)),
}


def test_classes_present_and_difficult_are_those_of_the_lists(folder):
    source = opened(folder, "voc", **SETTINGS)
    assert source.class_names == ("cat", "dog", "emu")
    assert facts(source) == FACTS


def test_an_unpacked_kit_gives_the_same(tmp_path):
    files = voc_files("trainval") | voc_files("test")
    for root in ("VOCdevkit/VOC2007/", ""):
        tree = write_tree(tmp_path / f"tree{len(root)}", {root + n: d for n, d in files.items()})
        assert facts(opened(tree, "voc", **SETTINGS)) == FACTS


def test_without_lists_by_class_the_objects_decide(tmp_path):
    files = voc_files("trainval", lists=False) | voc_files("test", lists=False)
    del files["Annotations/000007.xml"], files["JPEGImages/000007.jpg"]
    files["ImageSets/Main/test.txt"] = b"000005\n"
    tar = write_archive(tmp_path / "bccd.tar", files, wrap="BCCD/")
    expected = {name: fact for name, fact in FACTS.items() if name != "000007.jpg"}
    assert facts(opened(tar, "voc", train_split="trainval")) == expected


def test_boxes_and_labels_arrive_in_the_tars(folder, tmp_path):
    config = config_of(folder, "voc", check_digests=False, **SETTINGS)
    staged = stage(config, tmp_path)
    found = {
        sample["json"]["name"]: sample["json"]
        for entry in staged.manifest.entries
        for sample in samples(staged.folder / entry.file)
    }
    assert found["000002.jpg"]["present"] == [1]
    assert found["000002.jpg"]["difficult"] == [0]
    assert found["000002.jpg"]["boxes"] == [
        {"class_name": "dog", "box": [1, 1, 20, 16]},
        {"class_name": "cat", "box": [2, 2, 4, 4], "difficult": True},
    ]


@pytest.fixture
def kit_2012(tmp_path):
    people = [("person", (1, 1, 9, 9), 0), ("dog", (0, 0, 5, 5), 0), ("person", (4, 4, 12, 12), 0)]
    files = {
        "Annotations/2010_000001.xml": voc_xml(people),
        "Annotations/2010_000002.xml": voc_xml(people[:1]),
    }
    files |= {f"JPEGImages/2010_00000{i}.jpg": encoded(picture(i)) for i in (1, 2)}
    files |= {
        "ImageSets/Action/jumping_train.txt": b"2010_000001  1  1\n2010_000001  3 -1\n",
        "ImageSets/Action/reading_train.txt": b"2010_000001  1  1\n2010_000001  3  1\n",
        "ImageSets/Action/jumping_val.txt": b"2010_000002  1  1\n",
        "ImageSets/Action/reading_val.txt": b"2010_000002  1 -1\n",
    }
    return write_archive(tmp_path / "voc2012.tar", files, wrap="VOCdevkit/VOC2012/")


def test_each_person_who_acts_is_a_sample_with_a_box(kit_2012):
    source = opened(kit_2012, "voc", task="action", train_split="train", test_split="val")
    assert source.class_names == ("jumping", "reading")
    assert {n: f[1] for n, f in facts(source).items()} == {
        "2010_000001.jpg#1": (0, 1),
        "2010_000001.jpg#3": (1,),
        "2010_000002.jpg#1": (0,),
    }
    boxes = {s.name: s.annotation.boxes for s in source.samples("train")}
    assert [box[:5] for box in boxes["2010_000001.jpg#3"]] == [("person", 4, 4, 12, 12)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ImageSets/Main/cat_test.txt": b"000005 yes\n"}, r"cat_test.txt, line 1: expected 2 col"),
        ({"ImageSets/Main/test.txt": b"000009\n"}, "no Annotations/000009.xml"),
        ({"Annotations/000005.xml": b"<html/>"}, r"000005.xml', line 1: starts with <html>"),
        ({"JPEGImages/000005.jpg": None}, r"no JPEGImages/000005.jpg, though it is listed"),
        ({"ImageSets/Main/test.txt": None}, r"holds no ImageSets/Main/test.txt"),
        ({"VOC2012/JPEGImages/1.jpg": b""}, r"found VOC2012/, its top folder: put the archives of"),
    ],
)
def test_what_is_missing_or_odd_is_named(tmp_path, change, message):
    files = voc_files("trainval") | voc_files("test") | change
    tree = write_tree(tmp_path / "tree", {n: d for n, d in files.items() if d is not None})
    with pytest.raises(SourceError, match=message):
        opened(tree, "voc", **SETTINGS)


def test_a_missing_archive_is_named(folder):
    (folder / NAMES[1]).unlink()
    with pytest.raises(SourceError, match=f"lacks {NAMES[1]}"):
        opened(folder, "voc", **SETTINGS)
