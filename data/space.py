"""Room on a disk, asked for before it is needed."""

import shutil
from pathlib import Path


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
