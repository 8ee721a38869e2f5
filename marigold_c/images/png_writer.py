"""Pictures as PNG (ISO/IEC 15948), strip by strip on several threads. Called by writers.py.

Every strip is filtered and compressed by itself, by a worker that asks the picture for its rows. It ends on a whole
byte (a flush of deflate), so the strips one after the other are one zlib stream, whose checksum is joined from theirs.
The file is the same for any number of threads. Maps are smooth from row to row, so each row is filtered by the one
above. In memory are two strips (about 1 MiB of pixels each) for each thread, and what makes them.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .. import _C
from .pictures import Picture

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ZLIB_HEADER = b"\x78\x5e"  # a window of 32 KiB, a fast level (RFC 1950)
_LEVEL = 4  # of zlib: the fastest that follows up on matches; smaller files than Pillow's cost twice the time
_UP = 2  # the filter: difference to the byte above
_GREY, _RGB = 0, 2  # colour types
_STRIP_BYTES = 2**20
_ADLER_MODULUS = 65521


@dataclass(frozen=True)
class _Strip:
    """chunk: an IDAT. checksum: Adler-32 of the `length` bytes that it holds."""

    chunk: bytes
    checksum: int
    length: int


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _joined_checksum(first: int, second: int, length: int) -> int:
    """Adler-32 (RFC 1950) of two parts one after the other, the second of `length` bytes."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + ((first & 0xFFFF) - 1) * length
    return high % _ADLER_MODULUS << 16 | low % _ADLER_MODULUS


def _header(height: int, row: NDArray[Any]) -> bytes:
    """IHDR of a picture with this first row (1, W) or (1, W, 3)."""
    unsigned = row.dtype.kind == "u" and row.itemsize <= 2
    if height < 1 or not unsigned or row.ndim not in (2, 3) or row.shape[2:] not in ((), (3,)) or 0 in row.shape:
        raise ValueError(f"a PNG takes uint8 or uint16 (H, W) or (H, W, 3), not {row.dtype} {(height, *row.shape[1:])}")
    colour_type = _GREY if row.ndim == 2 else _RGB
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", row.shape[1], height, row.itemsize * 8, colour_type, 0, 0, 0))


def _filtered(picture: Picture, top: int, bottom: int) -> NDArray[np.uint8]:
    """Rows of the picture, each a byte that names the filter and the differences to the row above."""
    above = min(top, 1)  # the first row has none
    rows = picture.rows(top - above, bottom)
    big_endian = rows.astype(rows.dtype.newbyteorder(">"), order="C", copy=False)
    samples = np.ascontiguousarray(big_endian).view(np.uint8).reshape(len(rows), -1)
    filtered = np.empty((bottom - top, samples.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = samples[0]
    np.subtract(samples[1:], samples[:-1], out=filtered[1 - above :, 1:])
    return filtered


def _compress(picture: Picture, top: int, bottom: int) -> _Strip:
    content = _filtered(picture, top, bottom).data
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    last = bottom == picture.height
    stream = deflate.compress(content) + deflate.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)
    start = b"" if top else _ZLIB_HEADER
    return _Strip(_chunk(b"IDAT", start + stream), zlib.adler32(content), content.nbytes)


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[int], _Strip], items: Iterable[int], most: int
) -> Iterator[_Strip]:
    """The results in the order of the items, of which at most so many are worked on or wait."""
    waiting: deque[Future[_Strip]] = deque()
    for item in items:
        if len(waiting) == most:
            yield waiting.popleft().result()
        waiting.append(pool.submit(work, item))
    while waiting:
        yield waiting.popleft().result()


def write_png(file: BinaryIO, picture: Picture, threads: int | None = None) -> None:
    """Writes uint8 or uint16, grey or RGB. threads: default, all processors. ValueError: other arrays."""
    row = picture.rows(0, 1)
    file.write(_SIGNATURE + _header(picture.height, row))
    step = max(1, _STRIP_BYTES // row.nbytes)
    threads = threads or _C.available_threads()

    def work(top: int) -> _Strip:
        return _compress(picture, top, min(top + step, picture.height))

    checksum = zlib.adler32(b"")
    with ThreadPoolExecutor(threads) as pool:
        for strip in _in_order(pool, work, range(0, picture.height, step), 2 * threads):
            file.write(strip.chunk)
            checksum = _joined_checksum(checksum, strip.checksum, strip.length)
    file.write(_chunk(b"IDAT", struct.pack(">I", checksum)) + _chunk(b"IEND", b""))
