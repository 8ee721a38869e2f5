"""Safetensors files of float32 arrays: weights and the optimiser's state of a trainer. Called by training/trainer.py.

Arrays are written one after the other, each made when its turn comes, and read in place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..atomic_files import write_atomically
from ..errors import CheckpointError
from .safetensors_header import parse_header, read_header_text, tensors_of

Array = NDArray[np.float32]
Maker = Callable[[], Array]


def write_arrays(
    path: str | PathLike[str],
    shapes: Mapping[str, Sequence[int]],
    make: Callable[[str], Array],
    metadata: Mapping[str, str],
    dtype: str = "F32",
) -> None:
    """The file appears whole or not at all. make(name) gives the array of a name; dtype: "F32" or "F16", as stored."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end, stored = 0, np.dtype({"F32": "<f4", "F16": "<f2"}[dtype])
    for name, shape in shapes.items():
        begin, end = end, end + stored.itemsize * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 64 + 56)  # the data begins at a multiple of 64 bytes

    def write(file: BinaryIO) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            array = make(name)
            assert array.shape == tuple(shape)
            file.write(np.ascontiguousarray(array, stored).data)

    write_atomically(Path(path), write)


def read_arrays(path: str | PathLike[str], shapes: Mapping[str, Sequence[int]]) -> tuple[Mapping[str, Array], Any]:
    """The arrays of exactly these names and shapes, mapped read-only, and the metadata.

    CheckpointError: it is no such file, or has others.
    """
    path = Path(path)
    text = read_header_text(path)
    header, begin = parse_header(text, path), 8 + len(text)
    entries = tensors_of(header)
    if entries.keys() != shapes.keys():
        missing, unused = sorted(shapes.keys() - entries.keys()), sorted(entries.keys() - shapes.keys())
        raise CheckpointError(
            f"{path}: {len(missing)} arrays are missing and {len(unused)} unused: {', '.join((missing + unused)[:5])}"
        )
    data = np.memmap(path, np.uint8, "r")
    arrays = {}
    for name, shape in shapes.items():
        arrays[name] = _array(data[begin:], entries[name], shape, f"{path}: {name}")
    return arrays, header.get("__metadata__") or {}


def _array(data: NDArray[np.uint8], entry: Any, shape: Sequence[int], label: str) -> Array:
    match entry:
        case {"dtype": "F32", "shape": list(stored), "data_offsets": [int(begin), int(end)]}:
            if stored != list(shape):
                raise CheckpointError(f"{label} has the shape {stored}; expected {list(shape)}")
            if not 0 <= begin <= end <= len(data) or end - begin != 4 * math.prod(shape):
                raise CheckpointError(f"{label} lies at bytes {begin} to {end} of {len(data)}")
            return np.frombuffer(data[begin:end].tobytes(), "<f4").reshape(shape)
    raise CheckpointError(f"{label} is no float32 array: {str(entry)[:80]}")
