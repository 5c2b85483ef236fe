"""VGG's training augmentation (Simonyan & Zisserman 2015, 3.1; Krizhevsky et al. 2012, 4.1).

Everything random is drawn here, per tar and epoch, so that (seed, epoch, sample) decides it whoever
reads the sample; a generator per sample would cost more than the augmentation itself.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data.config import InputConfig
from data.decode import RgbImage

# Principal components of RGB over ImageNet's training set, one per column, and their variances with
# pixels in [0, 1]: the constants of fb.resnet.torch. The shift is taken times 255 afterwards:
# variances taken of [0, 255] pixels would make it 255 times too large.
RGB_COMPONENTS: Final = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
RGB_VARIANCES: Final = np.array([0.2175, 0.0188, 0.0045])

# What torch's interpolate(antialias=True) calls: three times as fast as Pillow. Called by itself it
# takes a scale that is not a ratio of whole sides, and leaves channels last.
ANTIALIASED_BILINEAR: Final[Callable[..., Tensor]] = torch._C._nn._upsample_bilinear2d_aa


class Draws(NamedTuple):
    """What chance decides about the N samples of one tar in one epoch, by position in the tar."""

    order: npt.NDArray[np.int64]  # (N,) a permutation of the positions
    sides: npt.NDArray[np.int64]  # (N,) S: smallest side after rescaling, pixels
    corners: npt.NDArray[np.float64]  # (N, 2) left and top of the crop, as fractions of its room
    flips: npt.NDArray[np.bool_]  # (N,)
    shifts: npt.NDArray[np.float32]  # (N, 3) added to every pixel's RGB, 0..255 scale


def draw(seed: int, epoch: int, tar: int, num_samples: int, config: InputConfig) -> Draws:
    """Draw order and augmentation of one tar in one epoch.

    S is uniform over the integers of [side_min, side_max] (the paper names no distribution). The
    same numbers are drawn whatever is switched off, so that a switch changes nothing else.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, tar))))
    order = rng.permutation(num_samples)
    sides = rng.integers(config.side_min, config.side_max, num_samples, endpoint=True)
    corners = rng.random((num_samples, 2))
    flips = rng.random(num_samples) < 0.5
    alphas = rng.standard_normal((num_samples, 3)) * config.colour_shift_std
    return Draws(order, sides, corners, flips & config.flip, colour_shifts(alphas))


def colour_shifts(alphas: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return [p1 p2 p3] [a1 l1, a2 l2, a3 l3]^T per row of alphas (N, 3), on the 0..255 scale."""
    shifts: npt.NDArray[np.float64] = 255 * (alphas * RGB_VARIANCES) @ RGB_COMPONENTS.T
    return shifts.astype(np.float32)


class Region(NamedTuple):
    """The part of a decoded image that a crop shows, in decoded pixels."""

    left: int
    top: int
    width: int
    height: int
    step: float  # decoded pixels per pixel of the crop

    @property
    def bottom(self) -> int:
        return self.top + self.height


def crop_region(
    size: tuple[int, int],
    scale: float,
    side: int,
    crop_size: int,
    corner: npt.NDArray[np.float64],
) -> Region:
    """Say what to cut out so that rescaling it gives a crop of the image at smallest side `side`.

    The corner lies on a decoded pixel, so that nothing beside the region has to be decoded.

    Args:
        size: width and height of the original, pixels.
        scale: decoded pixels per pixel of the original, at most 1; sides are rounded up.
        side: S, pixels, at least crop_size.
        crop_size: width and height of the crop, pixels.
        corner: (2,) left and top in [0, 1) of the room the crop has.
    """
    step = scale * min(size) / side
    decoded = [math.ceil(length * scale) for length in size]
    width, height = (min(length, math.ceil(crop_size * step)) for length in decoded)
    left, top = (
        int(fraction * (length - needed + 1))
        for fraction, length, needed in zip(corner.tolist(), decoded, (width, height), strict=True)
    )
    return Region(left, top, width, height, step)


def cut_out(image: RgbImage, region: Region) -> RgbImage:
    """Copy the region, so that the image is not needed any more."""
    return image[region.top : region.bottom, region.left : region.left + region.width].copy()


def rescale(part: RgbImage, step: float, room: Tensor) -> None:
    """Rescale what was cut out, antialiased bilinear, to fill the room.

    Args:
        step: decoded pixels per pixel of the crop.
        room: uint8 (1, 3, crop_size, crop_size), channels last in memory.
    """
    ANTIALIASED_BILINEAR(
        torch.from_numpy(part.transpose(2, 0, 1)[None]),
        room.shape[2:],
        False,
        1 / step,
        1 / step,
        out=room,
    )
