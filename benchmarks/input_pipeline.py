"""Images per second and core from staged JPEGs to mini-batches, S in [256, 512], crop 224.

    python -m benchmarks.input_pipeline [TAR of JPEGs]

Rivals, in turn with ours, a thread each, on the same images with the same draws: the same steps
written with Pillow and numpy (rescale, crop, flip, shift, subtract the mean), once rescaling the
whole image and once only the box that the crop needs; simplejpeg doing nothing but decode every
image in full; and our decoding alone, of the rows and at the scales that the crops need, which is
the bound of all that could still be saved around it. Then the share of its time that a training
loop with the demo's network waits for mini-batches of its built-in data. Each figure is a ratio of
medians over rounds.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import simplejpeg
import torch
from PIL import Image

from benchmarks._figures import Figure, state
from benchmarks._photographs import photographs
from benchmarks._subject import DEMO_NET, mean_loss
from benchmarks._worker_memory import as_in_a_worker
from data.augmentation import crop_region, draw
from data.config import DataConfig, InputConfig, StagingConfig
from data.decode import FULL_SCALE, decode_rgb, smallest_scale
from data.minibatches import TrainingReader
from data.staging import stage
from engine.loader import prefetched
from models.vgg import build_vgg

NUM_IMAGES: Final = 300
NUM_ROUNDS: Final = 7
MINIBATCH: Final = 64
INPUT: Final = InputConfig(cache_bytes=0)
DEMO_INPUT: Final = InputConfig(side_min=32, side_max=36, crop_size=32)
MAX_WAITING: Final = 0.02
NUM_STEPS: Final = 150
MAX_PIXELS: Final = 50_000_000
MEAN_RGB: Final = np.array([123.7, 116.8, 103.9], np.float32)


def main() -> None:
    as_in_a_worker()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        images = photographs(NUM_IMAGES)
        reader = _staged(images, Path(folder))
        work: dict[str, Callable[[], object]] = {
            "ours": lambda: _read_everything(reader),
            "Pillow and numpy, whole image": lambda: _pillow(images, _whole_then_crop),
            "Pillow and numpy, box": lambda: _pillow(images, _box),
            "simplejpeg, decoding only": lambda: [simplejpeg.decode_jpeg(i) for i in images],
            "our decoding, rows needed only": lambda: _rows_needed(images),
        }
        speeds = _speeds(work, len(images))
        goals = {
            "Pillow and numpy, whole image": 2.0,
            "Pillow and numpy, box": 1.5,
            "simplejpeg, decoding only": 0.9,
            "our decoding, rows needed only": 0.7,
        }
        figures = [
            Figure(
                name=f"images_per_s_vs_{name.replace(', ', '_').replace(' ', '_').lower()}",
                unit="images/s of one core",
                ours=speeds["ours"],
                rival=speeds[name],
                rival_name=name,
                goal=goal,
            )
            for name, goal in goals.items()
        ]
        figures.append(
            Figure(
                name="waiting_share",
                unit="of a training loop's time",
                ours=_waiting_share(Path(folder)),
                rival=MAX_WAITING,
                rival_name="allowed",
                goal=1.0,
                more_is_better=False,
            )
        )
    state("input_pipeline", figures)


def _staged(images: Sequence[bytes], folder: Path) -> TrainingReader:
    for number, data in enumerate(images):
        for split in ("train", "test") if number < 2 else ("train",):
            path = folder / "tree" / split / "ab"[number % 2] / f"{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    config = DataConfig(
        name="photographs",
        source="folder",
        path=str(folder / "tree"),
        staging=StagingConfig(max_bad_fraction=0.01),
    )
    return TrainingReader(stage(config, folder).folder, INPUT, seed=0)


def _read_everything(reader: TrainingReader) -> None:
    for tar, size in enumerate(reader.tar_sizes):
        for _ in reader.minibatches(0, tar, 0, size, MINIBATCH):
            pass


def _pillow(images: Sequence[bytes], crop: Callable[..., Image.Image]) -> None:
    draws = draw(0, 0, 0, len(images), INPUT)
    size = INPUT.crop_size
    for start in range(0, len(images), MINIBATCH):
        part = images[start : start + MINIBATCH]
        batch = np.empty((len(part), 3, size, size), np.float32)
        for place, data in enumerate(part):
            number = start + place
            image = Image.open(io.BytesIO(data)).convert("RGB")
            side, corner = int(draws.sides[number]), draws.corners[number]
            pixels = np.asarray(crop(image, side, corner, size))
            if draws.flips[number]:
                pixels = pixels[:, ::-1]
            offset = draws.shifts[number] - MEAN_RGB
            np.add(pixels.transpose(2, 0, 1), offset[:, None, None], out=batch[place])


def _whole_then_crop(image: Image.Image, side: int, corner: np.ndarray, size: int) -> Image.Image:
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = int(corner[0] * (width - size + 1)), int(corner[1] * (height - size + 1))
    return whole.crop((left, top, left + size, top + size))


def _box(image: Image.Image, side: int, corner: np.ndarray, size: int) -> Image.Image:
    needed = size * min(image.size) / side
    left, top = (float(c) * (n - needed) for c, n in zip(corner, image.size, strict=True))
    box = (left, top, min(image.width, left + needed), min(image.height, top + needed))
    return image.resize((size, size), Image.Resampling.BILINEAR, box)


def _rows_needed(images: Sequence[bytes]) -> None:
    draws = draw(0, 0, 0, len(images), INPUT)
    for data, side, corner in zip(images, draws.sides.tolist(), draws.corners, strict=True):
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        eighths = smallest_scale(min(width, height), side)
        scale = eighths / FULL_SCALE
        region = crop_region((width, height), scale, side, INPUT.crop_size, corner)
        decode_rgb(data, MAX_PIXELS, eighths, region.bottom)


def _speeds(work: dict[str, Callable[[], object]], num_images: int) -> dict[str, float]:
    """Median images per second of each, taken in turn; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(NUM_ROUNDS + 1):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: num_images / statistics.median(taken[1:]) for name, taken in times.items()}


def _waiting_share(folder: Path) -> float:
    """Of NUM_STEPS training steps after as many to warm up, mini-batches prefetched by a thread."""
    staged = stage(DataConfig(name="fashion-mnist", source="builtin"), folder).folder
    reader = TrainingReader(staged, DEMO_INPUT, seed=0)
    minibatches = prefetched(
        (
            minibatch
            for epoch in range(100)
            for tar, size in enumerate(reader.tar_sizes)
            for minibatch in reader.minibatches(epoch, tar, 0, size, MINIBATCH)
        ),
        DEMO_INPUT.prefetch,
    )
    model = build_vgg(DEMO_NET, 10).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    waited = started = 0.0
    for step in range(2 * NUM_STEPS):
        if step == NUM_STEPS:
            waited, started = 0.0, time.perf_counter()
        asked = time.perf_counter()
        payload = next(minibatches)
        waited += time.perf_counter() - asked
        optimiser.zero_grad()
        mean_loss(model, payload).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return waited / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
