"""The PTX interpreter's tests: `make test-ptx`, which needs nvcc. Others leave this folder out (MARIGOLD_TEST_PTX)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cuda_emu.build import build as build_emulation
from ptx import module
from ptx.build import SOURCES, build

collect_ignore_glob = [] if os.environ.get("MARIGOLD_TEST_PTX") else ["test_*.py"]
FOLDER = Path(__file__).resolve().parents[2] / "build"
if os.environ.get("MARIGOLD_TEST_PTX"):
    os.environ["MARIGOLD_CUDA_LIBRARY"] = str(build_emulation(FOLDER / "cuda_emu" / "libmarigold_cuda_emu.so"))
    PTX = build(FOLDER / "ptx")


@pytest.fixture(scope="session")
def kernels_of() -> Callable[[str], dict[str, module.Kernel]]:
    """All kernels of an architecture by their names."""
    parsed: dict[str, dict[str, module.Kernel]] = {}

    def kernels(architecture: str) -> dict[str, module.Kernel]:
        if architecture not in parsed:
            parsed[architecture] = {}
            for source in SOURCES:
                parsed[architecture] |= module.parse(PTX[source, architecture].read_text(encoding="utf-8"))
        return parsed[architecture]

    return kernels


@pytest.fixture
def emulation() -> Iterator[Any]:
    """The emulated device, whose capability decides what the host's code asks for."""
    import ctypes

    library = ctypes.CDLL(os.environ["MARIGOLD_CUDA_LIBRARY"])
    yield library
    library.mg_emu_set_device(1, 86)
