"""Write a miniature ILSVRC-2012, stage it and compare: python -m tests.data.miniature FOLDER.

With --images TAR, of JPEGs called nXXXXXXXX_anything.JPEG, it has real sizes.
"""

import argparse
import tarfile
import time
from pathlib import Path

from data.config import DataConfig, StagingConfig
from data.staging import stage
from tests.data.miniature.archives import write_miniature
from tests.data.miniature.check import differences


def shots_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {
            Path(member.name).stem: tar.extractfile(member).read()
            for member in tar
            if member.isfile()
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--num-train", type=int, default=2, help="images of each class")
    parser.add_argument("--num-val", type=int, default=1)
    given = parser.parse_args()
    shots = shots_of(given.images) if given.images else None
    mini = write_miniature(given.folder / "archives", shots, given.num_train, given.num_val)
    config = DataConfig(
        name="miniature",
        source="ilsvrc2012",
        path=str(given.folder / "archives"),
        staging=StagingConfig(samples_per_tar=1000),
    )
    start = time.perf_counter()
    result = stage(config, given.folder / "staged")
    seconds = time.perf_counter() - start
    found = list(differences(mini, result.folder))
    num_bytes = sum(entry.num_bytes for entry in result.manifest.entries)
    print(f"{len(mini.train)} training and {len(mini.val)} validation images of 1000 classes,")
    print(f"{num_bytes / 1e6:.0f} MB staged in {seconds:.1f} s; {len(found)} differences")
    for line in found[:20]:
        print(f"  {line}")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
