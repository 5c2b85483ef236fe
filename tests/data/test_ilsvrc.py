"""ILSVRC-2012's official archives, in miniature: what goes in comes out, or staging refuses."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest
import scipy.io

from data.config import DataConfig, StagingConfig
from data.decode import decode_rgb
from data.sources.fingerprint import MISSING, fingerprint
from data.sources.ilsvrc import ilsvrc_source
from data.sources.source import SourceError
from data.staging import stage
from tests.data.miniature.archives import meta, tarred, write_miniature
from tests.data.miniature.check import differences
from tests.data.miniature.photos import BROKEN_EXIF, CMYK, PNG, SIDEWAYS


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    return write_miniature(tmp_path_factory.mktemp("ilsvrc"))


def config_of(folder: Path) -> DataConfig:
    return DataConfig(
        name="mini",
        source="ilsvrc2012",
        path=str(folder),
        staging=StagingConfig(samples_per_tar=1000),
    )


def test_the_miniature_is_complete_and_as_dirty_as_the_real_one(mini):
    assert len(mini.class_names) == 1000
    for stem in (*CMYK, PNG, BROKEN_EXIF, *SIDEWAYS):
        assert stem in mini.train or stem in mini.val
    assert mini.train[PNG].data.startswith(b"\x89PNG")
    with tarfile.open(mini.folder / "ILSVRC2012_devkit_t12.tar.gz") as tar:
        truth = tar.extractfile(
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
        ).read()
        synsets = scipy.io.loadmat(
            io.BytesIO(tar.extractfile("ILSVRC2012_devkit_t12/data/meta.mat").read()),
            squeeze_me=True,
        )["synsets"]
    assert len(synsets) == 1860
    leaves = {int(row[0]): row[1] for row in synsets if row[4] == 0}  # as others read it
    by_id = [leaves[int(line)] for line in truth.split()]
    assert by_id == [photo.wnid for photo in mini.val.values()]
    assert [leaves[number] for number in range(1, 1001)] != mini.class_names


def test_staging_gives_exactly_what_went_in_sample_by_sample(mini, tmp_path):
    result = stage(config_of(mini.folder), tmp_path)
    assert list(differences(mini, result.folder)) == []


def test_every_sample_of_the_miniature_is_decoded_to_its_size(mini):
    for photo in [*mini.train.values(), *mini.val.values()][::7]:
        assert decode_rgb(photo.data, 1000).shape == (photo.height, photo.width, 3)


@pytest.fixture
def copy(mini, tmp_path):
    """A folder of links to the miniature's archives: one can be replaced. Without digests."""
    for path in mini.folder.iterdir():
        if path.name != "MD5SUMS":
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def replaced(path: Path, change) -> None:
    """Rewrite an archive with other members: `change` takes and gives name → bytes."""
    with tarfile.open(path) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
    path.unlink()
    data = tarred(change(files))
    path.write_bytes(gzip.compress(data) if "gz" in path.suffix else data)


def without(*names):
    return lambda files: {n: d for n, d in files.items() if not n.endswith(names)}


def with_member(name, data):
    return lambda files: files | {name: data}


def with_part(name, change):
    """Change the content of the member whose name ends so."""
    return lambda files: {n: change(d) if n.endswith(name) else d for n, d in files.items()}


