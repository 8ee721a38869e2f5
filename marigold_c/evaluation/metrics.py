"""The numbers that predictions are judged by, under prs-eth/Marigold's names. Wraps csrc/evaluation; called by users,
the evaluation and the validation of a training. Aligning depth first is alignment.py's work.

No rounding, and float64 sums: the last digits differ from code that adds float32 numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _C
from ..extras import install_command
from ..images.arrays import as_array
from .alignment import plane, plane_or_none

DEPTH_METRICS = (
    *("abs_relative_difference", "squared_relative_difference", "rmse_linear", "rmse_log", "log10"),
    *("delta1_acc", "delta2_acc", "delta3_acc", "i_rmse", "silog_rmse"),
)
NORMALS_METRICS = (
    *("mean_angular_error", "median_angular_error", "rmse_angular_error"),
    *("sub5_error", "sub7_5_error", "sub11_25_error", "sub22_5_error", "sub30_error"),
)
COMPLETION_METRICS = ("mae", "rmse")
INTRINSICS_METRICS = ("psnr", "ssim", "lpips")
_BOUNDS = (5.0, 7.5, 11.25, 22.5, 30.0)
_SMALLEST_SSIM = 6  # pixels a side: half its window is reflected at the borders


def depth(prediction: Any, target: Any, mask: ArrayLike | None = None) -> dict[str, float]:
    """Compares a depth map with the truth, by the metrics of prs-eth/Marigold.

    Args:
        prediction: (H, W), metres. What is not positive, or not finite, gives what the formulas give (NaN or infinity
            in the means; NaN is not within any delta): clip first.
        target: (H, W), metres.
        mask: bool (H, W), which pixels count; None: all.

    Returns:
        The names of DEPTH_METRICS with their values; silog_rmse in hundredths, deltas as shares from 0 to 1.

    Raises:
        ValueError: No valid pixel.
    """
    return _C.depth_metrics(plane(prediction, "prediction"), plane(target, "target"), plane_or_none(mask))


def completion(prediction: Any, target: Any, mask: ArrayLike | None = None) -> dict[str, float]:
    """Compares completed depth with the truth: mean absolute error and root of the mean square, both in metres.

    Args:
        prediction: (H, W), metres.
        target: (H, W), metres.
        mask: bool (H, W), which pixels count; None: all.

    Returns:
        The names of COMPLETION_METRICS with their values.

    Raises:
        ValueError: No valid pixel.
    """
    found, wanted, valid = plane(prediction, "prediction"), plane(target, "target"), plane_or_none(mask)
    error = (found.astype(np.float64) - wanted)[... if valid is None else valid.astype(bool)]
    if not error.size:
        raise ValueError("no pixel is valid")
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean()))}


def _vectors(value: Any, name: str) -> NDArray[Any]:
    array = as_array(value)
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"`{name}` must be an image (H, W, 3); got shape {array.shape}")
    return array


def angular_errors(prediction: Any, target: Any, mask: ArrayLike | None = None) -> NDArray[np.float32]:
    """Degrees between the vectors (H, W, 3) of each valid pixel, row by row: (pixels,).

    Valid: the mask is true and the true vector is not zero. A predicted zero vector is at 90 degrees.
    """
    return _C.angular_errors(_vectors(prediction, "prediction"), _vectors(target, "target"), plane_or_none(mask))


def normals(prediction: Any, target: Any, mask: ArrayLike | None = None) -> dict[str, float]:
    """Compares surface normals with the truth by the angles between them.

    Args:
        prediction: (H, W, 3), of any length; a vector of length 0 is at 90 degrees.
        target: (H, W, 3), of any length; a vector of length 0 does not count.
        mask: bool (H, W), which pixels count; None: all.

    Returns:
        The names of NORMALS_METRICS with their values, in degrees and percent.

    Raises:
        ValueError: No valid pixel.
    """
    return _C.angle_statistics(angular_errors(prediction, target, mask))


class NormalsPool:
    """The angular errors of all pixels of a set, for statistics over the set as one (DSINE, E2E-FT, Lotus), where
    `normals` is averaged over images.

    Exact up to EXACT pixels. Beyond, errors are counted in bins of 2^-16 of their size (all below 2^-10 degrees in
    the first): means, RMSE and percentages stay exact, the median is within a bin.
    """

    EXACT = 20_000_000
    _SHIFT, _LEAST_EXPONENT, _EXPONENTS = 7, 127 - 10, 18  # bits of a float32; from 2^-10 to below 2^8 degrees
    _BINS = _EXPONENTS << (23 - _SHIFT)

    def __init__(self) -> None:
        self.pixels = 0
        self._sum = self._squares = 0.0
        self._below = np.zeros(len(_BOUNDS), np.int64)
        self._errors: list[NDArray[np.float32]] = []
        self._bins: NDArray[np.int64] | None = None

    def add(self, prediction: Any, target: Any, mask: ArrayLike | None = None) -> None:
        """The pixels of one image; none if none is valid."""
        errors = angular_errors(prediction, target, mask)
        self.pixels += errors.size
        self._sum += float(errors.sum(dtype=np.float64))
        self._squares += float(np.square(errors, dtype=np.float64).sum())
        self._below += [np.count_nonzero(errors < np.float32(bound)) for bound in _BOUNDS]
        self._keep(errors)

    def merge(self, other: NormalsPool) -> None:
        """All that `other` has seen."""
        self.pixels += other.pixels
        self._sum += other._sum
        self._squares += other._squares
        self._below += other._below
        for errors in other._errors:
            self._keep(errors)
        if other._bins is not None:
            self._count()
            assert self._bins is not None
            self._bins += other._bins

    def _keep(self, errors: NDArray[np.float32]) -> None:
        self._errors.append(errors)
        if self._bins is not None or sum(one.size for one in self._errors) > self.EXACT:
            self._count()

    def _count(self) -> None:
        """Moves the errors that are kept into bins."""
        if self._bins is None:
            self._bins = np.zeros(self._BINS, np.int64)
        first = self._LEAST_EXPONENT << (23 - self._SHIFT)
        for errors in self._errors:
            index = (errors.view(np.uint32) >> self._SHIFT).astype(np.int64) - first
            self._bins += np.bincount(np.clip(index, 0, self._BINS - 1), minlength=self._BINS)
        self._errors = []

    def _median(self) -> float:
        if self._bins is None:
            return float(np.median(np.concatenate(self._errors)))
        until = np.cumsum(self._bins)
        index = int(np.searchsorted(until, (self.pixels + 1) / 2))
        first = self._LEAST_EXPONENT << (23 - self._SHIFT)
        bits = np.array([index + first, index + first + 1], np.uint32) << np.uint32(self._SHIFT)
        low, high = (float(edge) for edge in bits.view(np.float32))
        before = int(until[index] - self._bins[index])
        return low + (high - low) * ((self.pixels / 2 - before) / int(self._bins[index]))

    def result(self) -> dict[str, float]:
        """NORMALS_METRICS over all pixels. ValueError if there is none."""
        if not self.pixels:
            raise ValueError("no valid pixel among the normals of the set")
        mean, rmse = self._sum / self.pixels, math.sqrt(self._squares / self.pixels)
        shares = (100.0 * float(below) / self.pixels for below in self._below)
        return dict(zip(NORMALS_METRICS, (mean, self._median(), rmse, *shares), strict=True))


@cache
def _lpips() -> Callable[[NDArray[np.float32], NDArray[np.float32]], float] | None:
    """LPIPS (AlexNet) of two images (H, W, 3) in [0, 1]; None, with a warning, where it is not installed."""
    try:
        import torch
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        metric = LearnedPerceptualImagePatchSimilarity(normalize=True)
    except (ImportError, OSError) as error:
        warnings.warn(f"LPIPS is left out: {error}; {install_command('lpips')}", UserWarning, stacklevel=3)
        return None

    def distance(prediction: NDArray[np.float32], target: NDArray[np.float32]) -> float:
        images = (torch.from_numpy(np.ascontiguousarray(one.transpose(2, 0, 1)))[None] for one in (prediction, target))
        with torch.no_grad():
            return float(metric(*images))

    return distance


def has_lpips() -> bool:
    """Whether `intrinsics` gives LPIPS; where it does not, a warning says why."""
    return _lpips() is not None


def intrinsics(prediction: Any, target: Any, mask: ArrayLike | None = None) -> dict[str, float]:
    """Compares one target of intrinsic images with the truth, by PSNR, SSIM and LPIPS as torchmetrics defines them.

    Args:
        prediction: (H, W, 3) in [0, 1].
        target: (H, W, 3) in [0, 1].
        mask: bool (H, W, 3) or (H, W). PSNR counts the values where it is true; for SSIM and LPIPS both images are 0
            elsewhere.

    Returns:
        "psnr" in dB, infinite for equal images, NaN if the mask is empty; "ssim", NaN for images with a side below 6
        pixels; "lpips", NaN, with a warning, where torch, torchvision and torchmetrics are not installed.

    Raises:
        ValueError: Other shapes.
    """
    predicted, true = _vectors(prediction, "prediction"), _vectors(target, "target")
    valid = None if mask is None else as_array(mask).astype(bool)
    if valid is not None and valid.ndim == 2:
        valid = np.repeat(valid[:, :, None], predicted.shape[2], axis=2)
    values = {"psnr": _C.psnr(predicted, true, valid), "ssim": math.nan, "lpips": math.nan}
    if min(predicted.shape[:2]) >= _SMALLEST_SSIM:
        values["ssim"] = _C.ssim(predicted, true, valid)
    distance = _lpips()
    if distance is not None:
        seen = (one if valid is None else np.where(valid, one, 0) for one in (predicted, true))
        values["lpips"] = distance(*(one.astype(np.float32) for one in seen))
    return values
