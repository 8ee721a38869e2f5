"""Point clouds and meshes from depth.

Called by the commands and by scripts; the files are written by geometry_files.py. Coordinates are those of glTF: the
camera is at the origin and looks along -Z, X is to the right, Y is up.

Depth is affine-invariant: the network says neither the scale nor where zero is, nor the angle of view. So a shape
rests on two assumptions, which the caller should replace by what is known: the nearest and the farthest distance
(`near` = 1, `far` = 10: prediction 0 is at `near`, 1 at `far`), and the camera (60 degrees across the longer side).
Where a map was aligned with a measurement, distance = scale * depth + shift, give near = shift and
far = scale + shift. Distances are along the axis of view, as in the data that Marigold was trained on, not along rays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .arrays import array_of_pil, upright

ASSUMED_FIELD_OF_VIEW = 60.0
ASSUMED_NEAR, ASSUMED_FAR = 1.0, 10.0
EDGE_THRESHOLD = 0.05
_PREDICTION_TYPES = ("depth", "disparity")


@dataclass(frozen=True)
class Geometry:
    """vertices: float32 (N, 3). colours: uint8 sRGB (N, 3) or None. triangles: uint32 (M, 3), counter-clockwise as the
    camera sees them; None for a point cloud."""

    vertices: NDArray[np.float32]
    colours: NDArray[np.uint8] | None = None
    triangles: NDArray[np.uint32] | None = None


@dataclass(frozen=True)
class _Grid:
    """The chosen pixels of a map as a grid: positions (h, w, 3), which of them count, colours (h, w, 3)."""

    positions: NDArray[np.float32]
    valid: NDArray[np.bool_]
    colours: NDArray[np.uint8] | None
    stride: int


def _depth_array(depth: Any) -> NDArray[np.float32]:
    array = np.asarray(depth)
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"depth has shape {shape}; expected (H, W), (H, W, 1) or (1, H, W, 1)")
    if array.dtype.kind != "f":
        raise ValueError(f"depth has type {array.dtype}; expected floating-point numbers in [0, 1]")
    return array.astype(np.float32, copy=False)


def _check_depth(depth: NDArray[np.float32], mask: Any) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = np.ones(depth.shape, bool) if mask is None else np.asarray(mask)
    if valid.shape != depth.shape or valid.dtype != bool:
        raise ValueError(f"mask is {valid.dtype} {valid.shape}; expected bool {depth.shape}")
    counted = depth[valid]
    infinite = counted.size - np.count_nonzero(np.isfinite(counted))
    if infinite:
        raise ValueError(f"{infinite} of {counted.size} depths are not finite")
    if counted.size and (counted.min() < 0 or counted.max() > 1):
        raise ValueError(f"depth is from {counted.min():.6g} to {counted.max():.6g}; expected 0 to 1")
    return valid


def checked_depth(depth: Any) -> NDArray[np.float32]:
    """A map as float32 (H, W). ValueError: another shape or type, not finite, not in [0, 1]."""
    values = _depth_array(depth)
    _check_depth(values, None)
    return values


def distances(
    depth: NDArray[np.float32], near: float = ASSUMED_NEAR, far: float = ASSUMED_FAR, prediction_type: str = "depth"
) -> NDArray[np.float32]:
    """The distance of each prediction in [0, 1].

    "depth": near + depth * (far - near). "disparity": 1 at `near` and 0 at `far`, linear in 1 / distance.
    """
    if not (0 < near < far < math.inf):
        raise ValueError(f"near={near} and far={far}: expected 0 < near < far")
    if prediction_type not in _PREDICTION_TYPES:
        raise ValueError(f"prediction_type={prediction_type!r}: choose from {', '.join(_PREDICTION_TYPES)}")
    if prediction_type == "depth":
        return (near + depth * (far - near)).astype(np.float32)
    return (1 / (1 / far + depth * (1 / near - 1 / far))).astype(np.float32)


def focal_length_in_pixels(
    height: int, width: int, focal_length: float | None = None, field_of_view: float | None = None
) -> float:
    """The focal length: `focal_length` (pixels of this map) as it is, or from `field_of_view` (degrees across the
    longer side), or from ASSUMED_FIELD_OF_VIEW."""
    if focal_length is not None:
        if field_of_view is not None:
            raise ValueError(f"focal_length={focal_length} and field_of_view={field_of_view}: give one of them")
        if not 0 < focal_length < math.inf:
            raise ValueError(f"focal_length={focal_length}: expected a positive number of pixels")
        return float(focal_length)
    angle = ASSUMED_FIELD_OF_VIEW if field_of_view is None else field_of_view
    if not 0 < angle < 180:
        raise ValueError(f"field_of_view={angle}: expected degrees between 0 and 180")
    return max(height, width) / 2 / math.tan(math.radians(angle) / 2)


def _stride_for(height: int, width: int, stride: int, max_points: int | None) -> int:
    """The smallest multiple of pixels, at least `stride`, that leaves no more than `max_points`."""
    if stride < 1:
        raise ValueError(f"stride={stride}: expected at least 1")
    if max_points is None:
        return stride
    if max_points < 1:
        raise ValueError(f"max_points={max_points}: expected at least 1")
    while -(-height // stride) * -(-width // stride) > max_points:
        stride += 1
    return stride


def bytes_of_image(image: Any) -> NDArray[np.uint8]:
    """A PIL image or (H, W), (H, W, 1) or (H, W, 3) of uint8, uint16 or floats in [0, 1] as uint8 (H, W, 3)."""
    pixels = array_of_pil(upright(image)) if isinstance(image, Image.Image) else np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"image has shape {np.shape(image) or pixels.shape}; expected (H, W) or (H, W, 3)")
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257.0)
    elif pixels.dtype.kind == "f":
        pixels = np.rint(np.nan_to_num(np.clip(pixels, 0, 1)) * 255)
    elif pixels.dtype != np.uint8:
        raise ValueError(f"image has type {pixels.dtype}; expected uint8, uint16 or floating-point numbers in [0, 1]")
    return np.broadcast_to(pixels.astype(np.uint8), (*pixels.shape[:2], 3))


def _colours_at(image: Any, shape: tuple[int, ...], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours of the picture at pixels of the map, by the nearest where the picture has another resolution."""
    pixels = bytes_of_image(image)
    (height, width), (image_height, image_width) = shape, pixels.shape[:2]
    # A processing resolution is rounded to whole pixels: half a pixel of the map on either side.
    if abs(image_height * width - image_width * height) > max(image_height, image_width):
        raise ValueError(f"image is {image_width} x {image_height}, depth {width} x {height}: the proportions differ")
    at_rows = ((rows + 0.5) * image_height / height).astype(np.int64)
    at_columns = ((columns + 0.5) * image_width / width).astype(np.int64)
    chosen: NDArray[np.uint8] = pixels[at_rows[:, None], at_columns[None, :]]
    return chosen


