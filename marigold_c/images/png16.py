"""PNG of 16 bits a channel. Pillow keeps 16 bits of grey images only; here are the colour ones, both ways.

Called by readers.py and writers.py.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _COLOUR_TYPE = 24, 25  # where the header of a PNG says them
_COLOUR_TYPE_RGB = 2
_UP = 2  # the filter: difference to the byte above


def is_png(data: bytes) -> bool:
    """Whether this begins as a PNG."""
    return data.startswith(_SIGNATURE)


def is_16bit_colour(data: bytes) -> bool:
    """Whether this is a PNG of 16 bits with more than one channel."""
    return is_png(data) and data[_DEPTH : _COLOUR_TYPE + 1] in (b"\x10\x02", b"\x10\x04", b"\x10\x06")


def decode_low_bytes(data: bytes) -> NDArray[np.uint8] | None:
    """The low byte of each sample, as Pillow decodes it; None where Pillow does not decode as expected here.

    Pillow unpacks samples of 16 bits by their high byte, "RGB;16B". Told that the byte order is the other one, it
    gives the low byte. Its grey with transparency has the layout of 8-bit RGBA: high, low, and two bytes of alpha.
    """
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if len(image.tile) != 1:
            return None
        others = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
        tile: Any = image.tile[0]
        *where, rawmode = tile
        if rawmode not in others:
            return None
        # A plain tuple before Pillow 11.
        changed: Any = (*where, others[rawmode])
        image.tile = [type(tile)._make(changed) if hasattr(tile, "_make") else changed]
        low = np.asarray(image)
        return low[:, :, 1:2] if rawmode == "LA;16B" else low[:, :, :3]


def join_bytes(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Samples of 16 bits; a single low channel belongs to all high ones."""
    return np.left_shift(high.astype(np.uint16), 8) | low


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_colour(file: BinaryIO, image: NDArray[Any]) -> None:
    """Writes uint16 (H, W, 3) as PNG (ISO/IEC 15948), each row filtered by the one above. ValueError: other arrays."""
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"a 16-bit colour PNG takes uint16 (H, W, 3), not {image.dtype} {image.shape}")
    height, width, _ = image.shape
    rows = np.ascontiguousarray(image.astype(">u2")).view(np.uint8).reshape(height, width * 6)
    filtered = np.empty((height, width * 6 + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPE_RGB, 0, 0, 0)
    file.write(_SIGNATURE + _chunk(b"IHDR", header))
    file.write(_chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)) + _chunk(b"IEND", b""))
