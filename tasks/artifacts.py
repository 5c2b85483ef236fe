"""Artifacts: what a run shows of its results in the Prefect UI."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.report.tables import Row


def artifact_key(*parts: str) -> str:
    """A key as Prefect wants it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def show_configuration(config_yaml: str, run_name: str) -> None:
    """The resolved configuration of the run."""
    create_markdown_artifact(
        f"```yaml\n{config_yaml.strip()}\n```",
        key=artifact_key("configuration", run_name),
        description=f"All settings of {run_name}, resolved",
    )


def show_table(rows: Sequence[Row], description: str, *key: str) -> None:
    """A table; without rows there is nothing to show."""
    if rows:
        create_table_artifact(
            [dict(row) for row in rows], key=artifact_key(*key), description=description
        )


def show_picture(picture: Image.Image, description: str, *key: str) -> None:
    """A small picture, inside the artifact: the UI cannot open files."""
    with io.BytesIO() as file:
        picture.save(file, "JPEG", quality=70)
        encoded = base64.b64encode(file.getvalue()).decode()
    create_markdown_artifact(
        f"![{description}](data:image/jpeg;base64,{encoded})",
        key=artifact_key(*key),
        description=description,
    )


def show_report(report: Path, run_name: str) -> None:
    """The report itself, and where it lies: the UI cannot open files, so its plots are named."""
    text = f"Files of this run: `{report.parent.resolve()}`\n\n{report.read_text(encoding='utf-8')}"
    create_markdown_artifact(
        text, key=artifact_key("report", run_name), description=f"Report of {run_name}"
    )