def _grid(
    depth: Any,
    image: Any,
    mask: Any,
    focal_length: float | None,
    field_of_view: float | None,
    near: float,
    far: float,
    prediction_type: str,
    stride: int,
    max_points: int | None,
) -> _Grid:
    values = _depth_array(depth)
    valid = _check_depth(values, mask)
    height, width = values.shape
    focal = focal_length_in_pixels(height, width, focal_length, field_of_view)
    step = _stride_for(height, width, stride, max_points)
    rows, columns = np.arange(0, height, step), np.arange(0, width, step)
    valid = valid[::step, ::step]
    z = distances(np.where(valid, values[::step, ::step], np.float32(0)), near, far, prediction_type)
    x = (columns + 0.5 - width / 2) / focal
    y = (height / 2 - rows - 0.5) / focal
    positions = np.stack([z * x[None, :], z * y[:, None], -z], axis=2).astype(np.float32)
    colours = None if image is None else _colours_at(image, values.shape, rows, columns)
    return _Grid(positions, valid, colours, step)


def depth_to_points(
    depth: Any,
    image: Any = None,
    *,
    mask: Any = None,
    focal_length: float | None = None,
    field_of_view: float | None = None,
    near: float = ASSUMED_NEAR,
    far: float = ASSUMED_FAR,
    prediction_type: str = "depth",
    stride: int = 1,
    max_points: int | None = None,
) -> Geometry:
    """A point at the centre of every pixel. Coordinates are those of glTF: the camera at the origin, looking along -Z.

    Args:
        depth: (H, W), (H, W, 1) or (1, H, W, 1) in [0, 1].
        image: PIL image or (H, W[, 3]), for the colours; may have another resolution.
        mask: bool (H, W), which pixels count; the sky may be left out.
        focal_length: Of the camera, in pixels of the map.
        field_of_view: Degrees across the longer side, instead of the focal length; default: 60.
        near: The distance of depth 0, along the axis of view.
        far: The distance of depth 1.
        prediction_type: "depth", or "disparity" for maps that are linear in 1 / distance, 1 at `near`.
        stride: Take every so many pixels along both axes.
        max_points: Raise the stride until no more points remain.

    Returns:
        Vertices (N, 3) and colours (N, 3).

    Raises:
        ValueError: Bad arguments, depths that are not finite, no pixel that counts.
    """
    grid = _grid(depth, image, mask, focal_length, field_of_view, near, far, prediction_type, stride, max_points)
    if not grid.valid.any():
        raise ValueError(f"no point is left of {grid.valid.size} pixels: the mask excludes all")
    return Geometry(grid.positions[grid.valid], None if grid.colours is None else grid.colours[grid.valid])


