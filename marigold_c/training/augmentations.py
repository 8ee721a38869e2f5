"""Random changes of a training image. Called by examples.py; every random number comes from the generator given.

Images are uint8 (H, W, 3). Blur and jitter are torchvision's (transforms.functional.gaussian_blur, rotate with nearest
neighbours, ColorJitter) as prs-eth/Marigold applies them to train normals; results are rounded to the nearest level
where prs-eth cuts off fractions.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from .sections import Augmentation

Image = NDArray[np.uint8]
Array = NDArray[np.float32]

GAUSSIAN_KERNEL = 33  # taps along each side
_GREY = np.array([0.2989, 0.587, 0.114], np.float32)


def crop_window(shape: tuple[int, int], smallest: float, generator: random.Random) -> tuple[slice, slice]:
    """Rows and columns of a window of the image's shape anywhere in it; its sides are a part of the image's that is
    uniform from `smallest` to 1."""
    part = generator.uniform(smallest, 1.0)
    sides = [max(1, round(part * side)) for side in shape]
    first = [generator.randint(0, whole - side) for whole, side in zip(shape, sides, strict=True)]
    rows, columns = (slice(start, start + side) for start, side in zip(first, sides, strict=True))
    return rows, columns


def _levels(values: Array) -> Image:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def gaussian_blur(image: Image, sigma: float, kernel_size: int = GAUSSIAN_KERNEL) -> Image:
    """A Gaussian of `sigma` pixels, cut off at kernel_size taps and normalised; borders are mirrored."""
    half = kernel_size // 2
    taps = np.exp(-0.5 * np.square(np.arange(-half, half + 1) / sigma))
    weights = (taps / taps.sum()).astype(np.float32)
    values = image.astype(np.float32)
    for axis in (0, 1):
        length = values.shape[axis]
        padding = [(half, half) if one == axis else (0, 0) for one in range(3)]
        padded = np.pad(values, padding, mode="reflect" if length > 1 else "edge")
        values = np.zeros(image.shape, np.float32)
        for tap in np.flatnonzero(weights):
            window = padded[tap : tap + length] if axis == 0 else padded[:, tap : tap + length]
            values += weights[tap] * window
    return _levels(values)


def motion_kernel(size: int, angle: float) -> Array:
    """A line through the middle of size x size, turned counter-clockwise by `angle` degrees; its sum is 1."""
    half, turn = size // 2, math.radians(angle)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    along = np.rint(x * math.cos(turn) - y * math.sin(turn))
    across = np.rint(x * math.sin(turn) + y * math.cos(turn))
    line: Array = ((across == 0) & (np.abs(along) <= half)).astype(np.float32)
    return line / np.float32(line.sum())


def motion_blur(image: Image, kernel: Array) -> Image:
    """Each pixel becomes the weighted sum of its surroundings; beyond the border is black."""
    half = kernel.shape[0] // 2
    height, width, _ = image.shape
    padded = np.pad(image.astype(np.float32), ((half, half), (half, half), (0, 0)))
    values = np.zeros(image.shape, np.float32)
    for row, column in np.argwhere(kernel):
        values += kernel[row, column] * padded[row : row + height, column : column + width]
    return _levels(values)


def _blend(image: Array, other: Array | float, factor: float) -> Array:
    """factor of the image, the rest of the other; outside of [0, 1] for factors above 1, hence clipped."""
    mixed: Array = np.clip(np.float32(factor) * image + np.float32(1 - factor) * other, 0, 1)
    return mixed


def _grey(image: Array) -> Array:
    grey: Array = image @ _GREY
    return grey[:, :, None]


def adjust_brightness(image: Array, factor: float) -> Array:
    """Towards black (factor 0) or away from it (above 1). Images of the four adjustments are float in [0, 1]."""
    return _blend(image, 0.0, factor)


def adjust_contrast(image: Array, factor: float) -> Array:
    """Towards the mean brightness of the whole image."""
    return _blend(image, float(_grey(image).mean(dtype=np.float64)), factor)


def adjust_saturation(image: Array, factor: float) -> Array:
    """Towards the grey of each pixel."""
    return _blend(image, _grey(image), factor)


def adjust_hue(image: Array, turns: float) -> Array:
    """Colours turned on the circle of hues of HSV by a part of a whole turn, from -0.5 to 0.5."""
    value, low = image.max(axis=2), image.min(axis=2)
    chroma = value - low
    divisor = np.where(chroma > 0, chroma, np.float32(1))
    red, green, blue = (image[:, :, channel] for channel in range(3))
    sixths = np.where(
        value == red,
        (green - blue) / divisor,
        np.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + np.float32(6 * turns)
    # Each channel is the value less a trapezium of the hue, as wide as the chroma is.
    distances = [np.mod(start + sixths, 6) for start in (5, 3, 1)]
    channels = [value - chroma * np.clip(np.minimum(one, 4 - one), 0, 1) for one in distances]
    turned: Array = np.clip(np.stack(channels, axis=2), 0, 1).astype(np.float32)
    return turned


def _jitter(image: Image, settings: Augmentation, generator: random.Random) -> Image:
    """Brightness, contrast, saturation and hue in random order, each by a random amount."""

    def factor(reach: float) -> float:
        return generator.uniform(max(0.0, 1 - reach), 1 + reach)

    steps: list[Callable[[Array], Array]] = []
    brightness, contrast, saturation = (
        factor(reach) for reach in (settings.brightness, settings.contrast, settings.saturation)
    )
    turns = generator.uniform(-settings.hue, settings.hue)
    steps = [
        lambda values: adjust_brightness(values, brightness),
        lambda values: adjust_contrast(values, contrast),
        lambda values: adjust_saturation(values, saturation),
        lambda values: adjust_hue(values, turns),
    ]
    generator.shuffle(steps)
    values = image.astype(np.float32) / np.float32(255)
    for step in steps:
        values = step(values)
    return _levels(values * np.float32(255))


def _noisy(image: Image, sigma: float, generator: random.Random) -> Image:
    """Normal noise in each channel, sigma 1 being the whole range."""
    numbers = np.random.default_rng(generator.getrandbits(64)).standard_normal(image.shape, np.float32)
    return _levels(image + numbers * np.float32(255 * sigma))


def white_balance(image: Image, gains: tuple[float, float, float]) -> Image:
    """Each channel times its gain, as a camera that takes the light for another colour."""
    return _levels(image.astype(np.float32) * np.array(gains, np.float32))


def vignette(image: Image, strength: float) -> Image:
    """Times 1 - strength * r², r being the distance from the middle in parts of that of the corners."""
    height, width, _ = image.shape
    y, x = ((np.arange(side) + 0.5) / side * 2 - 1 for side in (height, width))
    radius = (np.square(y)[:, None] + np.square(x)) / 2
    return _levels(image.astype(np.float32) * (1 - strength * radius).astype(np.float32)[:, :, None])


def jpeg(image: Image, quality: int) -> Image:
    """As it is after it was stored as JPEG."""
    file = io.BytesIO()
    Picture.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Picture.open(file))


def _as_cameras(image: Image, settings: Augmentation, generator: random.Random) -> Image:
    if settings.white_balance and generator.random() < settings.white_balance:
        reach = settings.white_balance_gain
        red, green, blue = (generator.uniform(1 - reach, 1 + reach) for _ in range(3))
        image = white_balance(image, (red, green, blue))
    if settings.vignetting and generator.random() < settings.vignetting:
        image = vignette(image, generator.uniform(0.0, settings.vignetting_strength))
    return image


def change_image(image: Image, settings: Augmentation, blur: bool, generator: random.Random) -> Image:
    """Blur, motion blur, jitter, white balance, vignetting, noise and JPEG with their probabilities, in this order;
    `blur` False: none of both blurs."""
    if generator.random() < settings.gaussian_blur and blur:
        sigma = generator.uniform(0.0, settings.gaussian_blur_sigma)
        image = gaussian_blur(image, sigma) if sigma > 0 else image
    if generator.random() < settings.motion_blur and blur:
        size = generator.choice(range(3, settings.motion_blur_kernel + 1, 2))
        image = motion_blur(image, motion_kernel(size, generator.uniform(0.0, settings.motion_blur_angles)))
    if generator.random() < settings.jitter:
        image = _jitter(image, settings, generator)
    image = _as_cameras(image, settings, generator)
    if settings.noise and generator.random() < settings.noise:
        image = _noisy(image, generator.uniform(0.0, settings.noise_sigma), generator)
    if settings.jpeg and generator.random() < settings.jpeg:
        image = jpeg(image, generator.randint(settings.jpeg_quality, 95))
    return image
