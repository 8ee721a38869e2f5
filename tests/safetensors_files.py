"""Writes safetensors files for the tests: correct ones, and ones that lie."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "BF16": np.uint16}


def pack(header: bytes, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def layout(tensors: dict[str, tuple[str, np.ndarray]]) -> tuple[dict[str, Any], bytes]:
    """Header and data of a correct file; arrays are stored as they are under the given type name."""
    header: dict[str, Any] = {}
    data = b""
    for key, (dtype, array) in tensors.items():
        raw = np.ascontiguousarray(array.astype(DTYPES[dtype])).tobytes()
        header[key] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return header, data


def write(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    header, data = layout(tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(json.dumps({"__metadata__": {"format": "pt"}, **header}).encode(), data))


def read(path: Path, dtype: str | None = "F32") -> dict[str, np.ndarray]:
    """All arrays of a file, all of that type; None: of any."""
    raw = path.read_bytes()
    begin = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:begin])
    header.pop("__metadata__", None)
    arrays = {}
    for key, entry in header.items():
        assert dtype in (None, entry["dtype"])
        first, end = (begin + offset for offset in entry["data_offsets"])
        arrays[key] = np.frombuffer(raw[first:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays
