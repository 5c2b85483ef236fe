"""Which samples of a tar go through each step of its making together.

A step of Python is slow when an image has driven what it needs out of a core's cache. Images that
are read together, then looked at, hashed and written about, need each step's code once.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from data.direct_file import BUFFER_BYTES, DISK_BLOCK_BYTES
from data.plan import PlannedSample, TarPlan
from data.sample_json import JSON_BYTES
from data.tar_format import BLOCK_BYTES
from data.tar_sink import planned_bytes

NUM_TOGETHER: Final = 16
BYTES_TOGETHER: Final = BUFFER_BYTES - DISK_BLOCK_BYTES  # beside a block that was not full


def groups_of(
    plan: TarPlan, samples: Sequence[PlannedSample], class_names: Sequence[str]
) -> Iterator[list[PlannedSample]]:
    """Cut into groups whose images have foreseeable places, but for what follows the last one."""
    group: list[PlannedSample] = []
    num_bytes = 0
    for sample in samples:
        size = planned_bytes(sample.location.num_bytes)
        if group and num_bytes + size > BYTES_TOGETHER:
            yield group
            group, num_bytes = [], 0
        group.append(sample)
        num_bytes += size
        foreseeable = _is_foreseeable(plan, sample, class_names[sample.label])
        if len(group) == NUM_TOGETHER or not foreseeable:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _is_foreseeable(plan: TarPlan, sample: PlannedSample, class_name: str) -> bool:
    """True when a sample's JSON surely takes one block.

    Where every image is decoded there is nothing to gain: that takes ten times as long as all else.
    """
    if plan.decode_all or plan.shrinking is not None or sample.annotation is not None:
        return False
    text = class_name + sample.name  # of which JSON writes quotes and backslashes as two
    plain = text.isascii() and text.isprintable()
    return plain and JSON_BYTES + 2 * len(text) <= BLOCK_BYTES
