"""The Prefect tasks that stage, verify and repair one data set."""

from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from data.config import DataConfig
from data.contact_sheet import contact_sheet
from data.duplicates import LIST, read_duplicates
from data.manifest import MANIFEST, Manifest, read_manifest
from data.staged_tar import DamagedTar
from data.staging import StagingResult, stage, staged_folder
from data.verify import damaged_tars
from tasks.artifacts import show_picture, show_table
from tasks.cluster import ParallelMap
from tasks.report.data_tables import data_tables
from tasks.report.tables import manifest_rows
from tasks.retries import may_pass

MAX_ROWS: Final = 1000  # of a table in the UI
SHEET_COLUMNS, SHEET_IMAGES = 12, 48  # of the contact sheet there


@task(
    task_run_name="stage-{data.name}",
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def stage_dataset(data: DataConfig, root: Path, run_parallel: ParallelMap[Any, Any]) -> Path:
    """Make the tars and manifest of `data` under `root`, unless they are there; return the folder.

    Tars that an interrupted call had finished are kept.
    """
    result = stage(data, root, run_parallel)
    _tell(data, result)
    return result.folder


@task(task_run_name="verify-{data.name}", cache_policy=NO_CACHE)
def verify_dataset(data: DataConfig, root: Path) -> Path:
    """Compare every byte of the staged tars with the manifest; return the folder.

    Raises:
        DamagedTar: naming every damaged tar and the samples that are hit.
    """
    folder = staged_folder(root, data)
    manifest = read_manifest(folder)
    if damages := list(damaged_tars(folder, manifest)):
        show_table([damage._asdict() for damage in damages], "Damaged tars", "damaged", data.name)
        raise DamagedTar("\n".join(damage.what for damage in damages))
    get_run_logger().info("%s: %d tars are sound in %s", data.name, len(manifest.entries), folder)
    return folder


@task(task_run_name="repair-{data.name}", cache_policy=NO_CACHE)
def repair_dataset(data: DataConfig, root: Path, run_parallel: ParallelMap[Any, Any]) -> Path:
    """Write damaged tars of `data` again, with the bytes that they had; return the folder."""
    folder = staged_folder(root, data)
    damages = list(damaged_tars(folder, read_manifest(folder)))
    for damage in damages:
        get_run_logger().warning("%s", damage.what)
    _tell(data, stage(data, root, run_parallel, {damage.file for damage in damages}))
    return folder


def is_staged(data: DataConfig, root: Path) -> bool:
    """True when staging of `data` has finished before."""
    return (staged_folder(root, data) / MANIFEST).exists()


def _tell(data: DataConfig, result: StagingResult) -> None:
    manifest = result.manifest
    get_run_logger().info(
        "%s: %d training and %d test images in %d classes; %d tars written, %d kept in %s",
        data.name,
        sum(entry.num_samples for entry in manifest.train),
        sum(entry.num_samples for entry in manifest.test),
        len(manifest.class_names),
        result.tars_written,
        result.tars_kept,
        result.folder,
    )
    if (found := manifest.duplicates) and any(astuple(found)):
        get_run_logger().warning(
            "%s: %d test images have the bytes of training images; %d training and %d test images "
            "have those of another one of their set: listed in %s",
            data.name,
            found.test_in_train,
            found.again_in_train,
            found.again_in_test,
            result.folder / LIST,
        )
    _show(manifest, result.folder)


def _show(manifest: Manifest, folder: Path) -> None:
    name = manifest.name
    show_table(manifest_rows(manifest)[:MAX_ROWS], f"Staged tars of {name}", "manifest", name)
    for title, rows in data_tables(manifest, read_duplicates(folder)).items():
        show_table(rows[:MAX_ROWS], f"{title}, {name}", title, name)
    sheet = contact_sheet(folder, "train", tar=0, columns=SHEET_COLUMNS, max_images=SHEET_IMAGES)
    show_picture(sheet, f"First images of {name}", "contact-sheet", name)
