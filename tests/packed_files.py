"""Reads packed checkpoints for the tests by the format's description alone, and writes ones that lie."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGINNING = b'{"__metadata__":{"crc32":"'


def read(path: Path) -> tuple[dict[str, Any], memoryview]:
    """Header and data."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), memoryview(data)[8 + length :]


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Layout, shape and bytes by name."""
    header, data = read(path)
    texts = header.pop("__metadata__")
    found = {}
    for name, entry in header.items():
        _checksum, layout, shape = texts[name].split(" ")
        begin, end = entry["data_offsets"]
        found[name] = (layout, tuple(int(extent) for extent in shape.split(",")), bytes(data[begin:end]))
    return found


def write(path: Path, header: dict[str, Any], data: bytes | memoryview) -> None:
    """With the header's checksum made right: a file that its maker wanted so."""
    texts = {"crc32": "00000000", **{key: text for key, text in header["__metadata__"].items() if key != "crc32"}}
    text = json.dumps({"__metadata__": texts, **{k: v for k, v in header.items() if k != "__metadata__"}})
    raw = text.replace(", ", ",", 1).replace('": {', '":{', 1).replace('"crc32": ', '"crc32":', 1).encode()
    raw += b" " * (-(8 + len(raw)) % 64)
    assert raw.startswith(BEGINNING + b"00000000")
    raw = raw.replace(b"00000000", f"{zlib.crc32(raw):08x}".encode(), 1)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(data))


def rewrite(path: Path, out: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy whose header was changed, checksum and all."""
    header, data = read(path)
    change(header)
    write(out, header, data)
    return out
