"""The threads of some blocks with their registers, and what operands of an instruction mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ptx.memory import WARP, GlobalMemory, SharedMemory
from ptx.module import NUMPY, SIZES, Kernel, PtxError

Array = Any
Step = Callable[[Array], None]  # an instruction: of the mask of active threads


@dataclass
class Result:
    """What a run has counted: instructions that threads made, by their name, and memory's traffic by instruction."""

    instructions: Counter[str] = field(default_factory=Counter)
    warp_instructions: Counter[int] = field(default_factory=Counter)
    shared: SharedMemory | None = None


class Threads:
    """Of `blocks`, one after the other: a register is an array with an element for each thread."""

    def __init__(
        self,
        kernel: Kernel,
        grid: tuple[int, int, int],
        threads: int,
        parameters: bytes,
        memory: GlobalMemory,
        blocks: list[tuple[int, int, int]],
        profile: bool = False,
    ) -> None:
        if kernel.parameter_bytes != len(parameters):
            raise PtxError(f"{kernel.name} takes {kernel.parameter_bytes} bytes of parameters, not {len(parameters)}")
        self.kernel, self.parameters, self.memory = kernel, parameters, memory
        self.threads, self.profile = threads, profile
        self.lanes = len(blocks) * threads
        self.shared = SharedMemory(kernel.shared_bytes, len(blocks), threads)
        self.lane = np.arange(self.lanes)
        self.result = Result(shared=self.shared)
        self.current = 0
        self.registers: dict[str, Array] = {}
        for name, kind in kernel.registers.items():
            dtype = np.dtype(bool) if kind == "pred" else np.dtype(f"u{SIZES[kind]}")
            self.registers[name] = np.zeros(self.lanes, dtype)
        block_of = self.lane // threads
        self.special = {"%tid.x": self.lane % threads, "%laneid": self.lane % WARP}
        for axis, letter in enumerate("xyz"):
            self.special[f"%ctaid.{letter}"] = np.array([block[axis] for block in blocks])[block_of]
            self.special[f"%nctaid.{letter}"] = np.full(self.lanes, grid[axis])
            self.special[f"%ntid.{letter}"] = np.full(self.lanes, threads if letter == "x" else 1)
            self.special.setdefault(f"%tid.{letter}", np.zeros(self.lanes, int))

    def _reader(self, operand: str, kind: str) -> Callable[[], Array]:
        """What an operand is, as an array of `kind` for all threads (or of one element for all)."""
        if kind == "pred":
            if operand in self.registers:
                register = self.registers[operand]
                return lambda: register
            negated = operand.lstrip("!")
            if negated in self.registers:
                register = self.registers[negated]
                return lambda: ~register
            constant = np.array([bool(int(operand, 0))])
            return lambda: constant
        dtype, size = NUMPY[kind], SIZES[kind]
        unsigned = np.dtype(f"u{size}")
        if operand in self.registers:
            register = self.registers[operand]
            if register.dtype.itemsize == size:
                view = register.view(dtype)
                return lambda: view
            return lambda: register.astype(unsigned).view(dtype)
        if operand in self.special:
            fixed = self.special[operand].astype(unsigned).view(dtype)
            return lambda: fixed
        if operand in self.kernel.shared:
            bits = self.kernel.shared[operand]
        elif re.match(r"0[fFdD][0-9a-fA-F]", operand):
            bits = int(operand[2:], 16)
        elif re.match(r"-?\d", operand):
            bits = int(operand.rstrip("U"), 0)
        else:
            raise PtxError(f"operand {operand} of {self.kernel.name}")
        constant = np.array([bits & ((1 << 8 * size) - 1)], np.uint64).astype(unsigned).view(dtype)
        return lambda: constant

    def _writer(self, operand: str, kind: str) -> Callable[[Array, Array], None]:
        """Sets a register of the active threads."""
        if operand == "_":
            return lambda value, mask: None
        register = self.registers[operand]
        if kind == "pred":
            return lambda value, mask: np.copyto(register, value, where=mask)
        dtype = NUMPY[kind]
        if register.dtype.itemsize == dtype.itemsize:
            view = register.view(dtype)
            return lambda value, mask: np.copyto(view, value, where=mask, casting="unsafe")
        wide = np.dtype(f"{'i' if dtype.kind == 'i' else 'u'}{register.dtype.itemsize}")
        view = register.view(wide)
        return lambda value, mask: np.copyto(view, np.asarray(value).astype(wide), where=mask)

    @staticmethod
    def _list(operand: str) -> list[str]:
        return [one.strip() for one in operand.strip("{}").split(",")]

    def _address(self, operand: str) -> Callable[[], Array]:
        inside = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+))?\s*\]", operand)
        if not inside:
            raise PtxError(f"address {operand}")
        offset = int(inside[2] or "0", 0)
        kind = "u64"
        if inside[1] in self.registers and self.registers[inside[1]].dtype.itemsize == 4:
            kind = "u32"
        base = self._reader(inside[1], kind)
        return lambda: np.broadcast_to(base().astype(np.int64) + offset, (self.lanes,))
