"""Reading PNG of 16 bits a channel: Pillow keeps 16 bits of grey images only; here are the colour ones.

Called by readers.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _COLOUR_TYPE = 24, 25  # where the header of a PNG says them


def is_png(data: bytes) -> bool:
    """Whether this begins as a PNG."""
    return data.startswith(_SIGNATURE)


def is_16bit_colour(data: bytes) -> bool:
    """Whether this is a PNG of 16 bits with more than one channel."""
    return is_png(data) and data[_DEPTH : _COLOUR_TYPE + 1] in (b"\x10\x02", b"\x10\x04", b"\x10\x06")


def decode_low_bytes(image: ImageFile.ImageFile) -> NDArray[np.uint8] | None:
    """The low byte of each sample of a PNG that was opened and not decoded; None where Pillow does not decode as
    expected here.

    Pillow unpacks samples of 16 bits by their high byte, "RGB;16B". Told that the byte order is the other one, it
    gives the low byte. Its grey with transparency has the layout of 8-bit RGBA: high, low, and two bytes of alpha.
    """
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
