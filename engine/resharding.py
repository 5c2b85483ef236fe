"""A checkpoint on another number of shards: the same vectors, cut anew. Nothing is computed."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine import checkpoint
from engine.checkpoint import Checkpoint, CheckpointError, ShardFile
from engine.layout import Layout

log = logging.getLogger(__name__)


def reshard(
    found: Checkpoint,
    checkpoints: Path,
    identity: Mapping[str, str],
    layout: Layout,
    slices: Sequence[slice],
) -> Checkpoint:
    """Write `found` once more, as the newest checkpoint, on as many shards as there are `slices`.

    It says the same of samples, steps and time. A shard's version is the lowest of those that it
    is cut from: they differ where a push was refused by, or had reached, some shards only. At no
    time is more in memory than one shard to be read and one, twice, to be written.

    Args:
        identity: of this run.
        layout: of the parameter vector; it says where the shards of `found` cut it.
        slices: where those of this run cut it.

    Raises:
        CheckpointError: `found` is damaged, or was cut otherwise.
        OSError: it cannot be written; `found` is still the newest.
    """
    before, id = layout.slices(len(found.shards)), checkpoint.next_id(checkpoints)
    folder = checkpoint.partial_folder(checkpoints, id)
    shards = []
    for index, part in enumerate(slices):
        vectors = cut_anew(before, part, found.read_shard)
        version = min(found.shards[shard].version for shard, _ in _within(before, part))
        shards.append(ShardFile(version, checkpoint.write_shard(folder, index, vectors)))
    made = checkpoint.commit(
        checkpoints,
        id,
        identity=identity,
        shards=shards,
        counted=found.counted,
        num_steps=found.num_steps,
        elapsed_s=found.elapsed_s,
        final=found.final,
        keep=id + 1,  # the next one forgets as many as the configuration wants
    )
    log.info("%s: %d shards made of %d of %s", made.folder, len(slices), len(before), found.folder)
    return made


def cut_anew(
    before: Sequence[slice], part: slice, read: Callable[[int], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The slice `part` of every vector, read from shards that cut them at `before`.

    Args:
        read: the vectors of one shard by name, each as long as its slice.

    Raises:
        CheckpointError: a shard's vector has another length.
    """
    pieces: dict[str, list[Tensor]] = {}
    for shard, own in _within(before, part):
        count = before[shard].stop - before[shard].start
        for name, vector in read(shard).items():
            if vector.numel() != count:
                raise CheckpointError(
                    f"{name!r} of shard {shard} has {vector.numel()} elements, want {count}: "
                    "it was cut by another version of this program"
                )
            pieces.setdefault(name, []).append(vector[own].clone())
    return {name: torch.cat(parts) for name, parts in pieces.items()}


def _within(before: Sequence[slice], part: slice) -> Iterator[tuple[int, slice]]:
    """The shards that have a piece of `part`, and where in their slice it lies."""
    for shard, old in enumerate(before):
        start, stop = max(old.start, part.start), min(old.stop, part.stop)
        if start < stop:
            yield shard, slice(start - old.start, stop - old.start)
