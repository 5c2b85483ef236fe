"""Room on a disk, asked for before it is needed."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

FULL: Final = (errno.ENOSPC, errno.EDQUOT)  # the disk, or what its user may have of it


class NotEnoughSpace(ValueError):
    """A disk lacks room. The text names the folder, what is needed, what is free."""


def require_space(folder: Path, num_bytes: int) -> None:
    """Refuse work in `folder` that would fill its disk.

    Raises:
        NotEnoughSpace: fewer than `num_bytes` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise NotEnoughSpace(
            f"{folder}: staging needs {num_bytes} bytes there and {free} are free: free "
            f"{num_bytes - free} more, or set paths.staged to a larger disk"
        )


@contextmanager
def full_disk_told(path: Path, what: str) -> Iterator[None]:
    """Say `what` is written to `path` when its disk fills up. Nobody else may take that for damage.

    Raises:
        NotEnoughSpace: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NotEnoughSpace(
            f"{path}: its disk is full, while {what} is written there: free room, or set "
            "paths.staged to a larger disk"
        ) from error