TRAIN, VAL, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "devkit_t12.tar.gz"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@pytest.mark.parametrize(
    ("archive", "change", "parts"),
    [
        (TRAIN, without("n02085620.tar"), ["no images of n02085620", "1 of 1000 classes"]),
        (TRAIN, with_member("n99999999.tar", tarred({"n99999999_1.JPEG": b"x"})),
         ["member 'n99999999.tar/n99999999_1.JPEG'", "of the 1000 classes"]),
        (TRAIN, with_part("n02085620.tar", lambda d: tarred({"n02105855_1.JPEG": b"x"})),
         ["member 'n02085620.tar/n02105855_1.JPEG'"]),
        (TRAIN, with_part("n02085620.tar", lambda d: tarred({"n02085620_1.JPEG": b"x"})),
         ["n02085620 has 1, not 2"]),
        (TRAIN, with_part("n02085620.tar", lambda d: d[:700]),
         ["member 'n02085620.tar'", "unexpected end"]),
        (TRAIN, with_part("n02085620.tar", lambda d: tarred({"a.tar": tarred({"b.tar": b""})})),
         ["member 'n02085620.tar/a.tar'", "nested too deep"]),
        (VAL, without("00000017.JPEG", "00000900.JPEG"), ["2 of 1000 images", "17, 900"]),
        (VAL, with_member("ILSVRC2012_val_00001001.JPEG", b"x"), ["00001001", "1 to 1000"]),
        (KIT, without(TRUTH), [f"holds no data/{TRUTH}"]),
        (KIT, without("meta.mat"), ["holds no data/meta.mat"]),
        (KIT, with_part(TRUTH, lambda d: b"1001\n" + d), [f"{TRUTH}, line 1", "1001 is no class"]),
        (KIT, with_part(TRUTH, lambda d: d + b"cat\n"), [f"{TRUTH}, line 1001", "'cat'"]),
        (KIT, with_part(TRUTH, lambda d: d[:-4]), [VAL, "numbered 1 to 999"]),
        (KIT, with_part("meta.mat", lambda d: d[:2000]), ["meta.mat is"]),
        (KIT, with_part("meta.mat", lambda d: b"MATLAB"), ["meta.mat is no MATLAB level-5"]),
    ],
)  # fmt: skip
def test_what_is_missing_or_too_much_is_named(copy, archive, change, parts):
    (path,) = copy.glob(f"*{archive}")
    replaced(path, change)
    with pytest.raises(SourceError) as caught:
        ilsvrc_source(str(copy), check_digests=False, work=copy)
    for part in (str(copy), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("num_classes", [999, 1001])
def test_another_number_of_classes_than_the_kit_says_is_refused(copy, mini, num_classes):
    wnids = [*mini.class_names, "n99999999"][:num_classes]
    ids = {wnid: number for number, wnid in enumerate(wnids, 1)}
    kit = copy / "ILSVRC2012_devkit_t12.tar.gz"
    truth = b"1\n" * 1000
    replaced(
        kit,
        lambda files: {
            n: truth if n.endswith(TRUTH) else meta(ids, dict.fromkeys(ids, 2))
            for n in files
            if n.endswith((TRUTH, "meta.mat"))
        },
    )
    with pytest.raises(SourceError, match=r"of the 999 classes|1 of 1001 classes are missing"):
        ilsvrc_source(str(copy), check_digests=False, work=copy)


def test_a_blacklist_of_other_images_is_refused(copy):
    (path,) = copy.glob("*blacklist.txt")
    text = path.read_text()
    path.unlink()
    path.write_text(f"{text}1001\n")
    line = len(text.splitlines()) + 1
    with pytest.raises(SourceError, match=rf"blacklist.txt, line {line}: 1001 is the number of no"):
        ilsvrc_source(str(copy), check_digests=False, work=copy)


def test_missing_archives_are_named(copy):
    (copy / TRAIN).unlink()
    (copy / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(SourceError, match=r"lacks ILSVRC2012_img_train.tar, ILSVRC2012_devkit"):
        ilsvrc_source(str(copy), check_digests=False, work=copy)


def test_boxes_are_optional(copy, mini):
    for path in copy.glob("*bbox*"):
        path.unlink()
    source = ilsvrc_source(str(copy), check_digests=False, work=copy)
    annotations = [s.annotation for s in source.samples("test") if s.annotation]
    assert len(annotations) == 1000 // 28  # what the blacklist says
    assert not any(annotation.boxes for annotation in annotations)


def test_one_flipped_bit_in_any_archive_is_found_by_its_digest(mini, tmp_path):
    for name in (TRAIN, "ILSVRC2012_bbox_val_v3.tgz"):
        folder = tmp_path / name
        folder.mkdir()
        for path in mini.folder.iterdir():
            (folder / path.name).symlink_to(path)
        data = bytearray((folder / name).read_bytes())
        data[data.index(b"\xff\xda") if name == TRAIN else 4] ^= 1  # a scan; gzip's time stamp
        (folder / name).unlink()
        (folder / name).write_bytes(data)
        with pytest.raises(SourceError) as caught:
            ilsvrc_source(str(folder), check_digests=True, work=folder)
        for part in (name, f"after {len(data)} bytes", "MD5SUMS says", "check_digests=false"):
            assert part in str(caught.value)
        if name != TRAIN:
            ilsvrc_source(str(folder), check_digests=False, work=folder)


def test_a_replaced_archive_is_noticed_though_the_folder_looks_the_same(copy):
    before = fingerprint(config_of(copy))
    assert before == fingerprint(config_of(copy))
    data = (copy / VAL).read_bytes()
    (copy / VAL).unlink()
    (copy / VAL).write_bytes(data)
    assert fingerprint(config_of(copy)) != before
    (copy / VAL).unlink()
    assert fingerprint(config_of(copy)) == MISSING
