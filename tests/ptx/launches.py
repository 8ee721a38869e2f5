"""The launches that the emulated backend makes for an operation, run once more by the PTX interpreter.

The host's code of the backend thus decides grid, arguments and memory, as on a GPU, and there is one description of
them. What the PTX writes is compared with what the emulation wrote, which the suite holds to float64.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from ptx.arithmetic import float_of_bfloat16
from ptx.machine import launch
from ptx.memory import GlobalMemory
from ptx.module import Kernel
from ptx.registers import Result

Array = Any


class _Record(ctypes.Structure):
    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("threads", ctypes.c_uint),
        ("arguments", ctypes.POINTER(ctypes.c_ubyte)),
        ("argument_bytes", ctypes.c_ulonglong),
        ("is_done", ctypes.c_int),
    )


_HOOK = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Record))


@dataclass
class Launch:
    kernel: str  # mangled
    grid: tuple[int, int, int]
    threads: int
    arguments: bytes
    before: dict[int, bytes]  # all of device memory
    after: dict[int, bytes]


@cache
def _symbols(library: str) -> dict[int, str]:
    """Functions of a shared object by their offset."""
    listed = subprocess.run(["nm", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in listed.splitlines())
    return {int(row[0], 16): row[2] for row in rows if len(row) == 3 and row[1] in "tTwW"}


def _device_memory(library: ctypes.CDLL) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    address, count = ctypes.c_void_p(), ctypes.c_ulonglong()
    while library.mg_emu_device_block(len(found), ctypes.byref(address), ctypes.byref(count)):
        found[address.value or 0] = ctypes.string_at(address.value or 0, count.value)
    return found


MAX_BLOCK_BYTES = 16 << 20  # larger ones are cuBLAS's workspace


@contextmanager
def recorded(path: str) -> Iterator[list[Launch]]:
    """The launches that are made inside of the with statement, in order."""
    library = ctypes.CDLL(path)
    symbols = _symbols(path)
    known = next(offset for offset, name in symbols.items() if name == "mg_emu_set_launch_hook")
    base = (ctypes.cast(library.mg_emu_set_launch_hook, ctypes.c_void_p).value or 0) - known
    found: list[Launch] = []

    @_HOOK
    def hook(pointer: Any) -> None:
        record = pointer.contents
        memory = {at: data for at, data in _device_memory(library).items() if len(data) <= MAX_BLOCK_BYTES}
        if record.is_done:
            found[-1].after = memory
            return
        arguments = ctypes.string_at(record.arguments, record.argument_bytes)
        name = symbols[record.kernel - base]
        found.append(Launch(name, tuple(record.grid), record.threads, arguments, memory, {}))

    library.mg_emu_set_launch_hook(hook)
    try:
        yield found
    finally:
        library.mg_emu_set_launch_hook(None)


@dataclass
class Outcome:
    """What an interpreted launch wrote, beside what the emulation wrote."""

    written: int  # bytes
    worst: float  # the largest error, as a part of the largest number of its block
    differs_in_nan: bool
    results: list[Result]
    memory: GlobalMemory


_DECODE: dict[str, Callable[[Array], Array]] = {
    "float32": lambda data: data.view(np.float32),
    "float16": lambda data: data.view(np.float16).astype(np.float32),
    "bfloat16": lambda data: float_of_bfloat16(data.view(np.uint16)),
    "float64": lambda data: data.view(np.float64),
}
_ELEMENT = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


def interpret(kernel: Kernel, made: Launch, dtype: str, profile: bool = False) -> Outcome:
    """Runs a launch by the PTX; dtype is that of what it writes."""
    memory = GlobalMemory(made.before)
    # The end of a structure's padding is not part of PTX's parameters.
    arguments = made.arguments[: kernel.parameter_bytes].ljust(kernel.parameter_bytes, b"\0")
    results = launch(kernel, made.grid, made.threads, arguments, memory, profile=profile)
    written, worst, differs_in_nan = 0, 0.0, False
    for address, data in memory.bytes.items():
        usable = len(data) // _ELEMENT[dtype] * _ELEMENT[dtype]
        expected = np.frombuffer(made.after[address], np.uint8)
        touched = memory.writers[address] >= 0
        changed = np.flatnonzero(np.repeat(touched, 2)[: len(data)])
        if not len(changed):
            if not np.array_equal(data, expected):
                differs_in_nan = True  # the emulation wrote here, and the PTX did not
            continue
        written += len(changed)
        found, wanted = (_DECODE[dtype](np.ascontiguousarray(one[:usable])) for one in (data, expected))
        elements = np.unique(changed // _ELEMENT[dtype])
        found, wanted = found[elements].astype(np.float64), wanted[elements].astype(np.float64)
        differs_in_nan |= bool((np.isnan(found) != np.isnan(wanted)).any())
        scale = np.nanmax(np.abs(wanted)) if np.isfinite(wanted).any() else 0.0
        error = np.nanmax(np.abs(found - wanted)) if len(found) else 0.0
        worst = max(worst, float(error / scale) if scale else float(error))
    return Outcome(written, worst, differs_in_nan, results, memory)
