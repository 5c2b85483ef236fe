"""Kaggle's ILSVRC: flat validation images take their labels from the solution's first word."""

import pytest

from data.sources.source import SourceError
from tests.data.miniature.photos import xml
from tests.data.pictures import encoded, picture, write_archive, write_tree
from tests.data.sources import listed, opened

WNIDS = ("n01440764", "n01443537")
TRAIN = {f"{wnid}/{wnid}_{i}.JPEG": encoded(picture(i)) for i in (3, 12) for wnid in WNIDS}
VAL = {f"ILSVRC2012_val_0000000{i}.JPEG": encoded(picture(i)) for i in (1, 2)}
FILES = {
    "LOC_synset_mapping.txt": b"n01440764 tench, Tinca tinca\nn01443537 goldfish\n",
    "LOC_val_solution.csv": b"ImageId,PredictionString\nILSVRC2012_val_00000002,n01440764 1 2 3 4 "
    b"n01440764 2 2 5 5 \nILSVRC2012_val_00000001,n01443537 1 1 9 9 \n",
    **{f"ILSVRC/Data/CLS-LOC/train/{name}": data for name, data in TRAIN.items()},
    **{f"ILSVRC/Data/CLS-LOC/val/{name}": data for name, data in VAL.items()},
    "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG": b"x",
    "ILSVRC/ImageSets/CLS-LOC/val.txt": b"ILSVRC2012_val_00000001 1\n",
    "ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_3.xml": xml(
        "%s", (20, 16), [("tench", (1, 2, 8, 9))]
    ).encode(),
    "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000002.xml": xml(
        "x", (20, 16), [("n01443537", (1, 2, 8, 9))]
    ).encode(),
}


@pytest.mark.parametrize("packed", [True, False])
def test_images_labels_and_boxes_are_found(tmp_path, packed):
    if packed:
        path = write_archive(tmp_path / "kaggle.tar.gz", FILES, "w:gz")
    else:
        path = write_tree(tmp_path / "kaggle", FILES)
    source = opened(path, "kaggle")
    assert source.class_names == WNIDS
    assert listed(source) == {
        "train": {n.split("/")[1]: (n.split("/")[0], data) for n, data in TRAIN.items()},
        "test": dict(zip(VAL, zip(WNIDS[::-1], VAL.values(), strict=True), strict=True)),
    }
    boxes = {
        sample.name: [(box.class_name, box.x_min) for box in sample.annotation.boxes]
        for split in ("train", "test")
        for sample in source.samples(split)
        if sample.annotation
    }
    assert boxes == {
        "n01440764_3.JPEG": [("n01440764", 1)],
        "ILSVRC2012_val_00000002.JPEG": [("n01443537", 1)],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"LOC_val_solution.csv": None}, "holds no LOC_val_solution.csv"),
        ({"LOC_val_solution.csv": b"ImageId,P\n"}, r"val_0000000\d.JPEG: has no line in LOC_val"),
        ({"LOC_val_solution.csv": b"ImageId,P\nx,n99999999\n"}, r"solution.csv, line 2: expected"),
        ({"ILSVRC/Data/CLS-LOC/train/n09/n09_1.JPEG": b"x"}, r"class 'n09' is not in LOC_synset"),
        ({"LOC_synset_mapping.txt": FILES["LOC_synset_mapping.txt"] + b"n09 x\n"},
         "no training images of 1 classes: n09"),
        ({f"ILSVRC/Data/CLS-LOC/val/{next(iter(VAL))}": None}, "1 of 2 validation images are miss"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path, change, message):
    files = {name: data for name, data in (FILES | change).items() if data is not None}
    with pytest.raises(SourceError, match=message):
        opened(write_tree(tmp_path / "kaggle", files), "kaggle")
