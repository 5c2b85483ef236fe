"""Staging by three real processes, killed at random moments, again and again."""

import json
import os
import random
import signal
import subprocess
import sys
import time

from data.staging import stage, staged_folder
from tests.data.pictures import contents, encoded, picture, write_archive
from tests.data.staged import config_of
from tests.kills import was_killed

NUM_KILLS = 20
PROGRAM = """
import json, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from data.staging import stage
from tests.data.staged import config_of

with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    list(pool.map(abs, range(8)))
    print("ready", flush=True)
    result = stage(config_of(Path(sys.argv[1]), "archive"), Path(sys.argv[2]), pool.map)
    print(json.dumps([result.tars_written, result.tars_kept]), flush=True)
"""


def started(archive, root):
    """The staging command, in a session of its own, as soon as it is about to begin."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(archive), str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    return process


def inodes(folder):
    return {path.name: path.stat().st_ino for path in folder.glob("*.tar")}


def test_killed_at_random_moments_the_same_command_ends_with_the_same_bytes(tmp_path):
    files = {
        f"{split}/{name}/{index:03d}.jpg": encoded(picture(index, 300, 200))
        for split, count in (("train", 60), ("test", 5))
        for name in ("cat", "dog")
        for index in range(count)
    }
    archive = write_archive(tmp_path / "pets.tar.gz", files, "w:gz")
    config = config_of(archive, "archive")
    reference = contents(stage(config, tmp_path / "reference").folder)
    process = started(archive, tmp_path / "timed")
    start = time.monotonic()
    written, kept = json.loads(process.communicate()[0])
    whole_s = time.monotonic() - start
    rng = random.Random(0)
    num_kills = num_resumed = attempt = 0
    while num_kills < NUM_KILLS:
        attempt += 1
        root = tmp_path / f"attempt-{attempt}"
        before: dict[str, int] = {}
        for _ in range(rng.randint(1, 3)):  # the one that resumes is killed too
            process = started(archive, root)
            time.sleep(rng.uniform(0, whole_s))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if process.returncode:  # or else it had come to its end before
                was_killed("staging", process.returncode)
                num_kills += 1
            after = inodes(staged_folder(root, config))
            rewritten = [name for name, inode in before.items() if after[name] != inode]
            assert len(rewritten) <= 2  # renamed but not yet recorded, one for each worker
            before = after
        result = stage(config, root)
        assert contents(result.folder) == reference
        after = inodes(result.folder)
        assert sum(after[name] == inode for name, inode in before.items()) == result.tars_kept
        assert len(before) - result.tars_kept <= 2
        num_resumed += 0 < result.tars_kept < written + kept
        assert attempt < 5 * NUM_KILLS
    assert num_resumed > 0