def _whole(grid: _Grid, corners: NDArray[np.int64], limit: float) -> NDArray[np.bool_]:
    """Which triangles (M, 3) of the grid have valid corners whose distances differ by no more than the limit."""
    z = -grid.positions[:, :, 2].reshape(-1)[corners]
    flat: NDArray[np.bool_] = z.max(axis=1) <= z.min(axis=1) * np.float32(1 + limit)
    return flat & grid.valid.reshape(-1)[corners].all(axis=1)


def depth_to_mesh(
    depth: Any,
    image: Any = None,
    *,
    mask: Any = None,
    focal_length: float | None = None,
    field_of_view: float | None = None,
    near: float = ASSUMED_NEAR,
    far: float = ASSUMED_FAR,
    prediction_type: str = "depth",
    stride: int = 1,
    max_points: int | None = None,
    edge_threshold: float = EDGE_THRESHOLD,
) -> Geometry:
    """Two triangles in each square of neighbouring points of depth_to_points. Points that no triangle uses are left
    out.

    Args:
        depth: (H, W), (H, W, 1) or (1, H, W, 1) in [0, 1].
        image: PIL image or (H, W[, 3]), for the colours; may have another resolution.
        mask: bool (H, W), which pixels count; the sky may be left out.
        focal_length: Of the camera, in pixels of the map.
        field_of_view: Degrees across the longer side, instead of the focal length; default: 60.
        near: The distance of depth 0, along the axis of view.
        far: The distance of depth 1.
        prediction_type: "depth", or "disparity" for maps that are linear in 1 / distance, 1 at `near`.
        stride: Take every so many pixels along both axes.
        max_points: Raise the stride until no more points remain.
        edge_threshold: Leave out a triangle where the surface would be torn: its farthest corner is more than this part
            behind its nearest, for each pixel of the stride. math.inf keeps all.

    Returns:
        Vertices (N, 3), colours (N, 3) and triangles (M, 3).

    Raises:
        ValueError: As depth_to_points, or no triangle is left.
    """
    if not edge_threshold > 0:
        raise ValueError(f"edge_threshold={edge_threshold}: expected a positive number")
    grid = _grid(depth, image, mask, focal_length, field_of_view, near, far, prediction_type, stride, max_points)
    numbers = np.arange(grid.valid.size).reshape(grid.valid.shape)
    upper_left, upper_right = numbers[:-1, :-1].reshape(-1), numbers[:-1, 1:].reshape(-1)
    lower_left, lower_right = numbers[1:, :-1].reshape(-1), numbers[1:, 1:].reshape(-1)
    corners = np.concatenate(
        [
            np.stack([upper_left, lower_left, upper_right], axis=1),
            np.stack([upper_right, lower_left, lower_right], axis=1),
        ]
    )
    corners = corners[_whole(grid, corners, edge_threshold * grid.stride)] if len(corners) else corners
    if not len(corners):
        height, width = grid.valid.shape
        raise ValueError(f"no triangle is left of {width} x {height} points with edge_threshold={edge_threshold}")
    used = np.zeros(grid.valid.size, bool)
    used[corners] = True
    new_numbers = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
    colours = None if grid.colours is None else grid.colours.reshape(-1, 3)[used]
    return Geometry(grid.positions.reshape(-1, 3)[used], colours, new_numbers[corners])
