"""The border between the engine and a backend in a shared object of its own: both are compiled with the checksum of the
headers that describe it, and the engine refuses a backend that was compiled with other headers. Called by setup.py,
build_cuda.py and tests/cuda_emu/build.py."""

from __future__ import annotations

import zlib
from pathlib import Path

CSRC = Path(__file__).resolve().parent.parent / "csrc"
HEADERS = ("include/marigold.h", "core/core.h", "op/op.h", "op/ops.def", "backend/backend.h", "backend/library.h")


def border_flag(csrc: Path = CSRC) -> str:
    """For the compiler of library.c and of the backend."""
    checksum = 0
    for name in HEADERS:
        checksum = zlib.crc32((csrc / name).read_bytes(), checksum)
    return f"-DMG_BORDER={checksum}u"
