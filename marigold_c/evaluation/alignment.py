"""Bringing an affine-invariant prediction to a ground truth before both are compared. Wraps csrc/evaluation; called by
users and by the evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _C
from ..images.arrays import as_array

Array = NDArray[np.float32]


def _map_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(1, H, W, 1) and (1, 1, H, W) are both maps of H x W."""
    return (shape[-3], shape[-2]) if shape[-1] == 1 and shape[-2] != 1 else (shape[-2], shape[-1])


def plane(value: Any, name: str) -> NDArray[Any]:
    """(H, W) of an array with axes of size 1 around it. ValueError naming `name` if it is no map."""
    array = as_array(value)
    planes = [size for size in array.shape if size != 1]
    if array.ndim < 2 or len(planes) > 2:
        raise ValueError(f"`{name}` must be a map (H, W); got shape {array.shape}")
    return array if array.ndim == 2 else array.reshape(_map_shape(array.shape))


def plane_or_none(mask: ArrayLike | None) -> NDArray[np.bool_] | None:
    return None if mask is None else plane(mask, "mask").astype(bool)


def _resolution(max_resolution: int | None) -> int:
    if max_resolution is not None and max_resolution < 1:
        raise ValueError(f"`max_resolution` must be positive, or None for all pixels; got {max_resolution}")
    return 0 if max_resolution is None else max_resolution


def align_least_squares(
    prediction: Any,
    target: Any,
    mask: ArrayLike | None = None,
    space: str = "depth",
    max_resolution: int | None = None,
) -> tuple[Array, float, float]:
    """Fits a prediction to a measurement: the nearest to it of the maps that are affine to the prediction.

    Args:
        prediction: (H, W), also with axes of size 1 around it.
        target: The measured depth, (H, W), in any unit.
        mask: bool (H, W), which pixels count; None: those where both are finite.
        space: What scale * prediction + shift is fitted to by least squares: "depth", the target; "disparity", its
            inverse (the result is 1 / max(fit, 1e-3)); "log", its logarithm (the result is exp(fit)).
        max_resolution: Fit on maps reduced to that longer side, as evaluations of large images do; None: all pixels.

    Returns:
        (aligned, scale, shift): float32 in the shape of the prediction, and the fit; a constant prediction gets scale
            0.

    Raises:
        ValueError: No valid pixel, or other shapes.
    """
    aligned, scale, shift = _C.align_least_squares(
        plane(prediction, "prediction"),
        plane(target, "target"),
        plane_or_none(mask),
        space,
        _resolution(max_resolution),
    )
    return aligned.reshape(np.shape(prediction)), scale, shift


def align_ransac(
    prediction: Any,
    target: Any,
    mask: ArrayLike | None = None,
    space: str = "log",
    max_resolution: int | None = None,
    seed: int = 0,
) -> tuple[Array, float, float]:
    """As align_least_squares, by random sample consensus (Fischler and Bolles 1981): gross errors take no part.

    1000 lines are drawn through two valid pixels each. A pixel agrees with a line that misses the target, in the space
    of the fit, by no more than the median absolute deviation of all targets. The result is the least squares fit over
    the pixels that agree with the line that most agree with.

    Args:
        prediction: (H, W), also with axes of size 1 around it.
        target: The measured depth, (H, W), in any unit.
        mask: bool (H, W), which pixels count; None: those where both are finite.
        space: "depth", "disparity" or "log", as in align_least_squares.
        max_resolution: Fit on maps reduced to that longer side; None: all pixels.
        seed: Of the lines that are drawn.

    Returns:
        (aligned, scale, shift): float32 in the shape of the prediction, and the fit.

    Raises:
        ValueError: No valid pixel, or other shapes.
    """
    aligned, scale, shift = _C.align_ransac(
        plane(prediction, "prediction"),
        plane(target, "target"),
        plane_or_none(mask),
        space,
        _resolution(max_resolution),
        seed,
    )
    return aligned.reshape(np.shape(prediction)), scale, shift


def align_median(
    prediction: Any, target: Any, mask: ArrayLike | None = None, max_resolution: int | None = None
) -> tuple[Array, float, float]:
    """Multiplies a prediction by the ratio of the target's median to its own, over the valid pixels.

    Args:
        prediction: (H, W), also with axes of size 1 around it.
        target: The measured depth, (H, W), in any unit.
        mask: bool (H, W), which pixels count; None: those where both are finite.
        max_resolution: Fit on maps reduced to that longer side; None: all pixels.

    Returns:
        (aligned, scale, 0.0): float32 in the shape of the prediction, and the factor.

    Raises:
        ValueError: No valid pixel, or the prediction's median is 0.
    """
    aligned, scale = _C.align_median(
        plane(prediction, "prediction"), plane(target, "target"), plane_or_none(mask), _resolution(max_resolution)
    )
    return aligned.reshape(np.shape(prediction)), scale, 0.0
