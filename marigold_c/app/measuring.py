"""Depth in metres from a few known distances, and distances between points of a photograph. Called by measure_tab.py.

Depth is affine-invariant: distance = scale * depth + shift (of a map of disparity, 1 / distance). Two known points give
both numbers, more their least squares, one the scale alone. Distances are along the axis of view, as everywhere here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..images.point_clouds import focal_length_in_pixels
from ..images.sparse_depth import sparse_map
from .limits import Refused

MOST_POINTS = 100


@dataclass(frozen=True)
class Point:
    """column, row: of the map, whole numbers. metres: what is known of its distance, or None."""

    column: int
    row: int
    metres: float | None


def parse_points(text: str, height: int, width: int) -> list[Point]:
    """Lines "column, row" or "column, row, metres". Refused: names the line."""
    points = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        try:
            column, row = (int(float(word)) for word in words[:2])
            metres = float(words[2]) if len(words) > 2 else None
        except (ValueError, OverflowError) as error:
            raise Refused(f"line {number}: {line!r} is not: column, row, metres") from error
        if not (0 <= column < width and 0 <= row < height):
            raise Refused(f"line {number}: column {column}, row {row} is outside of {width} x {height}")
        if metres is not None and not 0 < metres < np.inf:
            raise Refused(f"line {number}: {metres:g} metres is not a positive distance")
        points.append(Point(column, row, metres))
    if len(points) > MOST_POINTS:
        raise Refused(f"{len(points)} points; at most {MOST_POINTS} are measured")
    return points


def sparse_metres(points: Sequence[Point], height: int, width: int) -> NDArray[np.float32]:
    """The known distances as a map (height, width), 0 elsewhere. ValueError: two distances at one pixel."""
    known = [(one.column, one.row, one.metres) for one in points if one.metres is not None]
    return sparse_map(known, height, width)


def fit_metres(depth: NDArray[np.float32], points: Sequence[Point], is_disparity: bool) -> NDArray[np.float32]:
    """The distance of each pixel of a map (H, W) in [0, 1], in metres, by the points whose distance is known.

    Refused: none is known; the known ones all have one depth but differ, or are farther where the map says nearer; some
    pixels would lie behind the camera.
    """
    known = [(float(depth[one.row, one.column]), one.metres) for one in points if one.metres is not None]
    if not known:
        raise Refused("Type the distance of at least one point, in metres.")
    seen, metres = np.array(known, np.float64).T
    wanted = 1 / metres if is_disparity else metres
    columns = [seen] if len(known) == 1 else [seen, np.ones_like(seen)]
    solution, _, rank, _ = np.linalg.lstsq(np.stack(columns, axis=1), wanted, rcond=None)
    scale, shift = float(solution[0]), float(solution[1]) if len(solution) > 1 else 0.0
    if rank < len(columns) or scale <= 0:
        raise Refused("The distances do not fit this depth: farther points must have larger distances.")
    fitted = scale * depth.astype(np.float64) + shift
    if fitted.min() <= 0 and (is_disparity or fitted.min() < 0):
        raise Refused("With these distances some of the picture lies behind the camera: add a point that is near.")
    return (1 / fitted if is_disparity else fitted).astype(np.float32)


def positions(metres: NDArray[np.float32], points: Sequence[Point], field_of_view: float) -> NDArray[np.float64]:
    """Where the points are, (N, 3) in metres: x to the right, y up, z towards the camera, which is at the origin.
    field_of_view: degrees across the longer side."""
    height, width = metres.shape
    focal = focal_length_in_pixels(height, width, field_of_view=field_of_view)
    columns, rows = np.array([(one.column, one.row) for one in points], np.float64).reshape(-1, 2).T
    z = metres[rows.astype(int), columns.astype(int)].astype(np.float64)
    return np.stack([z * (columns + 0.5 - width / 2) / focal, z * (height / 2 - rows - 0.5) / focal, -z], axis=1)
