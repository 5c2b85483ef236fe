"""Dead runs of this host, whose survivors may still be writing what they owe."""

import fcntl
import logging
import shutil
import time
from io import BufferedReader
from pathlib import Path

from engine import memory_folder
from engine.processes import end_process
from engine.survivor import NOTE, REFUSED, SETTLING

log = logging.getLogger(__name__)
_POLL_S = 0.01
#: A survivor sees its owner's death at once, and tries a disk that refuses again within a second.
_PATIENCE_S = 5.0
_OWED = "the checkpoint that a killed run owed"
_IDLE = "does not see to it, for it is stopped, or its run lives in another container"


def await_survivors() -> None:
    """Wait until every dead run of this host has the checkpoint that it owed, if it can have it.

    Where the disk goes on to refuse it, it is given up: whoever starts now could not write either.
    """
    for folder in memory_folder.left_over():
        _await(folder)


def _await(folder: Path) -> None:
    try:
        note = (folder / NOTE).open("rb")
    except FileNotFoundError:  # killed before anything was served
        shutil.rmtree(folder, ignore_errors=True)
        return
    with note:
        if _is_over(folder, note):
            shutil.rmtree(folder, ignore_errors=True)


def _is_over(folder: Path, note: BufferedReader) -> bool:
    """True once nobody holds the memory any more, which may take as long as a checkpoint takes."""
    patient_until = time.monotonic() + _PATIENCE_S
    told = False
    while not _is_free(note):
        time.sleep(_POLL_S)
        if time.monotonic() < patient_until:
            continue
        pid, state, reason = _read(note)
        if state == SETTLING and not told:
            log.warning("%s: waiting for process %d, which writes %s", folder, pid, _OWED)
            told = True
        elif state == REFUSED:
            log.warning("%s: %s is given up: %s", folder, _OWED, reason)
            end_process(pid)
            patient_until += _PATIENCE_S
        elif state != SETTLING:
            log.warning("%s is left alone: process %d %s", folder, pid, _IDLE)
            return False
    return True


def _is_free(note: BufferedReader) -> bool:
    try:
        fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(note: BufferedReader) -> tuple[int, str, str]:
    """The survivor's process, its state and why; a note that is just being written is none."""
    note.seek(0)
    words = note.read().decode().rstrip("\n").split(" ", 2)
    return (int(words[0]), words[1], words[2]) if len(words) == 3 else (0, "", "")
