"""Loads the libraries that the CUDA backend uses, before the engine opens it.

libmarigold_cuda.so names libcublasLt.so.13, and libnccl.so.2 when GPUs of several processes are to work together, but
no folder; the dynamic linker takes a library of that name that is loaded already. So those of the packages
nvidia-cublas (extra [cuda]) and nvidia-nccl-cu13 (extra [nccl]) are found wherever they are installed; without the
packages they must be on the system's path.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

CUBLAS, NCCL = "libcublasLt.so.13", "libnccl.so.2"


def is_cuda(device: str) -> bool:
    return device.partition(":")[0] == "cuda"


def _folders(names: tuple[str, ...]) -> Iterator[Path]:
    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from (Path(folder) / name / "lib" for name in names)


def _load(library: str, *names: str) -> None:
    """What is missing after it is told when the engine asks for it."""
    for folder in _folders(names):
        path = folder / library
        if path.is_file():
            try:
                ctypes.CDLL(str(path))
            except OSError:
                continue
            return


def load_libraries() -> None:
    """cuBLASLt of the package, if it is there."""
    _load(CUBLAS, "cu13", "cublas")


def load_nccl() -> None:
    """NCCL of the package, if it is there."""
    _load(NCCL, "nccl", "cu13")
