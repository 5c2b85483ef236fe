"""Checkpoints: one safetensors file a shard and a JSON document. Complete, or invisible.

    checkpoints/000007/{shard-00.safetensors, shard-01.safetensors, checkpoint.json}

Files are written under `000007.partial`, synced, and the folder renamed. The document holds a
SHA-256 of every vector and of itself, what the run is (its identity) and which samples the
vectors contain.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.frames import as_bytes
from engine.identity import check_identity
from engine.ledger import Range

log = logging.getLogger(__name__)
_DOCUMENT = "checkpoint.json"
_FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint is damaged; the message names file and tensor."""


@dataclass(frozen=True)
class ShardFile:
    """What the document says of one shard's file."""

    version: int
    digests: dict[str, str]  # SHA-256 of each vector's bytes by name


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint; vectors are read from its folder on demand."""

    folder: Path
    identity: dict[str, str]
    shards: tuple[ShardFile, ...]
    counted: tuple[Range, ...]
    num_steps: int
    elapsed_s: float
    final: bool

    @property
    def id(self) -> int:
        return int(self.folder.name)

    @property
    def num_counted(self) -> int:
        """Samples whose gradients these parameters contain."""
        return sum(r.stop - r.start for r in self.counted)

    def read_shard(self, shard: int) -> dict[str, Tensor]:
        """All vectors of one shard by name ("values" and the rule's slots).

        Raises:
            CheckpointError: missing, torn or altered.
        """
        path = self.folder / shard_file_name(shard)
        expected = self.shards[shard].digests
        vectors = _load(path)
        if vectors.keys() != expected.keys():
            raise CheckpointError(f"{path}: holds {sorted(vectors)}, want {sorted(expected)}")
        _check_digests(path, vectors, expected)
        return vectors

    def read_parameters(self) -> Tensor:
        """The whole parameter vector, shape (P,)."""
        return torch.cat([self.read_shard(k)["values"] for k in range(len(self.shards))])


def shard_file_name(shard: int) -> str:
    return f"shard-{shard:02d}.safetensors"


def partial_folder(checkpoints: Path, id: int) -> Path:
    """Where the files of checkpoint `id` are written before it is complete."""
    return checkpoints / f"{id:06d}.partial"


def write_shard(folder: Path, shard: int, vectors: Mapping[str, Tensor]) -> dict[str, str]:
    """Write and sync one shard's file into `folder`; return the digest of each vector.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / shard_file_name(shard)
    vectors = {name: vector.cpu() for name, vector in vectors.items()}
    try:
        save_file(vectors, path)
        sync(path)
    except (OSError, SafetensorError) as error:  # the latter wraps the operating system's own
        path.unlink(missing_ok=True)  # what was written of it may be all that the disk lacks
        raise OSError(f"{path}: cannot be written: {error}") from error
    return {name: _digest(vector) for name, vector in vectors.items()}


def read_vectors(path: Path, digests: Mapping[str, str]) -> dict[str, Tensor]:
    """Some of the vectors in a file that `write_shard` wrote, which must have these digests.

    Raises:
        CheckpointError: missing, torn or altered.
    """
    vectors = _load(path)
    if missing := sorted(digests.keys() - vectors.keys()):
        raise CheckpointError(f"{path}: lacks {missing}, holds {sorted(vectors)}")
    _check_digests(path, vectors, digests)
    return {name: vectors[name] for name in digests}


def commit(
    checkpoints: Path,
    id: int,
    *,
    identity: Mapping[str, str],
    shards: Sequence[ShardFile],
    counted: Sequence[Range],
    num_steps: int,
    elapsed_s: float,
    final: bool,
    keep: int,
) -> Checkpoint:
    """Make checkpoint `id` visible, its shard files being written; forget all but `keep`.

    What is left of earlier ones that were never complete is removed.
    """
    partial, folder = partial_folder(checkpoints, id), checkpoints / f"{id:06d}"
    document = {
        "format": _FORMAT,
        "identity": dict(identity),
        "shards": [asdict(shard) for shard in shards],
        "counted": counted,
        "num_steps": num_steps,
        "elapsed_s": elapsed_s,
        "final": final,
    }
    document["sha256"] = _document_digest(document)
    (partial / _DOCUMENT).write_text(json.dumps(document, indent=1))
    sync(partial / _DOCUMENT)
    sync(partial)
    partial.rename(folder)
    sync(checkpoints)
    _prune(checkpoints, keep)
    return read(folder)


def keep(checkpoint: Checkpoint, folder: Path) -> None:
    """Keep `checkpoint` as `folder` too, beyond its turn; the files are shared, not copied."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(checkpoint.folder, partial, copy_function=os.link)
    partial.rename(folder)
    sync(folder.parent)


def newest(
    checkpoints: Path, identity: Mapping[str, str], *, resharding: bool = False
) -> Checkpoint | None:
    """The newest complete checkpoint, None without any; a damaged one is skipped with a warning.

    Args:
        resharding: its number of shards may be another one.

    Raises:
        CheckpointMismatchError: it belongs to a run of another identity.
        CheckpointError: there are checkpoints and all are damaged; the message names each.
    """
    damaged = []
    for folder in sorted(checkpoints.glob("[0-9]" * 6), reverse=True):
        try:
            checkpoint = read(folder)
            check_identity(
                str(folder), "checkpoint", checkpoint.identity, identity, resharding=resharding
            )
            for shard in range(len(checkpoint.shards)):
                checkpoint.read_shard(shard)
        except CheckpointError as error:
            log.warning("checkpoint skipped: %s", error)
            damaged.append(str(error))
            continue
        return checkpoint
    if damaged:
        raise CheckpointError(
            "every checkpoint is damaged:\n"
            + "".join(f"  {line}\n" for line in damaged)
            + f"Starting over would lose the run: restore one of them, or remove {checkpoints} "
            "to begin anew."
        )
    return None


def next_id(checkpoints: Path) -> int:
    """A number that no checkpoint, whole or partial, has yet. Torn partial ones are removed."""
    for partial in checkpoints.glob("*.partial"):
        shutil.rmtree(partial)
    return max((int(f.name) for f in checkpoints.glob("[0-9]" * 6)), default=-1) + 1


def read(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`; its vectors are checked when they are read.

    Raises:
        CheckpointError: the document is missing, torn or altered.
    """
    document = _read_document(folder / _DOCUMENT)
    return Checkpoint(
        folder=folder,
        identity=document["identity"],
        shards=tuple(ShardFile(**shard) for shard in document["shards"]),
        counted=tuple(Range(*r) for r in document["counted"]),
        num_steps=document["num_steps"],
        elapsed_s=document["elapsed_s"],
        final=document["final"],
    )


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        format, digest = document["format"], document.pop("sha256", None)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: no readable checkpoint: {error!r}") from error
    if format != _FORMAT:
        raise CheckpointError(f"{path}: format {format}, want {_FORMAT}")
    if (found := _document_digest(document)) != digest:
        raise CheckpointError(f"{path}: was altered: SHA-256 {found}, want {digest}")
    return document


def _prune(checkpoints: Path, keep: int) -> None:
    for folder in sorted(checkpoints.glob("[0-9]" * 6))[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)
    newest = max(checkpoints.glob("[0-9]" * 6)).name
    for partial in checkpoints.glob("[0-9]" * 6 + ".partial"):
        if partial.name < newest:  # ids rise: a later one is being written
            shutil.rmtree(partial, ignore_errors=True)


def _document_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of the document without its own."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def _check_digests(path: Path, vectors: Mapping[str, Tensor], digests: Mapping[str, str]) -> None:
    for name, digest in digests.items():
        if (found := _digest(vectors[name])) != digest:
            raise CheckpointError(
                f"{path}: tensor {name!r} was altered: SHA-256 {found}, want {digest}"
            )


def _digest(vector: Tensor) -> str:
    return hashlib.sha256(as_bytes(vector.contiguous())).hexdigest()


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
