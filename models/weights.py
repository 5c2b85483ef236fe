"""Weight files: safetensors whose header carries a description and the digest of every tensor."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT: Final = 1
# One header entry holds everything: safetensors writes several in arbitrary order, and then the
# same weights would not give the same bytes.
HEADER_KEY: Final = "distributed-vgg-weights"

Description = Mapping[str, JsonValue]


class WeightFileError(ValueError):
    """A weight file is damaged, or holds something other than what was asked for."""


@dataclass(frozen=True)
class _TensorRecord:
    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class _Header:
    format: int
    description: dict[str, JsonValue]
    tensors: dict[str, _TensorRecord]


_HEADER: Final = TypeAdapter(_Header)


def save_weights(path: Path, state: Mapping[str, Tensor], description: Description) -> None:
    """Write tensors and their description as one safetensors file.

    `path` appears only when complete and on disk: an interrupted write leaves an old file as it
    was. Equal arguments give equal bytes.

    Args:
        state: tensors on any device, also views of one vector; views of the same numbers are
            written once per name.
        description: what JSON can hold; `load_weights` hands it back.
    """
    tensors = {name: _own_cpu_copy(tensor) for name, tensor in state.items()}
    header = _HEADER.dump_python(
        _Header(FORMAT, dict(description), {n: _record(t) for n, t in tensors.items()}),
        mode="json",
    )
    sealed = json.dumps({"header": header, "sha256": _json_digest(header)}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    _save_readable(tensors, partial, sealed)
    os.replace(partial, path)
    _sync(path.parent)


def load_weights(
    path: Path, expected: Description | None = None
) -> tuple[dict[str, Tensor], dict[str, JsonValue]]:
    """Read a weight file whole: its tensors, on the CPU, and its description. Never unpickles.

    Args:
        expected: fields that the description must hold, nested as it is; others are free.

    Raises:
        FileNotFoundError: when there is no file.
        WeightFileError: when a bit is flipped, bytes are missing, a tensor is missing or added, or
            the description differs; every differing field is listed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    try:
        with safe_open(path, framework="pt") as file:
            header = _unsealed((file.metadata() or {}).get(HEADER_KEY), path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightFileError(
            f"{path}: damaged, cut short, or not safetensors ({error}): make it again"
        ) from error
    _check_tensors(tensors, header.tensors, path)
    if expected is not None:
        _check_description(header.description, expected, path)
    return tensors, header.description


def differences(found: Description, expected: Description) -> list[str]:
    """List the fields of `expected` that `found` lacks or holds otherwise, by dotted name."""
    present = _flat(_as_read_back(found))
    return [
        f"{field}: found {_shown(present, field)}, expected {json.dumps(value)}"
        for field, value in _flat(_as_read_back(expected)).items()
        if field not in present or present[field] != value
    ]


def _unsealed(sealed: str | None, path: Path) -> _Header:
    if sealed is None:
        raise WeightFileError(
            f"{path}: safetensors without the header entry {HEADER_KEY!r}: "
            "not a weight file written by this program"
        )
    try:
        entry = json.loads(sealed)
        if entry["sha256"] != _json_digest(entry["header"]):
            raise WeightFileError(f"{path}: damaged: the header's digest does not match")
        header = _HEADER.validate_python(entry["header"])
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
        raise WeightFileError(f"{path}: unreadable header entry {HEADER_KEY!r}") from error
    if header.format != FORMAT:
        raise WeightFileError(f"{path}: weight file format {header.format}, want {FORMAT}")
    return header


def _check_tensors(
    tensors: Mapping[str, Tensor], records: Mapping[str, _TensorRecord], path: Path
) -> None:
    problems = [f"{name}: missing" for name in sorted(records.keys() - tensors.keys())]
    problems += [f"{name}: not in the header" for name in sorted(tensors.keys() - records.keys())]
    problems += [
        f"{name}: contents differ from the digest in the header"
        for name in sorted(records.keys() & tensors.keys())
        if _record(tensors[name]) != records[name]
    ]
    if problems:
        raise WeightFileError(f"{path}: damaged:\n  " + "\n  ".join(problems))


def _check_description(found: Description, expected: Description, path: Path) -> None:
    if different := differences(found, expected):
        raise WeightFileError(f"{path}: weights of another network:\n  " + "\n  ".join(different))


def _own_cpu_copy(tensor: Tensor) -> Tensor:
    # A copy, because safetensors refuses tensors that share memory, as views of a flat parameter
    # vector do.
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _save_readable(tensors: dict[str, Tensor], path: Path, sealed: str) -> None:
    path.touch()
    mode = path.stat().st_mode  # what the umask grants; safetensors would leave 0600
    save_file(tensors, path, metadata={HEADER_KEY: sealed})
    path.chmod(mode)
    _sync(path)


def _record(tensor: Tensor) -> _TensorRecord:
    raw = tensor.reshape(-1).view(torch.uint8).numpy()
    dtype = str(tensor.dtype).removeprefix("torch.")
    return _TensorRecord(dtype, tuple(tensor.shape), hashlib.sha256(raw.data).hexdigest())


def _json_digest(value: JsonValue) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _as_read_back(description: Description) -> dict[str, JsonValue]:
    plain: dict[str, JsonValue] = json.loads(json.dumps(description))  # tuples become lists
    return plain


def _flat(nested: Description, prefix: str = "") -> dict[str, JsonValue]:
    flat: dict[str, JsonValue] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _shown(present: Description, field: str) -> str:
    return json.dumps(present[field]) if field in present else "nothing"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
