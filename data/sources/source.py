"""What a source of labelled images gives to staging."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, get_args

from data.boxes import Annotation
from data.sources.errors import SourceError as SourceError  # where sources look for it
from data.sources.places import read_range
from data.space import full_disk_told

Split = Literal["train", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)


class ByteRange(NamedTuple):
    """Where the bytes of one image lie: so any process can read any image, in any order.

    `path` is a URL or a path; a string because a data set has millions of these and a Path takes
    five times as much.
    """

    path: str
    offset: int
    num_bytes: int

    def read(self) -> bytes:
        data = read_range(self.path, self.offset, self.num_bytes)
        self.require_whole(len(data))
        return data

    def require_whole(self, num_read: int) -> None:
        """Refuse fewer bytes than there were.

        Raises:
            SourceError: the file is shorter than when it was listed.
        """
        if num_read != self.num_bytes:
            raise SourceError(
                f"{self.path}: {num_read} of {self.num_bytes} bytes at offset {self.offset}: "
                "the file became shorter after staging had listed it"
            )


NO_LABEL: Final = -1  # not known yet


class SourceSample(NamedTuple):
    """One labelled image. `name` is the original file's or member's, unique in the source."""

    name: str
    label: int  # index into the source's class_names
    location: ByteRange
    archive: str  # or folder that it came in, for messages: `location` may be in a spool
    annotation: Annotation | None = None


class Source(Protocol):
    """Labelled images in two splits. The order of samples carries no meaning."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """A label is an index into it; sorted, which for ImageNet is the order of WNIDs."""
        ...

    def samples(self, split: Split) -> Iterable[SourceSample]: ...


@dataclass(frozen=True)
class ListedSource:
    """A source whose samples are all known."""

    class_names: tuple[str, ...]
    train: Sequence[SourceSample]
    test: Sequence[SourceSample]

    def samples(self, split: Split) -> Sequence[SourceSample]:
        return self.train if split == "train" else self.test


class Spool:
    """Image bytes appended to one file, for sources that offer no random access.

    Raises:
        NotEnoughSpace: the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._file = path.open("wb")
        self._offset = 0

    @property
    def folder(self) -> Path:
        return Path(self._path).parent

    def append(self, data: bytes) -> ByteRange:
        """Readable by others only after the spool is closed."""
        with self._full_disk_told():
            self._file.write(data)
        location = ByteRange(self._path, self._offset, len(data))
        self._offset += len(data)
        return location

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # After an error what was not written yet does not matter, nor that it cannot be.
        with self._full_disk_told() if kind is None else suppress(OSError):
            self._file.close()

    def _full_disk_told(self) -> AbstractContextManager[None]:
        return full_disk_told(Path(self._path), "what the archive holds, unpacked")
