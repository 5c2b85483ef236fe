"""VGG's training augmentation (Simonyan & Zisserman 2015, 3.1; Krizhevsky et al. 2012, 4.1).

Everything random is drawn here, per tar and epoch, so that (seed, epoch, sample) decides it whoever
reads the sample; a generator per sample would cost more than the augmentation itself.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.config import InputConfig

# Principal components of RGB over ImageNet's training set, one per column, and their variances with
# pixels in [0, 1]: the constants of fb.resnet.torch. The shift is taken times 255 afterwards:
# variances taken of [0, 255] pixels would make it 255 times too large.
RGB_COMPONENTS: Final = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
RGB_VARIANCES: Final = np.array([0.2175, 0.0188, 0.0045])


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


def rescaled_crop(
    image: Image.Image,
    scale: float,
    size: tuple[int, int],
    side: int,
    crop_size: int,
    corner: npt.NDArray[np.float64],
) -> Image.Image:
    """Rescale isotropically to smallest side `side` and cut the crop, in one interpolation.

    Only the crop's pixels are computed; they equal those of rescaling everything and cropping then.

    Args:
        image: RGB, decoded at `scale`.
        scale: pixels of `image` per pixel of the original, at most 1.
        size: width and height of the original, pixels.
        side: S, pixels, at least crop_size.
        crop_size: width and height of the result, pixels.
        corner: (2,) left and top in [0, 1) of the room the crop has.
    """
    rescaled = [max(side, round(length * side / min(size))) for length in size]
    left, top = (
        int(fraction * (length - crop_size + 1))
        for fraction, length in zip(corner.tolist(), rescaled, strict=True)
    )
    per_x, per_y = (scale * had / wanted for had, wanted in zip(size, rescaled, strict=True))
    box = (
        left * per_x,
        top * per_y,
        min(image.width, (left + crop_size) * per_x),  # rounding may step outside
        min(image.height, (top + crop_size) * per_y),
    )
    return image.resize((crop_size, crop_size), Image.Resampling.BILINEAR, box)
