"""Small pictures of a sample for the report: the image, and prediction, truth and error of each map. Called by
inference.py."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..images import colormaps
from ..images.image_processor import MarigoldImageProcessor
from .prediction_files import WHOLE

if TYPE_CHECKING:
    from .scoring import Comparison

_LONGER_SIDE = 288  # pixels
_QUALITY = 88
_INVALID = 224  # a grey that no colour map has
# The error that the last colour stands for, and how the report calls the scale.
_ERROR_SCALES = {
    "depth": (0.3, "relative error, 0 to 0.3"),
    "normals": (60.0, "angle, 0 to 60 degrees"),
    "completion": (1.0, "error, 0 to 1 m"),
    "iid": (0.3, "difference, 0 to 0.3"),
}
_RANGE = (0.02, 0.98)  # quantiles of the true depth that the colours span


@dataclass(frozen=True)
class View:
    """(what it shows, JPEG) of each picture."""

    pictures: tuple[tuple[str, bytes], ...]


def _small(pixels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((_LONGER_SIDE, _LONGER_SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue()


def _masked(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    shown = pixels.copy()
    shown[~valid] = _INVALID
    return shown


def _depth_colours(maps: list[NDArray[np.float32]], valid: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
    """All maps in the colours of one range: the truth's, which comes last."""
    low, high = np.quantile(maps[-1][valid], _RANGE)
    spread = max(float(high - low), 1e-6)
    return [colormaps.apply(((one - low) / spread).astype(np.float32), "Spectral") for one in maps]


def _value_pictures(
    prediction: NDArray[np.float32], truth: NDArray[np.float32], valid: NDArray[np.bool_], task: str
) -> list[NDArray[np.uint8]]:
    if task in ("depth", "completion"):
        return _depth_colours([prediction, truth], valid)
    if task == "normals":
        return [np.asarray(MarigoldImageProcessor.visualize_normals(one)[0]) for one in (prediction, truth)]
    return [colormaps.as_bytes(one) for one in (prediction, truth)]


def draw(image: NDArray[np.uint8], comparison: Comparison, task: str) -> View:
    """The pictures of one sample."""
    largest, scale = _ERROR_SCALES[task]
    pictures: list[tuple[str, Any]] = [("image", image)]
    for target, prediction in comparison.prediction.items():
        valid = comparison.valid[target]
        if not valid.any():
            continue
        prefix = "" if target == WHOLE else f"{target}: "
        predicted, truth = _value_pictures(prediction, comparison.truth[target], valid, task)
        error = colormaps.apply((comparison.error[target] / largest).astype(np.float32), "Spectral_r")
        pictures += [
            (f"{prefix}prediction", predicted),
            (f"{prefix}truth", _masked(truth, valid)),
            (f"{prefix}{scale}", _masked(error, valid)),
        ]
    return View(tuple((name, _small(pixels)) for name, pixels in pictures))
