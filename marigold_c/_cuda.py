"""Loads the libraries that the CUDA backend is linked against, before the engine opens it.

libmarigold_cuda.so names libcublasLt.so.13 and no folder; the dynamic linker takes a library of that name that is
loaded already. So that of the package nvidia-cublas (extra [cuda]) is found wherever it is installed; without the
package it must be on the system's path.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

LIBRARY = "libcublasLt.so.13"


def is_cuda(device: str) -> bool:
    return device.partition(":")[0] == "cuda"


def _folders() -> Iterator[Path]:
    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from (Path(folder) / name / "lib" for name in ("cu13", "cublas"))


def load_libraries() -> None:
    """Loads cuBLASLt of the package, if it is there; what is missing then is told when the engine opens the backend."""
    for folder in _folders():
        path = folder / LIBRARY
        if path.is_file():
            try:
                ctypes.CDLL(str(path))
            except OSError:
                continue
            return
