"""Bas-reliefs from depth: closed solids for 3-D printers, as the demo of Marigold's authors makes them (extrude.py of
prs-eth/depth-to-3d-print). Called by commands/depth.py and by scripts; geometry_files.py writes them as .stl.

The solid lies flat: x to the right, y up in the picture, z towards the viewer, millimetres. Its surface is a height
field; around it a frame; behind it a plate.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .point_clouds import Geometry, checked_depth

MEDIANS = (1, 3, 5)
Array = NDArray[np.float64]
Corners = NDArray[np.int64]


def _median(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Over a window of size x size pixels; borders repeat."""
    padded = np.pad(values, size // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    middle: NDArray[np.float32] = np.median(windows, axis=(-2, -1)).astype(np.float32)
    return middle


def _heights(depth: NDArray[np.float32], near: float, far: float, median: int, pixels: int) -> Array:
    """(h, w) in [0, 1]: 1 at the near plane, 0 at the far one."""
    height, width = depth.shape
    part = min(1.0, pixels / max(height, width))
    size = (max(2, round(width * part)), max(2, round(height * part)))
    picture = Image.fromarray(depth, "F")
    if part < 1:
        picture = picture.resize(size, Image.Resampling.BOX)
    values = _median(np.asarray(picture, np.float32), median)
    low, high = float(values.min()), float(values.max())
    if not high > low:
        raise ValueError(f"the depth is {low:g} everywhere: a relief needs two different depths")
    whole = (values.astype(np.float64) - low) / (high - low)
    return 1 - (np.clip(whole, near, far) - near) / (far - near)


def _border(height: int, width: int) -> tuple[Corners, Corners]:
    """Rows and columns of the border's pixels, counter-clockwise as the viewer sees them, from the lower left one."""
    rows = [
        np.full(width - 1, height - 1),
        np.arange(height - 1, 0, -1),
        np.zeros(width - 1, int),
        np.arange(height - 1),
    ]
    columns = [
        np.arange(width - 1),
        np.full(height - 1, width - 1),
        np.arange(width - 1, 0, -1),
        np.zeros(height - 1, int),
    ]
    return np.concatenate(rows), np.concatenate(columns)


def _strip(inner: Corners, outer: Corners) -> Corners:
    """Triangles between two closed lines, seen from where `outer` runs counter-clockwise around `inner`."""
    next_inner, next_outer = np.roll(inner, -1), np.roll(outer, -1)
    return np.concatenate([np.stack([inner, outer, next_outer], 1), np.stack([inner, next_outer, next_inner], 1)])


def depth_to_relief(
    depth: Any,
    *,
    prediction_type: str = "depth",
    near_plane: float = 0.0,
    far_plane: float = 1.0,
    embossing: float = 0.2,
    size: float = 10.0,
    pixels: int = 512,
    median: int = 3,
    frame: float = 0.05,
    frame_near: float = 0.01,
    frame_far: float = 0.01,
) -> Geometry:
    """A closed solid whose front is the depth map in relief, with a frame around it. The defaults are the demo's.

    Lengths without a unit are parts of the picture's longer side.

    Args:
        depth: (H, W), (H, W, 1) or (1, H, W, 1) in [0, 1]; brought to the whole range first.
        prediction_type: "depth", or "disparity" for maps that are 1 where it is near.
        near_plane: What is nearer than this part of the range is cut off flat.
        far_plane: What is further away, too.
        embossing: How far the nearest stands out over the farthest, 0 to 1.
        size: Of the solid's longest side, frame included, in centimetres.
        pixels: Of the map's longer side, at most; larger maps are averaged.
        median: Width of a median filter against spikes: 1 (none), 3 or 5 pixels.
        frame: The frame's width, 0 to 1; 0: none.
        frame_near: How far the frame stands out over the nearest, -1 to 1; never below the farthest.
        frame_far: Thickness of the plate behind the farthest, above 0 to 1.

    Returns:
        Vertices (N, 3) in millimetres and triangles (M, 3), counter-clockwise from outside, without a gap.

    Raises:
        ValueError: Bad arguments, depths that are not finite, a map that is the same everywhere.
    """
    bounds = {
        "near_plane": (near_plane, 0, 1),
        "far_plane": (far_plane, 0, 1),
        "embossing": (embossing, 0, 1),
        "frame": (frame, 0, 1),
        "frame_near": (frame_near, -1, 1),
    }
    for name, (value, low, high) in bounds.items():
        if not low <= value <= high:
            raise ValueError(f"{name}={value}: expected {low} to {high}")
    if not near_plane < far_plane:
        raise ValueError(f"near_plane={near_plane} and far_plane={far_plane}: expected near_plane < far_plane")
    if not 0 < frame_far <= 1:
        raise ValueError(f"frame_far={frame_far}: expected more than 0, at most 1")
    if not 0 < size < math.inf:
        raise ValueError(f"size={size}: expected a positive number of centimetres")
    if median not in MEDIANS:
        raise ValueError(f"median={median}: choose from {', '.join(map(str, MEDIANS))}")
    if pixels < 2:
        raise ValueError(f"pixels={pixels}: expected at least 2")
    values = checked_depth(depth)
    if prediction_type == "disparity":
        values = 1 - values
    elif prediction_type != "depth":
        raise ValueError(f"prediction_type={prediction_type!r}: choose from depth, disparity")
    heights = _heights(values, near_plane, far_plane, median, pixels)
    return _solid(embossing * (heights - 1), embossing, size, frame, frame_near, frame_far)


def _solid(z: Array, embossing: float, size: float, frame: float, frame_near: float, frame_far: float) -> Geometry:
    """z: (h, w), 0 at the nearest, -embossing at the farthest; all in parts of the longer side."""
    height, width = z.shape
    step = 1 / (max(height, width) - 1)
    x, y = np.arange(width) * step, np.arange(height - 1, -1, -1) * step
    front = np.stack([*np.broadcast_arrays(x[None], y[:, None]), z], axis=-1).reshape(-1, 3)
    numbers = np.arange(height * width).reshape(height, width)
    a, b, c, d = numbers[:-1, :-1].ravel(), numbers[:-1, 1:].ravel(), numbers[1:, :-1].ravel(), numbers[1:, 1:].ravel()
    triangles = [np.stack([a, c, b], 1), np.stack([b, c, d], 1)]
    rows, columns = _border(height, width)
    vertices, line = [front], numbers[rows, columns]
    back = -embossing - frame_far

    def ring(outwards: float, level: float) -> Corners:
        """New vertices around the picture, moved outwards."""
        place = np.stack([x[columns], y[rows], np.full(len(rows), level)], 1)
        place[:, 0] += outwards * ((columns == width - 1).astype(float) - (columns == 0))
        place[:, 1] += outwards * ((rows == 0).astype(float) - (rows == height - 1))
        first = sum(map(len, vertices))
        vertices.append(place)
        return np.arange(first, first + len(rows))

    lines = [line]
    if frame:
        level = max(frame_near, -embossing)
        lines += [ring(0.0, level), ring(frame, level)]
    lines.append(ring(frame, back))
    triangles += [_strip(inner, outer) for inner, outer in pairwise(lines)]
    middle = sum(map(len, vertices))
    vertices.append(np.array([[x[-1] / 2, y[0] / 2, back]]))
    last = lines[-1]
    triangles.append(np.stack([np.roll(last, -1), last, np.full(len(last), middle)], 1))
    points = np.concatenate(vertices)
    points -= points.min(axis=0)
    points *= 10 * size / points.max()
    return Geometry(points.astype(np.float32), None, np.concatenate(triangles).astype(np.uint32))
