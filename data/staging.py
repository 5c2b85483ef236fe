"""From a source to a folder of shuffled WebDataset tars and a manifest."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Final

from data.config import DataConfig
from data.duplicates import note_duplicates
from data.elsewhere import is_elsewhere
from data.listing import Listing, drop_spool, kept_listing, make_listing
from data.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    Quarantined,
    TarEntry,
    read_entry,
    read_manifest,
    write_manifest,
)
from data.plan import Plans, TarPlan, plan_tars
from data.publish import remove_partials
from data.sole_writer import sole_writer
from data.sources.fingerprint import MISSING, fingerprint
from data.sources.registry import open_source, origin, selection
from data.sources.source import SPLITS, SourceError, Split
from data.space import full_disk_told, require_space
from data.summary import manifest_of
from data.tars import WORK, record_path, write_tar

RunParallel = Callable[[Callable[[TarPlan], TarEntry], Sequence[TarPlan]], Iterable[TarEntry]]

SHOWN: Final = 5  # bad images named in a message


@dataclass(frozen=True)
class StagingResult:
    folder: Path
    manifest: Manifest
    tars_written: int
    tars_kept: int  # found finished


def serially(work: Callable[[TarPlan], TarEntry], plans: Sequence[TarPlan]) -> Iterable[TarEntry]:
    """Make the tars one after the other, in this process."""
    return map(work, plans)


def staged_folder(root: Path, config: DataConfig) -> Path:
    """Name the folder of the staged data; touches no file.

    Its digest covers the source's kind and place and every setting that decides the tars' bytes.
    """
    return root / f"{config.name}-{_staging_digest(config)}"


def stage(
    config: DataConfig,
    root: Path,
    run_parallel: RunParallel = serially,
    rewrite: Set[str] | None = None,
) -> StagingResult:
    """Stage a data set below `root`, or do what is left of it; repair it, if `rewrite` is given.

    The tars are planned first; `run_parallel` may make them anywhere that sees the same paths, in
    any order, twice if need be. The manifest comes last and says that all is done: with it in
    place, a rerun looks only at the tars' sizes. A tar that is missing, cut or named in `rewrite`
    is made again, finished ones stay. A repair takes a source that was fetched again, or put back,
    for the one that was staged, if it lists the same images and each tar has its bytes again.

    Any two runs on the same source give the same bytes. Only one process stages a folder at a time;
    a second one waits. Staging that is refused before a tar was finished leaves nothing behind;
    finished ones are kept for the next attempt.

    Raises:
        SourceError: the source is unusable, changed since it was staged, or holds more bad images
            than `max_bad_fraction` allows.
        NotEnoughSpace: the tars will not fit on the disk; none has been begun. Or what an archive
            holds does not, unpacked, or the list of it.
        ManifestError: the manifest in the folder is damaged or of another format version.
    """
    folder = staged_folder(root, config)
    if not folder.exists() and fingerprint(config) == MISSING:
        open_source(config, folder / WORK)  # says what is missing; nothing is left behind
    with sole_writer(folder):
        manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
        if manifest is not None:
            same = fingerprint(config) in (manifest.fingerprint, MISSING)  # it may go, once staged
            if not same and rewrite is None:
                raise SourceError(_changed(manifest, config, folder))
            _require_few_bad(manifest.quarantined, _num_images(manifest), config)
            whole = all(_is_whole(folder / entry.file, entry) for entry in manifest.entries)
            if not rewrite and (is_elsewhere(folder) or (same and whole)):
                shutil.rmtree(folder / WORK, ignore_errors=True)  # whoever published may have died
                return StagingResult(folder, manifest, 0, len(manifest.entries))
        return _stage(config, folder, manifest, run_parallel, rewrite)


def _stage(
    config: DataConfig,
    folder: Path,
    manifest: Manifest | None,
    run_parallel: RunParallel,
    rewrite: Set[str] | None,
) -> StagingResult:
    work = folder / WORK
    work.mkdir(exist_ok=True)
    remove_partials(folder)
    remove_partials(work)
    try:
        state = fingerprint(config)
        repaired = manifest if rewrite is not None else None
        known = repaired.fingerprint if repaired else state
        listing = kept_listing(work, known) or _listed(config, work, known)
        plans = plan_tars(listing, config.staging, folder, work)
        every = [plan for split in SPLITS for plan in plans[split]]
        todo, kept = _sorted_out(every, manifest, rewrite or frozenset())
        if repaired and not {plan.path.name for plan in todo} <= _due(repaired, folder, rewrite):
            raise SourceError(_changed(repaired, config, folder))
        require_space(folder, sum(plan.num_bytes for plan in todo))
        num_images = sum(plan.num_samples for plan in every)
        entries = list(_tolerated(chain(kept, run_parallel(write_tar, todo)), num_images, config))
    except ValueError:  # the next attempt has to be another one
        drop_spool(work)
        if manifest is None and not any(folder.glob("*.tar")):
            _remove(folder)
        raise
    _require_same_bytes(manifest, entries, folder)
    if known != state:
        listing = replace(listing, fingerprint=state)
        plans = plan_tars(listing, config.staging, folder, work)
        entries = _planned_by(plans, entries)
    duplicates = note_duplicates(folder, listing, work, plans, entries, manifest)
    digest = _staging_digest(config)
    manifest = manifest_of(config, digest, listing, work, plans, entries, duplicates)
    write_manifest(folder, manifest)
    shutil.rmtree(work)
    return StagingResult(folder, manifest, tars_written=len(todo), tars_kept=len(kept))


def _listed(config: DataConfig, work: Path, state: str) -> Listing:
    staging = config.staging
    limits: dict[Split, int | None] = {
        "train": staging.max_train_samples,
        "test": staging.max_test_samples,
    }
    with full_disk_told(work, "the list of images"):
        source = open_source(config, work)
        return make_listing(work, state, source, staging.shuffle_seed, limits)


def _sorted_out(
    plans: Sequence[TarPlan], manifest: Manifest | None, rewrite: Set[str]
) -> tuple[list[TarPlan], list[TarEntry]]:
    """The plans still to carry out, and the entries of the tars that are finished."""
    listed = {entry.file: entry for entry in manifest.entries} if manifest else {}
    todo: list[TarPlan] = []
    kept: list[TarEntry] = []
    for plan in plans:
        entry = read_entry(record_path(plan.path)) or listed.get(plan.path.name)
        if (
            entry
            and entry.plan_digest == plan.digest
            and _is_whole(plan.path, entry)
            and plan.path.name not in rewrite
        ):
            kept.append(entry)
        else:
            todo.append(plan)
    return todo, kept


def _require_same_bytes(
    manifest: Manifest | None, entries: Iterable[TarEntry], folder: Path
) -> None:
    """What was written again has to be what was there."""
    listed = {entry.file: entry for entry in manifest.entries} if manifest else {}
    for entry in entries:
        before = listed.get(entry.file, entry)
        if before.plan_digest == entry.plan_digest and before.sha256 != entry.sha256:
            raise SourceError(
                f"{folder / entry.file}: came out with other bytes than at first (SHA-256 "
                f"{entry.sha256[:16]}..., was {before.sha256[:16]}...): an original was changed in "
                f"place, or the program's decoders were; delete {folder} to stage it again"
            )


def _is_whole(tar: Path, entry: TarEntry) -> bool:
    return tar.is_file() and tar.stat().st_size == entry.num_bytes


def _tolerated(
    entries: Iterable[TarEntry], num_images: int, config: DataConfig
) -> Iterator[TarEntry]:
    """Pass the entries on as they come; stop as soon as too many images are bad."""
    bad: list[Quarantined] = []
    for entry in entries:
        bad.extend(entry.quarantined)
        _require_few_bad(bad, num_images, config)
        yield entry


def _require_few_bad(bad: Sequence[Quarantined], num_images: int, config: DataConfig) -> None:
    fraction = config.staging.max_bad_fraction
    if len(bad) > fraction * num_images:
        first = "; ".join(
            f"{image.archive}: {image.member} {image.reason}" for image in bad[:SHOWN]
        )
        raise SourceError(
            f"{origin(config)}: {len(bad)} or more of {num_images} images cannot be used: {first}: "
            f"mend or remove them, or allow more than data.staging.max_bad_fraction={fraction}"
        )


def _changed(manifest: Manifest, config: DataConfig, folder: Path) -> str:
    return (
        f"{origin(config)}: changed after it was staged: it was {manifest.fingerprint}, now it is "
        f"{fingerprint(config)}: if it was only fetched again or put back, python -m flows.stage "
        f"--repair takes it; else delete {folder} to stage it again, or give it another data.name"
    )


def _due(manifest: Manifest, folder: Path, rewrite: Set[str] | None) -> set[str]:
    """The tars that a repair may write: those it is told of, and those that are not whole."""
    cut = (entry.file for entry in manifest.entries if not _is_whole(folder / entry.file, entry))
    return {*(rewrite or ()), *cut}


def _planned_by(plans: Plans, entries: Iterable[TarEntry]) -> list[TarEntry]:
    """Entries of tars as they are, which these plans would make too."""
    digests = {plan.path.name: plan.digest for split in SPLITS for plan in plans[split]}
    return [replace(entry, plan_digest=digests[entry.file]) for entry in entries]


def _num_images(manifest: Manifest) -> int:
    num_samples = sum(entry.num_samples for entry in manifest.entries)
    return num_samples + len(manifest.quarantined)


def _staging_digest(config: DataConfig) -> str:
    staging = config.staging
    decisive = {
        "format_version": FORMAT_VERSION,
        "source": config.source,
        "origin": origin(config),
        "splits": [config.train_split, config.test_split],
        "selection": selection(config),
        "samples_per_tar": staging.samples_per_tar,
        "shuffle_seed": staging.shuffle_seed,
        "max_train_samples": staging.max_train_samples,
        "max_test_samples": staging.max_test_samples,
        "max_pixels": staging.max_pixels,
        "decode_all": staging.decode_all,
        "smallest_side": staging.smallest_side,
        "jpeg_quality": staging.jpeg_quality if staging.smallest_side else None,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def _remove(folder: Path) -> None:
    """Remove a folder in which nothing was finished, unless something else lies there."""
    shutil.rmtree(folder / WORK)
    with suppress(OSError):
        folder.rmdir()
