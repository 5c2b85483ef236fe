"""Results on disk that say what they were made from, so that nothing is made twice."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from data.publish import published


def write_record(path: Path, made_from: Mapping[str, str], results: Any) -> None:
    """Write `results` with what they were made from; the file appears only when complete."""
    write_atomically(path, json.dumps({"made_from": dict(made_from), "results": results}, indent=2))


def matching_record(path: Path, made_from: Mapping[str, str]) -> Any | None:
    """The results at `path` if they were made from the same, else None: make them (again)."""
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["results"] if record["made_from"] == dict(made_from) else None


def read_record(path: Path) -> Any | None:
    """The results at `path`, whatever they were made from; None when there are none."""
    return json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that appears only when complete."""
    with published(path) as file:
        file.write(text.encode())


def settings_of(config: Any) -> dict[str, str]:
    """The fields of a configuration dataclass as text."""
    return {field.name: str(getattr(config, field.name)) for field in fields(config)}


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
