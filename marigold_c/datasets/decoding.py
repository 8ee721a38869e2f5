"""Bytes of a sample's files as arrays of what they encode. Called by truths.py and dataset.py.

Each function raises readers.InputError, which says what is wrong and leaves it to the caller to name the file.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images.readers import InputError, decode_stored

_MOST_VALUES = 2**29  # of an array in a file
GAMMA = 2.2  # what the reference's data sets take for the curve of sRGB


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """A photograph as uint8 (H, W, 3): the stored pixels, not turned by EXIF; 16 bits cut to 8; grey repeated."""
    pixels = decode_stored(data)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(f"its pixels are {pixels.dtype}, not 8 or 16 bits")
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels)


def decode_units(data: bytes) -> NDArray[np.uint16]:
    """Depth in a 16-bit grey PNG as uint16 (H, W)."""
    pixels = decode_stored(data)
    if pixels.ndim != 2 or pixels.dtype != np.uint16:
        raise InputError(f"depth is stored in grey images of 16 bits; this one holds {pixels.dtype} {pixels.shape}")
    return pixels


def decode_npy(data: bytes) -> NDArray[Any]:
    """An array of numbers in NumPy's format. The length is checked before anything is allocated."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, by_columns, dtype = np.lib.format.read_array_header_2_0(file)
    except (ValueError, SyntaxError) as error:
        raise InputError(f"no array in NumPy's format: {error}") from None
    if dtype.kind not in "biuf":
        raise InputError(f"an array of {dtype}, not of numbers")
    count = 1
    for length in shape:
        count *= int(length)
    start = file.tell()
    if count > _MOST_VALUES or count * dtype.itemsize != len(data) - start:
        raise InputError(f"{dtype} {shape} does not take the {len(data) - start} bytes that the file holds")
    return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if by_columns else "C")


def decode_raw_float32(data: bytes, height: int, width: int) -> NDArray[np.float32]:
    """Little-endian float32 (H, W) without any header."""
    if len(data) != 4 * height * width:
        raise InputError(f"{len(data)} bytes are no float32 of the size of the image, {height} x {width}")
    return np.frombuffer(data, "<f4").reshape(height, width)


def decode_unit_colours(data: bytes, gamma_encode: bool) -> NDArray[np.float32]:
    """Colours (H, W, 3) as float32 in [0, 1]; scene-referred values (EXR) are clipped and, if asked, gamma encoded.

    Integers are divided by their largest value and stay as they are.
    """
    pixels = decode_stored(data)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype.kind == "u":
        return (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)
    missing = int(np.count_nonzero(np.isnan(pixels)))
    if missing:
        raise InputError(f"{missing} of {pixels.size} values are not numbers")
    colours: NDArray[np.float32] = np.clip(pixels, 0, 1).astype(np.float32)
    if gamma_encode:
        np.power(colours, np.float32(1 / GAMMA), out=colours)
    return colours


def as_map(array: NDArray[Any]) -> NDArray[Any]:
    """(H, W) out of an array with further axes of length one."""
    array = array.squeeze()
    if array.ndim != 2:
        raise InputError(f"a map (H, W) is expected, not {array.shape}")
    return array


def as_vectors(array: NDArray[Any]) -> NDArray[np.float32]:
    """A copy as float32 (H, W, 3)."""
    if array.ndim != 3 or array.shape[2] != 3:
        raise InputError(f"(H, W, 3) is expected, not {array.shape}")
    return np.array(array, np.float32, order="C")
