"""Measured points of an image as maps of metres, 0 where nothing was measured: from files, and from lists of points.

Called by commands/complete.py and by users. Files are untrusted.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable
from os import PathLike, fspath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .readers import InputError, decode_stored

MILLIMETRE = 0.001
Array = NDArray[np.float32]


def _place(value: float, size: int, what: str, axis: str) -> int:
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{what}: {axis} is {value:g}; it must be a whole number of pixels")
    if not 0 <= value < size:
        raise ValueError(f"{what}: {axis} is {value:g}, outside the image, whose {axis} go from 0 to {size - 1}")
    return int(value)


def sparse_map(points: Iterable[tuple[float, float, float]], height: int, width: int, name: str = "point") -> Array:
    """Points (x, y, metres) as a map float32 (height, width), 0 where there is none; x counts columns, y rows, from 0.

    name: what a point is called in messages, with its number from 1. ValueError: a point outside the image, no positive
    distance, or two distances at one pixel.
    """
    depth = np.zeros((height, width), np.float32)
    for number, (x, y, metres) in enumerate(points, 1):
        what = f"{name} {number}"
        column, row = _place(x, width, what, "x"), _place(y, height, what, "y")
        if not 0 < metres < math.inf:
            raise ValueError(f"{what}: the distance is {metres:g}; it must be a positive number of metres")
        if depth[row, column] not in (0, np.float32(metres)):
            raise ValueError(f"{what}: the pixel x {column}, y {row} has a distance already, {depth[row, column]:g} m")
        depth[row, column] = metres
    return depth


def _of_npy(data: bytes, _unit: float) -> Array:
    values = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise InputError("holds no array of real numbers")
    return values.astype(np.float32)


def _of_png(data: bytes, unit: float) -> Array:
    stored = decode_stored(data)
    if stored.ndim != 2 or stored.dtype.kind != "u":
        raise InputError("is no greyscale PNG: depth has one channel of 8 or 16 bits")
    return (stored * np.float64(unit)).astype(np.float32)


def _of_pfm(data: bytes, _unit: float) -> Array:
    """Portable float map of one channel: rows from the bottom; the sign of the scale is the order of the bytes."""
    head = re.match(rb"Pf\s+(\d{1,9})\s+(\d{1,9})\s+(-?\d+(?:\.\d*)?)\s", data[:200])
    if head is None:
        raise InputError("is no PFM of one channel (Pf)")
    width, height = int(head[1]), int(head[2])
    values = data[head.end() :]
    if len(values) != 4 * width * height or not values:
        raise InputError(
            f"a PFM of {width} x {height} has {4 * width * height} bytes of values, this one {len(values)}"
        )
    order = "<" if float(head[3]) < 0 else ">"
    return np.frombuffer(values, f"{order}f4").reshape(height, width)[::-1].astype(np.float32)


def _rows(data: bytes) -> list[tuple[float, float, float]]:
    """x,y,metres in each line; a first line of names, empty lines and what follows a # are passed over."""
    points = []
    for number, line in enumerate(data.decode("utf-8-sig").splitlines(), 1):
        fields = [field.strip() for field in line.partition("#")[0].split(",")]
        if fields == [""] or (number == 1 and [field.lower() for field in fields[:2]] == ["x", "y"]):
            continue
        try:
            x, y, metres = map(float, fields)
        except ValueError:
            raise InputError(f"line {number} is {line[:60]!r}; a line is x,y,metres") from None
        points.append((x, y, metres))
    return points


_MAPS: dict[str, Callable[[bytes, float], Array]] = {".npy": _of_npy, ".png": _of_png, ".pfm": _of_pfm}
SUFFIXES = (*_MAPS, ".csv")


def _decode(path: Path, height: int, width: int, unit: float) -> Array:
    data = path.read_bytes()
    if path.suffix.lower() == ".csv":
        return sparse_map(_rows(data), height, width)
    depth = _MAPS[path.suffix.lower()](data, unit)
    if depth.shape in ((height, width, 1), (1, height, width)):
        depth = depth.reshape(height, width)
    if depth.shape != (height, width):
        raise InputError(f"has shape {depth.shape}, and the image has {height} rows of {width} pixels")
    return depth


def read_sparse_depth(
    path: str | PathLike[str], height: int, width: int, png_unit: float = MILLIMETRE
) -> NDArray[np.float32]:
    """The measured points in a file as float32 (height, width) in metres, 0 where nothing was measured.

    path: .npy (H, W), .pfm, both in metres; .png of 8 or 16 bits, whose values are times png_unit (default 0.001:
    millimetres; KITTI: 1 / 256); .csv, a line x,y,metres for each point.
    OSError: it cannot be read. InputError, a ValueError: not such a file, or of another size; each names the path.
    """
    name = fspath(path)
    if Path(name).suffix.lower() not in SUFFIXES:
        raise InputError(f"{name}: measured points are read from {', '.join(SUFFIXES)}")
    try:
        return _decode(Path(name), height, width, png_unit)
    except (InputError, ValueError, EOFError) as error:  # of NumPy and of decoding text, too
        raise InputError(f"{name}: {error}") from error
