"""Staging: the same bytes whoever does it and however often it dies, and nothing done twice."""

import hashlib
import json
import multiprocessing
import os
import tarfile
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import webdataset

from data.config import DataConfig, InputConfig
from data.manifest import MANIFEST, ManifestError, read_manifest
from data.minibatches import TrainingReader
from data.sole_writer import sole_writer
from data.sources.source import SourceError
from data.staging import stage, staged_folder
from data.test_images import TestReader
from tests.data.pictures import contents, encoded, images_of, picture, write_archive, write_tree
from tests.data.staged import config_of, dies_at


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", images_of())


@pytest.fixture
def config(tree):
    return config_of(tree)


def samples_of(folder, split):
    """The staged samples of one split as plain webdataset reads them."""
    urls = [str(path) for path in sorted(folder.glob(f"{split}-*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset does not close its files
        return list(webdataset.WebDataset(urls, shardshuffle=False))


def in_two_processes(work, plans):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        yield from pool.map(work, plans)


def backwards_and_twice(work, plans):
    for plan in reversed(plans):
        work(plan)
        yield work(plan)


def test_plain_webdataset_reads_every_sample_with_its_original_bytes(config, tmp_path):
    folder = stage(config, tmp_path).folder
    for split in ("train", "test"):
        samples = samples_of(folder, split)
        read = {json.loads(sample["json"])["name"]: sample["jpg"] for sample in samples}
        assert read == {n: d for n, d in images_of().items() if n.startswith(split)}
        for sample in samples:
            about = json.loads(sample["json"])
            assert about["name"].split("/")[1] == about["class_name"]
            assert ("cat", "dog")[int(sample["cls"])] == about["class_name"]
            assert (about["width"], about["height"]) == (20, 16)


def test_keys_are_unique_and_hold_no_dots(tmp_path):
    names = [
        f"{s}/{c}/{n}.jpg" for s in ("train", "test") for c in "ab" for n in ("x.y", "x_y", "x")
    ]
    tree = write_tree(tmp_path / "tree", {n: encoded(picture(i)) for i, n in enumerate(names)})
    folder = stage(config_of(tree), tmp_path).folder
    for split in ("train", "test"):
        keys = [sample["__key__"] for sample in samples_of(folder, split)]
        assert len(keys) == 6  # webdataset would have joined equal keys and cut them at a dot
        assert len(set(keys)) == 6


def test_classes_are_mixed_over_nearly_equal_tars(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of(num_train=101, num_test=1))
    result = stage(config_of(tree, samples_per_tar=20), tmp_path)
    sizes = [entry.num_samples for entry in result.manifest.train]
    assert sum(sizes) == 202
    assert max(sizes) <= 20
    assert max(sizes) - min(sizes) <= 1
    labels = [sample["cls"] for sample in samples_of(result.folder, "train")]
    for tar in range(len(sizes)):
        start = sum(sizes[:tar])
        assert set(labels[start : start + sizes[tar]]) == {b"0", b"1"}


def test_the_manifest_says_what_is_there(config, tmp_path):
    result = stage(config, tmp_path)
    manifest = read_manifest(result.folder)
    assert manifest == result.manifest
    assert manifest.class_names == ("cat", "dog")
    files = {p.name for p in result.folder.iterdir()}
    assert files == {MANIFEST} | {entry.file for entry in manifest.entries}
    for entry in manifest.entries:
        data = (result.folder / entry.file).read_bytes()
        assert entry.num_bytes == len(data)
        with tarfile.open(result.folder / entry.file) as tar:
            assert len(tar.getnames()) == 3 * entry.num_samples
            for member in reversed([m for m in tar.getmembers() if m.name.endswith(".jpg")]):
                image = slice(member.offset_data, member.offset_data + member.size)
                about = json.load(tar.extractfile(member.name.replace(".jpg", ".json")))
                assert about["sha256"] == hashlib.sha256(data[image]).hexdigest()
                data = data[: image.start] + data[image.stop :]
        assert entry.sha256 == hashlib.sha256(data).hexdigest()


def test_mean_rgb_is_that_of_all_training_pixels(tmp_path):
    images = images_of(kind="PNG")
    images["train/cat/large.png"] = encoded(picture(1, 50, 40), "PNG")
    manifest = stage(config_of(write_tree(tmp_path / "tree", images)), tmp_path).manifest
    pixels = [
        np.asarray(picture(seed)).reshape(-1, 3)
        for seed, name in enumerate(images_of(kind="PNG"))
        if name.startswith("train")
    ]
    pixels.append(np.asarray(picture(1, 50, 40)).reshape(-1, 3))
    np.testing.assert_allclose(manifest.mean_rgb, np.concatenate(pixels).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("run_parallel", [in_two_processes, backwards_and_twice])
def test_who_makes_the_tars_in_which_order_changes_no_byte(config, tmp_path, run_parallel):
    reference = stage(config, tmp_path / "serial").folder
    other = stage(config, tmp_path / "other", run_parallel).folder
    assert contents(other) == contents(reference)


def test_an_archive_and_its_tree_give_the_same_tars(tree, tmp_path):
    archive = write_archive(tmp_path / "pets.tar.gz", images_of(), "w:gz", "pets/")
    of_tree = stage(config_of(tree), tmp_path).manifest
    of_archive = stage(config_of(archive, "archive"), tmp_path).manifest
    assert [e.sha256 for e in of_archive.entries] == [e.sha256 for e in of_tree.entries]


@pytest.mark.parametrize(("source", "stride"), [("folder", 1), ("archive", 3)])
def test_killed_anywhere_the_same_command_ends_with_the_same_bytes(tmp_path, source, stride):
    images = images_of(num_train=3, num_test=1)
    path = write_tree(tmp_path / "tree", images)
    if source == "archive":
        path = write_archive(tmp_path / "pets.tar.gz", images, "w:gz")
    config = config_of(path, source, samples_per_tar=3)
    reference = contents(stage(config, tmp_path / "reference").folder)
    for step in range(1, 10_000, stride):
        root = tmp_path / f"killed-{step}"
        if not dies_at(step, lambda root=root: stage(config, root)):
            break
        folder = staged_folder(root, config)
        finished = {p.name: p.stat().st_ino for p in folder.glob("*.tar")}
        result = stage(config, root)
        assert contents(folder) == reference
        kept = [n for n, inode in finished.items() if (folder / n).stat().st_ino == inode]
        assert len(finished) - len(kept) <= 1  # the one that was renamed but not yet recorded
        assert result.tars_kept == len(kept)
    assert step > 20  # so many operations there were


def test_tars_of_an_interrupted_run_are_not_kept_when_the_source_has_changed_since(
    config, tree, tmp_path
):
    def interrupted(work, plans):
        for plan in plans[:3]:
            yield work(plan)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(config, tmp_path / "changed", interrupted)
    name = next(name for name in images_of() if name.startswith("train"))
    write_tree(tree, {name: encoded(picture(99, 40, 40))})
    result = stage(config, tmp_path / "changed")
    assert contents(result.folder) == contents(stage(config, tmp_path / "fresh").folder)
    assert result.tars_kept == 2  # those without the changed image


def test_a_rerun_does_nothing_even_when_the_original_is_gone(config, tree, tmp_path):
    first = stage(config, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in first.folder.iterdir()}
    tree.rename(tmp_path / "gone")

    def must_not_run(work, plans):
        raise AssertionError("nothing was to do")

    again = stage(config, tmp_path, must_not_run)
    assert (again.tars_written, again.tars_kept) == (0, first.tars_written)
    assert again.manifest == first.manifest
    assert {p: p.stat().st_mtime_ns for p in first.folder.iterdir()} == before


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_only_a_missing_or_cut_tar_is_made_again(config, tmp_path, damage):
    first = stage(config, tmp_path)
    whole = contents(first.folder)
    victim = first.folder / first.manifest.train[1].file
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-512])
    again = stage(config, tmp_path)
    assert again.tars_written == 1
    assert contents(first.folder) == whole


def test_a_source_that_changed_after_staging_is_refused(config, tree, tmp_path):
    folder = stage(config, tmp_path).folder
    write_tree(tree, {"train/cat/new.jpg": encoded(picture(99))})
    with pytest.raises(SourceError, match=f"{tree}: changed after it was staged.*delete {folder}"):
        stage(config, tmp_path)


def test_what_decides_the_bytes_decides_the_folder_and_nothing_else_does(tree, tmp_path):
    base = staged_folder(tmp_path, config_of(tree))
    assert base.parent == tmp_path
    assert base.name.startswith("pets-")
    for change in (
        {"shuffle_seed": 1},
        {"samples_per_tar": 6},
        {"max_train_samples": 7},
        {"max_test_samples": 2},
        {"max_pixels": 1000},
    ):
        assert staged_folder(tmp_path, config_of(tree, **change)) != base
    assert staged_folder(tmp_path, config_of(tree, max_bad_fraction=0.5)) == base
    assert staged_folder(tmp_path, config_of(tree / ".." / tree.name)) == base


def test_another_seed_deals_the_samples_out_differently(tree, tmp_path):
    orders = [
        [
            s["jpg"]
            for s in samples_of(stage(config_of(tree, shuffle_seed=n), tmp_path).folder, "train")
        ]
        for n in (0, 1)
    ]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_limits_take_a_shuffled_part(tree, tmp_path):
    config = config_of(tree, max_train_samples=7, max_test_samples=2)
    folder = stage(config, tmp_path).folder
    assert len(samples_of(folder, "train")) == 7
    assert len(samples_of(folder, "test")) == 2
    assert {sample["cls"] for sample in samples_of(folder, "train")} == {b"0", b"1"}


BAD = {"train/cat/note.txt": b"hello, I am no image", "train/dog/zero.jpg": b""}


@pytest.mark.parametrize("source", ["folder", "archive"])
def test_bad_images_stop_staging_naming_place_member_and_reason(tmp_path, source):
    images = images_of() | BAD
    path = write_tree(tmp_path / "tree", images)
    if source == "archive":
        path = write_archive(tmp_path / "pets.tar.gz", images, "w:gz")
    config = config_of(path, source, samples_per_tar=100)
    with pytest.raises(SourceError) as caught:
        stage(config, tmp_path)
    for part in (
        str(path),
        "2 or more of 28 images cannot be used",
        "train/cat/note.txt is no image of a known format: it starts with b'hello, I'",
        "train/dog/zero.jpg is empty: 0 bytes",
        "data.staging.max_bad_fraction=0.0",
    ):
        assert part in str(caught.value)
    assert not (staged_folder(tmp_path, config) / MANIFEST).exists()


def test_tolerated_bad_images_are_left_out_and_listed(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of() | BAD)
    manifest = stage(config_of(tree, max_bad_fraction=0.1), tmp_path).manifest
    assert {bad.member: bad.reason for bad in manifest.quarantined} == {
        "train/cat/note.txt": "is no image of a known format: it starts with b'hello, I'",
        "train/dog/zero.jpg": "is empty: 0 bytes",
    }
    assert sum(entry.num_samples for entry in manifest.train) == 20
    with pytest.raises(SourceError, match="2 or more of 28"):
        stage(config_of(tree), tmp_path)  # the same folder, less tolerant


def test_a_tar_may_end_up_empty_when_bad_images_are_tolerated(tmp_path):
    images = images_of(num_train=2)
    images["train/cat/0000.jpg"] = b""
    config = config_of(
        write_tree(tmp_path / "tree", images), samples_per_tar=1, max_bad_fraction=1.0
    )
    folder = stage(config, tmp_path).folder
    reader = TrainingReader(folder, InputConfig(side_min=16, side_max=16, crop_size=16), seed=0)
    assert sorted(reader.tar_sizes) == [0, 1, 1, 1]
    assert list(reader.minibatches(0, reader.tar_sizes.index(0), 0, 0, 5)) == []
    assert len(list(TestReader(folder, "train"))) == 3


def test_work_done_before_a_bad_image_was_found_is_kept(tmp_path):
    tree = write_tree(tmp_path / "tree", images_of() | BAD)
    with pytest.raises(SourceError):
        stage(config_of(tree), tmp_path)
    assert stage(config_of(tree, max_bad_fraction=0.5), tmp_path).tars_kept >= 1


def test_an_image_above_the_pixel_cap_is_bad(tree, tmp_path):
    write_tree(tree, {"train/cat/large.jpg": encoded(picture(0, 100, 100))})
    with pytest.raises(SourceError, match=r"large.jpg has 100x100 = 10000 pixels.*max_pixels=999"):
        stage(config_of(tree, max_pixels=999), tmp_path)


def test_a_training_set_of_nothing_but_bad_images_is_refused(tmp_path):
    images = {n: b"" if n.startswith("train") else d for n, d in images_of().items()}
    tree = write_tree(tmp_path / "tree", images)
    with pytest.raises(SourceError, match="no usable image in the training set"):
        stage(config_of(tree, max_bad_fraction=1.0), tmp_path)


def test_a_damaged_manifest_stops_staging(config, tmp_path):
    path = stage(config, tmp_path).folder / MANIFEST
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ManifestError, match=str(path)):
        stage(config, tmp_path)


def test_two_processes_staging_the_same_folder_take_turns(config, tmp_path):
    entered, may_go = threading.Event(), threading.Event()
    results = {}

    def slowly(work, plans):
        entered.set()
        assert may_go.wait(10)
        return map(work, plans)

    first = threading.Thread(target=lambda: results.update(a=stage(config, tmp_path, slowly)))
    second = threading.Thread(target=lambda: results.update(b=stage(config, tmp_path)))
    first.start()
    assert entered.wait(10)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    may_go.set()
    first.join(10)
    second.join(10)
    assert results["a"].tars_written == 6
    assert (results["b"].tars_written, results["b"].tars_kept) == (0, 6)


@pytest.mark.parametrize(
    ("name", "num_train", "num_test"),
    [("digits", 1442, 355)],
)
def test_a_built_in_set_is_staged_by_its_name(tmp_path, name, num_train, num_test):
    manifest = stage(DataConfig(name=name, source="builtin"), tmp_path).manifest
    assert sum(entry.num_samples for entry in manifest.train) == num_train
    assert sum(entry.num_samples for entry in manifest.test) == num_test


def test_an_original_that_is_cut_after_it_was_listed_is_told(tmp_path):
    archive = write_archive(tmp_path / "pets.tar", images_of())

    def after_a_cut(work, plans):
        os.truncate(archive, 600)
        return map(work, plans)

    message = rf"{archive}: \d+ of \d+ bytes at offset \d+: the file became shorter"
    with pytest.raises(SourceError, match=message):
        stage(config_of(archive, "archive"), tmp_path / "staged", after_a_cut)
    assert not list((tmp_path / "staged").rglob("*.tar"))


def test_a_refusal_before_any_tar_is_finished_leaves_nothing_behind(tmp_path):
    images = images_of() | {"train/emu/one.jpg": b"of a class without test images"}
    config = config_of(write_tree(tmp_path / "tree", images))
    with pytest.raises(SourceError, match="only in train/: emu"):
        stage(config, tmp_path / "staged")
    assert list((tmp_path / "staged").iterdir()) == []


def test_a_refusal_keeps_the_tars_that_are_finished(tmp_path):
    images = images_of()
    tree = write_tree(tmp_path / "tree", images)
    config = config_of(tree, samples_per_tar=5)
    bad = next(iter(images))
    (tree / bad).write_bytes(b"not an image")

    def bad_one_last(work, plans):
        def has_bad(plan):
            return any(sample.name == bad for sample in plan.samples)

        return map(work, sorted(plans, key=has_bad))

    with pytest.raises(SourceError, match="cannot be used"):
        stage(config, tmp_path / "staged", bad_one_last)
    finished = len(list(staged_folder(tmp_path / "staged", config).glob("*.tar")))
    assert finished > 1
    (tree / bad).write_bytes(images[bad])
    assert stage(config, tmp_path / "staged").tars_kept == finished - 1


def test_whoever_waited_for_a_folder_that_is_gone_makes_it_again(tree, tmp_path):
    config = config_of(tree)
    reference = contents(stage(config, tmp_path / "reference").folder)
    folder = staged_folder(tmp_path, config)
    with sole_writer(folder):
        waiting = threading.Thread(target=stage, args=(config, tmp_path))
        waiting.start()
        time.sleep(0.2)
        folder.rmdir()
    waiting.join(60)
    assert contents(folder) == reference
