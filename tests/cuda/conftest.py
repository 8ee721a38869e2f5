"""The CUDA backend's tests: `make test-cuda-emu` runs them without a GPU (tests/cuda_emu), `make test-cuda` on one.
Others leave this folder out: MARIGOLD_TEST_CUDA says which is meant.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_emu.build import build

import marigold_c._cuda as cuda

KIND = os.environ.get("MARIGOLD_TEST_CUDA", "")
collect_ignore_glob = [] if KIND in ("emulated", "real") else ["test_*.py"]
if KIND == "emulated":
    folder = Path(__file__).resolve().parent.parent.parent / "build" / "cuda_emu"
    os.environ["MARIGOLD_CUDA_LIBRARY"] = str(build(folder / "libmarigold_cuda_emu.so"))
elif KIND == "real":
    cuda.load_libraries()


class Emulator:
    """What tests/cuda_emu/emulator.h lets them set and ask."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)  # the same that the engine loads

    def order(self, number: int) -> None:
        self.library.mg_emu_set_order(number)

    def fail_after(self, acquisitions: int) -> None:
        self.library.mg_emu_fail_after(acquisitions)

    def fail_call_after(self, calls: int) -> None:
        self.library.mg_emu_fail_call_after(calls)

    @property
    def is_failure_due(self) -> bool:
        """Whether the call that is to fail has not been made yet: if it has, somebody must have told."""
        return bool(self.library.mg_emu_is_failure_due())

    def memory(self, total: int, block: int = 0) -> None:
        self.library.mg_emu_set_memory(ctypes.c_ulonglong(total), ctypes.c_ulonglong(block))

    def device(self, count: int, capability: int, code: int = 1) -> None:
        """code: 1, or 0 and -1 for the two errors by which CUDA tells that kernels were not built for the device."""
        self.library.mg_emu_set_device(count, capability)
        self.library.mg_emu_set_code(code)

    @property
    def current_device(self) -> int:
        """Of this thread, as other users of CUDA in the process see it."""
        return int(self.library.mg_emu_current_device())

    @current_device.setter
    def current_device(self, number: int) -> None:
        self.library.mg_emu_set_current_device(number)

    @property
    def held(self) -> int:
        return int(self.library.mg_emu_held())

    @property
    def used(self) -> int:
        self.library.mg_emu_used_memory.restype = ctypes.c_ulonglong
        return int(self.library.mg_emu_used_memory())

    @property
    def graph_launches(self) -> int:
        return int(self.library.mg_emu_graph_launches())

    @property
    def faults(self) -> int:
        return int(self.library.mg_emu_faults())


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Skips on a GPU. Afterwards nothing is held, and no memory was written outside its bounds."""
    if KIND != "emulated":
        pytest.skip("of the emulation")
    gc.collect()  # what other tests left: it would be given back while this one counts
    found = Emulator(os.environ["MARIGOLD_CUDA_LIBRARY"])
    yield found
    found.order(0)
    found.fail_after(-1)
    found.fail_call_after(-1)
    found.device(1, 86)
    found.memory(0)
    assert found.faults == 0
