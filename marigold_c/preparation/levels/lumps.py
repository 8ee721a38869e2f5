"""The directory of lumps at the head of a BSP file, and its entities. Calls world.py."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .world import LevelError


class Lumps:
    """data: the whole file; file: its name for messages. LevelError: another format, or a lump beyond the end."""

    def __init__(self, data: bytes, file: str, magic: bytes, versions: tuple[int, ...], count: int) -> None:
        self._data, self.file = data, file
        if len(data) < 8 + 8 * count:
            raise LevelError(f"{file}: {len(data)} bytes are no level")
        found, self.version = struct.unpack_from("<4si", data)
        if found != magic or self.version not in versions:
            raise LevelError(
                f"{file}: {found!r} {self.version}, where {magic!r} {' or '.join(map(str, versions))} is read"
            )
        self._places = [struct.unpack_from("<ii", data, 8 + 8 * number) for number in range(count)]
        for number, (start, length) in enumerate(self._places):
            if start < 0 or length < 0 or start + length > len(data):
                raise LevelError(f"{file}: lump {number} has the bytes {start} to {start + length} of {len(data)}")

    def bytes(self, number: int) -> bytes:
        start, length = self._places[number]
        return self._data[start : start + length]

    def table(self, number: int, dtype: Any) -> NDArray[Any]:
        """The records of a lump; a last one that is not whole is left out."""
        kind = np.dtype(dtype)
        start, length = self._places[number]
        return np.frombuffer(self._data, kind, length // kind.itemsize, start)


def entities(lump: bytes) -> list[dict[str, str]]:
    """The entities of a level: keys in lower case and values."""
    text = lump.decode("latin1")
    blocks = re.findall(r"\{([^{}]*)\}", text)
    return [{key.lower(): value for key, value in re.findall(r'"([^"]*)"\s+"([^"]*)"', block)} for block in blocks]


def vector_of(text: str) -> NDArray[np.float64] | None:
    """Three numbers, or None."""
    try:
        values = np.array([float(word) for word in text.split()[:3]])
    except ValueError:
        return None
    return values if len(values) == 3 and np.isfinite(values).all() and np.abs(values).max() < 1e6 else None


def number_of(text: str) -> int | None:
    """The number of a level's own model, which entities call *N."""
    return int(text[1:]) if re.fullmatch(r"\*\d{1,6}", text) else None
