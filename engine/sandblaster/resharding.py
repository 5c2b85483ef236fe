"""An iteration's record on another number of shards: the same vectors, cut anew."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from engine import checkpoint
from engine.identity import SHARDS
from engine.layout import Layout
from engine.resharding import cut_anew
from engine.sandblaster.record import IterationRecord, read_record, record_folder, write_record


def reshard_record(
    records: Path, identity: Mapping[str, str], layout: Layout, slices: Sequence[slice]
) -> None:
    """Write the newest record once more, for as many shards as there are `slices`.

    Nothing is done where there is no record, or it is of that number already.

    Raises:
        CheckpointMismatchError: it belongs to a run that differs in more than the shards.
        CheckpointError: a vector is damaged, or was cut otherwise.
        OSError: it cannot be written; the record is as it was.
    """
    record = read_record(records, identity, resharding=True)
    if record is None or record.identity[SHARDS] == identity[SHARDS]:
        return
    number = record.number + 1
    folder = record_folder(records, number)
    before, read = layout.slices(len(record.kept)), partial(_kept, records, record)
    kept = []
    for index, part in enumerate(slices):
        digests = checkpoint.write_shard(folder, index, cut_anew(before, part, read))
        kept.append({n: {"folder": folder.name, "sha256": d} for n, d in digests.items()})
    write_record(records, replace(record, number=number, identity=dict(identity), kept=kept))


def _kept(records: Path, record: IterationRecord, shard: int) -> dict[str, Tensor]:
    """Every vector of one shard, by name."""
    vectors: dict[str, Tensor] = {}
    kept = record.kept[shard]
    for folder in {entry["folder"] for entry in kept.values()}:
        digests = {name: e["sha256"] for name, e in kept.items() if e["folder"] == folder}
        path = records / folder / checkpoint.shard_file_name(shard)
        vectors |= checkpoint.read_vectors(path, digests)
    return vectors
