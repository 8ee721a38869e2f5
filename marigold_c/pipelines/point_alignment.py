"""Scale and shift from a relative depth map to metres by a few measured points, whose outliers count little."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TUNING = 1.345  # of Huber: 95 % of least squares' precision where errors are normal
_DEVIATION = 1.4826  # a normal distribution's deviation by its median absolute deviation
_ITERATIONS = 200


def _weighted_line(depth: Array, metres: Array, weight: Array) -> tuple[float, float]:
    """Least squares by means and centred products."""
    total = weight.sum()
    mean_depth, mean_metres = (weight * depth).sum() / total, (weight * metres).sum() / total
    away = depth - mean_depth
    spread = (weight * away * away).sum()
    scale = (weight * away * (metres - mean_metres)).sum() / spread if spread > 0 else 0.0
    return float(scale), float(mean_metres - scale * mean_depth)


def align_to_points(depth: NDArray[np.floating], metres: NDArray[np.floating]) -> tuple[float, float]:
    """(scale, shift) with scale * depth + shift near to metres: Huber's M-estimate by iteratively reweighted least
    squares (Holland and Welsch 1977), from the least squares' line.

    depth, metres: (n,), of the measured points, n at least 2. An error counts by its square up to 1.345 deviations,
    beyond that by its size; the median absolute error estimates the deviation anew in each iteration. In float64.
    ValueError: fewer points, or the map has one depth at all of them.
    """
    x, y = np.asarray(depth, np.float64), np.asarray(metres, np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(f"depth {x.shape} and metres {y.shape}: they must be two lists of the same 2 or more points")
    if np.ptp(x) <= 1e-6:
        raise ValueError(
            f"the predicted depth is {x[0]:g} at all {len(x)} measured points; no scale can be found from them"
        )
    scale, shift = _weighted_line(x, y, np.ones_like(x))
    for _ in range(_ITERATIONS):
        error = np.abs(scale * x + shift - y)
        limit = _TUNING * _DEVIATION * float(np.median(error))
        if limit <= 1e-12 * float(np.abs(y).max()):  # half of the points lie on the line
            break
        before = scale, shift
        scale, shift = _weighted_line(x, y, limit / np.maximum(error, limit))
        if abs(scale - before[0]) + abs(shift - before[1]) <= 1e-12 * (abs(scale) + abs(shift)):
            break
    return scale, shift
