"""Configuration of staging and the input pipeline. Light: imports neither torch nor webdataset."""

from difflib import get_close_matches
from typing import Final, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")
SourceKind = Literal[
    "builtin", "folder", "archive", "ilsvrc2012", "kaggle", "imagenet21k", "voc", "caltech101",
    "caltech256", "webdataset", "parquet",
]  # fmt: skip
BUILTIN_NAMES: Final = ("animal-mnist", "digits", "fashion-mnist")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StagingConfig:
    """From a source's images to pre-shuffled WebDataset tars."""

    samples_per_tar: int = Field(default=512, ge=1)
    shuffle_seed: int = Field(default=0, ge=0)
    max_train_samples: int | None = Field(default=None, ge=1)  # None: all of them
    max_test_samples: int | None = Field(default=None, ge=1)
    max_bad_fraction: float = Field(default=0.0, ge=0.0, le=1.0)  # undecodable images tolerated
    max_pixels: int = Field(default=50_000_000, ge=1)  # refused from the header, before decoding
    # Larger images become JPEGs of this smallest side, pixels; None: all bytes stay as they are.
    smallest_side: int | None = Field(default=None, ge=1)
    jpeg_quality: int = Field(default=95, ge=1, le=100)  # of these
    # False: a JPEG that begins and ends as one is not decoded, and the mean comes from 4 images
    # of 512. Meant for archives whose digest is known: bytes damaged in a scan then come
    # to light in training, as a picture partly grey. True costs 1.5 to 2 ms of a core an image:
    # 40 core minutes for ILSVRC-2012, 7 core hours for ImageNet-21k.
    decode_all: bool = True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InputConfig:
    """From a tar's bytes to a training mini-batch (Simonyan & Zisserman 2015, 3.1)."""

    side_min: int = Field(default=256, ge=1)  # S is drawn from [side_min, side_max], pixels
    side_max: int = Field(default=512, ge=1)
    crop_size: int = Field(default=224, ge=1)
    flip: bool = True
    colour_shift_std: float = Field(default=0.1, ge=0.0)  # Krizhevsky's alpha; 0 switches it off
    cache_bytes: int = Field(default=256_000_000, ge=0)  # decoded images kept by each replica
    prefetch: int = Field(default=4, ge=1)  # mini-batches decoded ahead
    decode_threads: int = Field(default=1, ge=1)

    def __post_init__(self) -> None:
        if self.side_max < self.side_min:
            raise ValueError(f"side_max={self.side_max} is below side_min={self.side_min}")
        if self.side_min < self.crop_size:
            raise ValueError(
                f"side_min={self.side_min} is below crop_size={self.crop_size}: "
                "the crop would not fit into the rescaled image"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """One labelled image data set: where it comes from, how it is staged and read."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")  # names the folder of staged tars
    source: SourceKind
    path: str | None = None  # the folder or archive, or its URL; None for a built-in source
    train_split: str = "train"  # sub-folder of the source that holds the training classes
    test_split: str = "test"
    check_digests: bool = True  # of archives whose digest is known, officially or by a sums file
    archives: tuple[str, ...] = ()  # files of the folder `path` that are read; source=voc
    task: Literal["classification", "action"] = "classification"  # source=voc
    train_per_class: int = Field(default=30, ge=1)  # the sources caltech101 and caltech256
    test_per_class: int | None = Field(default=50, ge=1)  # of these; None: all the rest
    split_seed: int = Field(default=0, ge=0)  # of these: another seed, another split
    image_column: str = "image"  # source=parquet
    label_column: str = "label"  # source=parquet; source=webdataset: the key in .json
    staging: StagingConfig = StagingConfig()
    input: InputConfig = InputConfig()

    def __post_init__(self) -> None:
        if self.source == "builtin" and self.path is not None:
            raise ValueError(f"path={self.path!r} has no meaning for source=builtin")
        if self.source == "builtin" and self.name not in BUILTIN_NAMES:
            nearest = get_close_matches(self.name, BUILTIN_NAMES, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"name={self.name} is no built-in data set: want one of "
                f"{', '.join(BUILTIN_NAMES)}; nearest: {nearest}"
            )
        if self.source != "builtin" and self.path is None:
            raise ValueError(f"source={self.source} needs path: where to read it")
