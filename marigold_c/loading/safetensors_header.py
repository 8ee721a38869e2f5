"""The header of a safetensors file, for what is told about checkpoints; weights are read by the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .config import json_object

_LARGEST = 100 * 1000 * 1000


def read_header_text(path: Path) -> bytes:
    """The header as it is stored, its length checked against the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > size > 8 and file.read(1) != b"{":
            raise CheckpointError(
                f'{path}: no safetensors file, which would begin with the length of a header and the header\'s "{{"'
            )
        file.seek(8)
        if size < 8 or length > min(size - 8, _LARGEST):
            raise CheckpointError(
                f"{path}: no safetensors file, or not all of it: the header claims {length} bytes; the file has {size}"
            )
        return file.read(length)


def parse_header(text: bytes, path: Path) -> dict[str, Any]:
    return dict(json_object(text, path))


def read_header(path: Path) -> dict[str, Any]:
    return parse_header(read_header_text(path), path)


def tensors_of(header: dict[str, Any]) -> dict[str, Any]:
    """The entries of the tensors."""
    return {name: entry for name, entry in header.items() if name != "__metadata__"}
