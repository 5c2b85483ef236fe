"""A folder-per-class tree: what is read, and the one clear message for each way it can be wrong."""

import os
import shutil

import pytest

from data.sources.folder import folder_source
from data.sources.source import SourceError
from tests.data.pictures import encoded, images_of, picture, write_tree


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "pets", images_of())


def read(path, train_split="train", test_split="test"):
    return folder_source(str(path), train_split, test_split, path.parent)


def listed(source, split):
    return {sample.name: sample.location.read() for sample in source.samples(split)}


def test_each_image_comes_once_with_its_bytes_and_its_folder_as_label(tree):
    source = read(tree)
    assert source.class_names == ("cat", "dog")
    both = listed(source, "train") | listed(source, "test")
    assert both == images_of()
    for split in ("train", "test"):
        for sample in source.samples(split):
            assert sample.name.split("/")[:2] == [split, source.class_names[sample.label]]


def test_split_folders_may_have_other_names(tree):
    (tree / "test").rename(tree / "val")
    assert len(listed(read(tree, test_split="val"), "test")) == 6


def test_hidden_files_and_what_lies_beside_the_splits_are_passed_over(tree):
    write_tree(tree, {"train/cat/.DS_Store": b"x", "README.md": b"x", ".git/config": b"x"})
    assert listed(read(tree), "train").keys() == {n for n in images_of() if n.startswith("train")}


def test_images_may_lie_deeper_and_behind_links(tree, tmp_path):
    write_tree(tmp_path, {"elsewhere/one.jpg": encoded(picture(99))})
    (tree / "train/cat/more").symlink_to(tmp_path / "elsewhere")
    assert "train/cat/more/one.jpg" in listed(read(tree), "train")


def test_a_tree_without_splits_sets_one_in_ten_aside_by_content(tmp_path):
    images = {f"{name}/{i}.jpg": encoded(picture(i)) for name in "ab" for i in range(100)}
    source = read(write_tree(tmp_path, images))
    train, test = listed(source, "train"), listed(source, "test")
    assert train | test == images
    assert not train.keys() & test.keys()
    assert 4 <= len(test) <= 40
    assert not set(train.values()) & set(test.values())  # a/7.jpg equals b/7.jpg
    fewer = {name: data for name, data in images.items() if not name.endswith("0.jpg")}
    again = listed(read(write_tree(tmp_path / "fewer", fewer)), "test")
    assert again.keys() == test.keys() & fewer.keys()


def damage(tree, what):
    """Make the tree wrong in one way; return what the message has to contain."""
    match what:
        case "missing path":
            shutil.rmtree(tree)
            return ["data.path=", "does not exist", "expected a folder"]
        case "a file":
            shutil.rmtree(tree)
            tree.write_bytes(b"")
            return ["is a file", "expected a folder"]
        case "no test split":
            shutil.rmtree(tree / "test")
            return ["has train/ but no test/", "data.test_split"]
        case "no train split":
            shutil.rmtree(tree / "train")
            return ["has test/ but no train/", "data.train_split"]
        case "empty class":
            (tree / "train/emu").mkdir()
            return ["no images in train/emu/"]
        case "class in one split":
            write_tree(tree, {"train/emu/1.jpg": encoded(picture(0))})
            return ["differ in their classes", "only in train/: emu"]
        case "class in the other split":
            write_tree(tree, {f"test/{c}/1.jpg": encoded(picture(0)) for c in "efghijk"})
            return ["only in test/: e, f, g, h, i and 2 more"]
        case "file beside classes":
            write_tree(tree, {"train/labels.csv": b"1,2"})
            return ["train/labels.csv lies beside the class folders", "train/CLASS/IMAGE"]
        case "one class":
            shutil.rmtree(tree / "train/dog")
            shutil.rmtree(tree / "test/dog")
            return ["found 1 class folders in train/", "at least two"]
        case "nothing":
            shutil.rmtree(tree)
            tree.mkdir()
            return ["found 0 class folders in the top folder"]
        case "dead link":
            (tree / "train/cat/x.jpg").symlink_to(tree / "nowhere")
            return ["train/cat/x.jpg", "link to nothing"]
        case "pipe":
            os.mkfifo(tree / "train/cat/x.jpg")
            return ["train/cat/x.jpg", "neither a file nor a folder"]
        case "odd name":
            write_tree(tree, {"train/cat/a\nb.jpg": b"x"})
            return [r"a\nb.jpg", "not printable"]


@pytest.mark.parametrize(
    "what",
    [
        "missing path",
        "a file",
        "no test split",
        "no train split",
        "empty class",
        "class in one split",
        "class in the other split",
        "file beside classes",
        "one class",
        "nothing",
        "dead link",
        "pipe",
        "odd name",
    ],
)
def test_a_wrong_tree_is_refused_naming_place_and_remedy(tree, what):
    expected = damage(tree, what)
    with pytest.raises(SourceError) as caught:
        read(tree)
    for part in [str(tree), *expected]:
        assert part in str(caught.value)


@pytest.mark.parametrize("names", [("training", "validation"), ("Train", "Val", "Test")])
def test_folders_called_as_splits_are_not_taken_for_classes(tmp_path, names):
    files = {f"{name}/{kind}/0.jpg": b"x" for name in names for kind in ("cat", "dog")}
    with pytest.raises(SourceError, match=r"folders \w+, \w+.* are called as splits .*train_split"):
        folder_source(str(write_tree(tmp_path / "tree", files)), "train", "test", tmp_path)
